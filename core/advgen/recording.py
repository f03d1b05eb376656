"""The kernels of an update, recorded once on a GPU and launched together from then on.

A step of a small network is thousands of tiny kernels, which Python takes ten times as long to launch as the GPU to run. A CUDA
graph launches them at once. Python is not asked again on a replay, so what changes from update to update comes through
buffers that are filled before it: samples and noise, scheduled scalars, what the players remember. What decides which kernels
there are at all (penalties that are due, shapes) is the recording's key; a new phase of the plan begins with no recordings.

The first update of a key runs as it is, the second is watched: work that waits for the device, or draws random numbers on the
CPU, cannot be recorded, and goes on as it is. The third is recorded. Values are those of the same kernels either way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgen.buffers import (
    Asked,
    BufferedObjective,
    ObservedState,
    tensors_of,
    with_drawn_uniform,
    with_observed_uniform,
    with_tensors,
    without_more_noise,
)
from advgen.config.model import RunConfig
from advgen.engine import Player, Terms
from advgen.graphs import Backend, CudaGraphs
from advgen.players import Chunk, Objective, Players
from advgen.schedules import schedules_of

Key = tuple[Any, ...]
WATCHED = 2
"""The update of a key that is watched; the next is recorded."""
MOST_RECORDINGS = 64
AUGMENTATION = "discriminator.augmentation"
OUTSIDE = ("generator.learning_rate", "discriminator.learning_rate", "generator.beta2", "discriminator.beta2")
"""Scheduled scalars of what comes after the gradients."""


@dataclass(frozen=True)
class Worked:
    """What an update found out beside its gradients.

    Args:
        terms: costs and logs.
        pairs: of each micro-batch, such as the scores of both sides.
        tensors: whatever else.
    """

    terms: Terms
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)

    def flat(self) -> list[Tensor]:
        """All of it: the scalars as one tensor, float64, then the others."""
        scalars = [each.double() for each in (*self.terms.costs.values(), *self.terms.logs.values())]
        others = [*(each for pair in self.pairs for each in pair), *self.tensors]
        return [torch.stack(scalars), *others] if scalars else others

    def filled(self, flat: list[Tensor]) -> Worked:
        """The same names and shapes with other numbers, given as ``flat`` gives them."""
        names = (*self.terms.costs, *self.terms.logs)
        scalars, others = (flat[0].unbind(), flat[1:]) if names else ((), flat)
        count, pairs = len(self.terms.costs), 2 * len(self.pairs)
        costs, logs = (dict(zip(names[cut], scalars[cut], strict=True)) for cut in (slice(count), slice(count, None)))
        return Worked(Terms(costs, logs), list(zip(others[:pairs:2], others[1:pairs:2], strict=True)), others[pairs:])


Work = Callable[..., Worked]
"""Objective, micro-batches, inputs: their costs, with the gradients left at the player's parameters."""


@dataclass(frozen=True)
class Update:
    """An update of one player up to its gradients.

    Args:
        key: whatever decides in Python which kernels it has; its first entry is a name for people.
        player: whose gradients are wanted; it has none before.
        progress: of the plan, at which schedules stand.
        inputs: what the work is given beside micro-batches.
    """

    key: Key
    players: Players
    player: Player
    objective: Objective
    chunks: list[Chunk]
    progress: float
    work: Work
    inputs: Sequence[Tensor] = ()

    def run(self, chunks: list[Chunk] | None = None) -> Worked:
        """As it is."""
        return self.work(self.objective, self.chunks if chunks is None else chunks, *self.inputs)

    def whole_key(self) -> Key:
        """With what else decides the kernels: shapes and kinds of tensors, places in the batch."""
        tensors = [*tensors_of(self.chunks), *self.inputs]
        return (*self.key, *((tuple(each.shape), each.dtype) for each in tensors), *(chunk.start for chunk in self.chunks))

    def remembered(self, names: set[str]) -> dict[str, Tensor]:
        """Of the players' state what has these names."""
        return {name: self.players.state[name] for name in sorted(names) if name in self.players.state}


@dataclass(frozen=True)
class Recording:
    """One recorded update.

    Args:
        chunks: micro-batches whose tensors are buffers.
        inputs: buffers.
        uniforms: buffers of what the micro-batches' ``uniform`` is asked for.
        objective: with the buffers of scheduled scalars.
        before: buffers of what it reads of the players' state.
        after: the same as the work leaves it; what it did not touch is the buffer itself.
        gradients: of the player's parameters.
        worked: what the work returned, and ``flat`` the same as tensors, which every replay fills.
        replay: runs the kernels.
    """

    chunks: list[Chunk]
    inputs: list[Tensor]
    uniforms: dict[Asked, Tensor]
    objective: BufferedObjective
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    gradients: list[Tensor | None]
    worked: Worked
    flat: list[Tensor]
    replay: Callable[[], None]

    def fits(self, update: Update, names: set[str]) -> bool:
        """Whether what the players remember has the names and shapes that it had."""
        now = update.remembered(names)
        return now.keys() == self.before.keys() and all(now[name].shape == value.shape for name, value in self.before.items())

    def play(self, update: Update) -> Worked:
        """Fill the buffers, run the kernels, and leave everything where the work would have."""
        state, given = update.players.state, update.chunks
        own = zip([*tensors_of(self.chunks), *self.inputs], [*tensors_of(given), *update.inputs], strict=True)
        for buffer, value in own:
            buffer.copy_(value)
        for name, buffer in self.before.items():
            buffer.copy_(state[name])
        for (index, shape), buffer in self.uniforms.items():
            buffer.copy_(given[index].uniform(shape))
        for path, base in self.objective.bases.items():
            self.objective.buffers[path].fill_(update.objective.weight(path, base, update.progress))
        self.replay()
        for parameter, gradient in zip(update.player.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        state.update({name: value.clone() for name, value in self.after.items() if value is not self.before.get(name)})
        # Another recording's replay may write over these: they share their memory.
        return self.worked.filled([each.clone() for each in self.flat])


@dataclass
class Case:
    """What is known of a key.

    Args:
        runs: how often it ran.
        asked: what its micro-batches' ``uniform`` was asked for.
        names: what it read or wrote of the players' state.
        refused: why it cannot be recorded; empty where it can, or nobody knows.
    """

    runs: int = 0
    asked: set[Asked] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    recording: Recording | None = None
    refused: str = ""


class Recorder:
    """Runs updates: as they are at first, then recorded."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.cases = backend, dict[Key, Case]()

    @property
    def refusals(self) -> dict[str, str]:
        """Why updates cannot be recorded, by their names."""
        return {str(key[0]): each.refused for key, each in self.cases.items() if each.refused}

    def forget(self) -> None:
        """Drop all recordings, as what decides their kernels may have changed."""
        self.cases.clear()

    def run(self, update: Update) -> Worked:
        """The update's work, recorded from its third time on."""
        case = self.cases.setdefault(update.whole_key(), Case())
        if case.refused:
            return update.run()
        case.runs += 1
        if case.recording is not None and not case.recording.fits(update, case.names):
            case.recording, case.runs = None, 1
        if case.runs <= WATCHED:
            with observed_state(update, case.names):
                return (
                    self._watch(case, update)
                    if case.runs == WATCHED
                    else update.run(with_observed_uniform(update.chunks, case.asked))
                )
        case.recording = case.recording or self._record(case, update)
        return update.run() if case.recording is None else case.recording.play(update)

    def _watch(self, case: Case, update: Update) -> Worked:
        """The work, with a look at what it waits for and where its random numbers come from."""
        drawn = {asked: update.chunks[asked[0]].uniform(asked[1]) for asked in case.asked}
        attempt, chance = Attempt(update), host_randomness()
        try:
            with self.backend.watched():
                worked = update.run(with_drawn_uniform(update.chunks, drawn))
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            case.refused = "it waits for the device"
            attempt.undo()
            return update.run()
        if host_randomness() != chance:
            case.refused = "random numbers are drawn on the CPU"
        return worked

    def _record(self, case: Case, update: Update) -> Recording | None:
        if sum(each.recording is not None for each in self.cases.values()) >= MOST_RECORDINGS:
            case.refused = f"there are {MOST_RECORDINGS} recordings already, as shapes vary"
            return None
        players, state, attempt = update.players, update.players.state, Attempt(update)
        before = {name: value.clone() for name, value in update.remembered(case.names).items()}
        chunks, inputs = [with_tensors(chunk, torch.clone) for chunk in update.chunks], [each.clone() for each in update.inputs]
        uniforms = {asked: update.chunks[asked[0]].uniform(asked[1]).clone() for asked in sorted(case.asked)}
        objective, served = buffered_objective(update), without_more_noise(with_drawn_uniform(chunks, uniforms))
        results = list[Worked]()

        def once() -> list[Tensor]:
            results.append(update.work(objective, served, *inputs))
            flats.extend(results[0].flat())
            gradients = [each.grad for each in update.player.parameters if each.grad is not None]
            return [*gradients, *flats, *players.state.values()]

        flats, players.state = list[Tensor](), dict(before)
        try:
            with augmentation_scheduled_by(objective, update):
                replay = self.backend.record(once)
            after, gradients = players.state, [parameter.grad for parameter in update.player.parameters]
        except RuntimeError as error:
            players.state, case.refused = state, str(error).splitlines()[0]
            attempt.undo()
            return None
        finally:
            players.state = state
        return Recording(chunks, inputs, uniforms, objective, before, after, gradients, results[0], flats, replay)


class Attempt:
    """Everything that an update changes, to put it back as it was."""

    def __init__(self, update: Update) -> None:
        players, device = update.players, update.players.world.device
        self.update, self.state, self.device = update, dict(players.state), device
        self.buffers = [(each, each.clone()) for net in (players.generates, players.judges) for each in net.buffers()]
        self.chance = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def undo(self) -> None:
        """State, networks' buffers, random numbers; gradients are dropped."""
        players = self.update.players
        for parameter in self.update.player.parameters:
            parameter.grad = None
        players.state.clear()
        players.state.update(self.state)
        with torch.no_grad():
            for buffer, value in self.buffers:
                buffer.copy_(value)
        torch.set_rng_state(self.chance[0])
        if self.chance[1] is not None:
            torch.cuda.set_rng_state(self.chance[1], self.device)


def buffered_objective(update: Update) -> BufferedObjective:
    """The update's objective with a buffer for each scheduled scalar that gradients may depend on."""
    players, objective = update.players, update.objective
    paths = [path for path in schedules_of(objective.config) if path not in OUTSIDE]
    buffers = {path: torch.ones((), dtype=players.dtype, device=players.world.device) for path in paths}
    return BufferedObjective(**{each.name: getattr(objective, each.name) for each in fields(Objective)}, buffers=buffers)


@contextmanager
def observed_state(update: Update, names: set[str]) -> Iterator[None]:
    """What the block reads or writes of the players' state is added to ``names``."""
    players, state = update.players, update.players.state
    players.state = observed = ObservedState(state, names)
    try:
        yield
    finally:
        state.clear()
        state.update(observed.items())
        players.state = state


@contextmanager
def augmentation_scheduled_by(objective: BufferedObjective, update: Update) -> Iterator[None]:
    """The critic's augmentation as a buffer, where it is scheduled."""
    critic = update.players.judges
    before = critic.augmentation_scale
    critic.augmentation_scale = objective.weight(AUGMENTATION, 1.0, update.progress)
    try:
        yield
    finally:
        critic.augmentation_scale = before


def host_randomness() -> tuple[Any, ...]:
    """The states of the CPU's random number generators, to compare."""
    own: Any = np.random.get_state(legacy=True)
    return (torch.get_rng_state().numpy().tobytes(), random.getstate(), own[1].tobytes(), own[2])


def make_recorder(players: Players, config: RunConfig) -> Recorder | None:
    """A recorder where recordings can be had: on one GPU, with networks that say nothing against it.

    Shares of a balance are divided, which a buffer does otherwise than a number; nothing else that schedules drive is.
    """
    world, able = players.world, players.generates.recordable and players.judges.recordable
    wanted = config.train.cuda_graphs and world.device.type == "cuda" and world.size == 1
    divided = any(path.startswith("balance.") for path in schedules_of(config))
    return Recorder(CudaGraphs()) if wanted and able and not divided else None


def recorded(update: Update) -> Worked:
    """The update's work, recorded where the players have a recorder."""
    recorder = update.players.recorder
    return update.run() if recorder is None else recorder.run(update)
