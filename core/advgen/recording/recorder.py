"""Updates by their keys: run, watched, recorded, replayed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from advgen.players import Objective
from advgen.recording.buffers import (
    Asked,
    BufferedObjective,
    ObservedState,
    tensors_of,
    with_drawn_uniform,
    with_observed_uniform,
    with_tensors,
    without_more_noise,
)
from advgen.recording.graphs import Backend
from advgen.recording.update import Attempt, Key, Update, Worked, host_randomness
from advgen.schedules import schedules_of

WATCHED = 2
"""The update of a key that is watched; the next is recorded."""
MOST_RECORDINGS = 64
AUGMENTATION = "discriminator.augmentation"
OUTSIDE = ("generator.learning_rate", "discriminator.learning_rate", "generator.beta2", "discriminator.beta2")
"""Scheduled scalars of what comes after the gradients."""


@dataclass(frozen=True)
class Recording:
    """One recorded update.

    Args:
        buffers: of all tensors that an update is given, in the order of ``Update.tensors``.
        uniforms: buffers of what the micro-batches' ``uniform`` is asked for.
        objective: with the buffers of scheduled scalars.
        before: buffers of what it reads of the players' state.
        after: the same as the work leaves it; what it did not touch is the buffer itself.
        gradients: of the player's parameters.
        worked: what the work returned, and ``flat`` the same as tensors, which every replay fills.
        replay: runs the kernels.
    """

    buffers: list[Tensor]
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
        state = update.players.state
        for buffer, value in zip(self.buffers, update.tensors, strict=True):
            buffer.copy_(value)
        for name, buffer in self.before.items():
            buffer.copy_(state[name])
        for (index, shape), buffer in self.uniforms.items():
            buffer.copy_(update.chunks[index].uniform(shape))
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
                if case.runs == WATCHED:
                    return self._watch(case, update)
                return update.run(with_observed_uniform(update.chunks, case.asked))
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
        buffers = [*tensors_of(chunks), *inputs]
        return Recording(buffers, uniforms, objective, before, after, gradients, results[0], flats, replay)


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
