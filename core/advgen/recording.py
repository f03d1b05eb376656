"""The kernels of an update, recorded once on a GPU and launched together from then on.

A step of a small network is thousands of tiny kernels, which Python takes ten times as long to launch as the GPU to run. A CUDA
graph launches them at once. Python is not asked again on a replay, so what changes from update to update comes through
buffers that are filled before it: samples and noise, scheduled scalars, what the players remember. What decides which kernels
there are at all (penalties that are due, shapes) is the recording's key.

The first updates of a key run as they are. The second is watched: work that waits for the device, or draws random numbers on
the CPU, cannot be recorded, and goes on as it is. Values are those of the same kernels either way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from advgen.config.model import RunConfig
from advgen.contracts import Batch
from advgen.engine import Player, Terms
from advgen.players import Chunk, Objective, Players
from advgen.schedules import schedules_of

Key = tuple[Any, ...]
Asked = tuple[int, tuple[int, ...]]
"""What ``Chunk.uniform`` was asked for: the micro-batch and the shape."""
WATCHED = 2
"""The update of a key that is watched; the next is recorded."""
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

    def unflatten(self, flat: list[Tensor]) -> Worked:
        """Of the same names and shapes, from what ``flat`` gave."""
        names = (*self.terms.costs, *self.terms.logs)
        scalars, others = (flat[0].unbind(), flat[1:]) if names else ((), flat)
        count, pairs = len(self.terms.costs), 2 * len(self.pairs)
        costs, logs = (dict(zip(names[cut], scalars[cut], strict=True)) for cut in (slice(count), slice(count, None)))
        return Worked(Terms(costs, logs), list(zip(others[:pairs:2], others[1:pairs:2], strict=True)), others[pairs:])


Work = Callable[..., Worked]
"""Objective, micro-batches, inputs: their costs, with the gradients left at the player's parameters."""


class Backend(Protocol):
    """How work is recorded: as a graph of the GPU, or in tests by a tracer that is as blind to Python."""

    def record(self, work: Callable[[], list[Tensor]]) -> Callable[[], None]:
        """Record a call; what runs its kernels again, into the tensors that it returned."""
        ...

    def watched(self) -> AbstractContextManager[None]:
        """A context that raises RuntimeError where work waits for the device."""
        ...


class CudaGraphs:
    """Backend of CUDA devices.

    All recordings share one pool of memory, as they never run at the same time: what one leaves holds until another runs.
    """

    def __init__(self) -> None:
        self.pool: Any = None

    def record(self, work: Callable[[], list[Tensor]]) -> Callable[[], None]:
        """Nothing runs yet: the tensors hold numbers after the first replay."""
        graph = torch.cuda.CUDAGraph()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            self.kept = work()
        replay: Callable[[], None] = graph.replay
        return replay

    @contextmanager
    def watched(self) -> Iterator[None]:
        """As torch tells waits."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(before)


@dataclass
class Buffered(Objective):
    """An objective whose scheduled scalars are buffers, so that a recording sees their later values.

    Args:
        buffers: scalars by path.
        bases: what was scheduled, by path, for those that were asked for.
    """

    buffers: dict[str, Tensor] = field(default_factory=dict)
    bases: dict[str, float] = field(default_factory=dict)

    def weight(self, path: str, base: float, progress: float) -> float:
        """The buffer, which multiplies as a number does; a number where nothing is scheduled."""
        if path not in self.buffers:
            return super().weight(path, base, progress)
        self.bases[path] = base
        return self.buffers[path]  # type: ignore[return-value]


@dataclass(frozen=True)
class Recording:
    """One recorded update.

    Args:
        chunks: micro-batches whose tensors are buffers.
        inputs: buffers.
        uniforms: buffers of what their ``uniform`` is asked for.
        objective: with the buffers of scheduled scalars.
        before: buffers of the players' state.
        after: the state as the work leaves it; what it did not touch is the buffer itself.
        gradients: of the player's parameters.
        worked: what the work returned, and ``flat`` the same as tensors, which every replay fills.
    """

    chunks: list[Chunk]
    inputs: list[Tensor]
    uniforms: dict[Asked, Tensor]
    objective: Buffered
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    gradients: list[Tensor | None]
    worked: Worked
    flat: list[Tensor]
    replay: Callable[[], None]

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
        return self.worked.unflatten([each.clone() for each in self.flat])


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

    def shapes(self) -> tuple[Any, ...]:
        """What decides the kernels beside the key: shapes and kinds of tensors, places in the batch, what is remembered."""
        tensors = [*tensors_of(self.chunks), *self.inputs]
        places = (chunk.start for chunk in self.chunks)
        return (*((tuple(each.shape), each.dtype) for each in tensors), *places, *sorted(self.players.state))

    def undo(self, state: dict[str, Tensor]) -> None:
        """Take back what an attempt has left; running statistics have moved once more than they should."""
        for parameter in self.player.parameters:
            parameter.grad = None
        self.players.state.clear()
        self.players.state.update(state)


@dataclass
class Known:
    """What is known of a key: how often it ran, what its micro-batches were asked for, and what became of recording it."""

    runs: int = 0
    asked: set[Asked] = field(default_factory=set)
    recording: Recording | None = None
    refused: str = ""


class Recorder:
    """Runs updates: as they are at first, then recorded."""

    def __init__(self, backend: Backend) -> None:
        self.backend, self.known = backend, dict[Key, Known]()

    @property
    def refusals(self) -> dict[str, str]:
        """Why updates cannot be recorded, by their names."""
        return {str(key[0]): each.refused for key, each in self.known.items() if each.refused}

    def run(self, update: Update) -> Worked:
        """The update's work, recorded from its third time on."""
        known = self.known.setdefault((*update.key, *update.shapes()), Known())
        known.runs += 1
        if known.refused or known.runs < WATCHED:
            return update.run(spied(update.chunks, known.asked))
        if known.runs == WATCHED:
            return self._watch(known, update)
        known.recording = known.recording or self._record(known, update)
        return update.run() if known.recording is None else known.recording.play(update)

    def _watch(self, known: Known, update: Update) -> Worked:
        """The work, with a look at what it waits for and where its random numbers come from."""
        state, device, chance = dict(update.players.state), update.players.world.device, host_randomness()
        seeds = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        drawn = {asked: update.chunks[asked[0]].uniform(asked[1]) for asked in known.asked}
        try:
            with self.backend.watched():
                worked = update.run(served(update.chunks, drawn))
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            known.refused = "it waits for the device"
            update.undo(state)
            torch.set_rng_state(seeds[0])
            if seeds[1] is not None:
                torch.cuda.set_rng_state(seeds[1], device)
            return update.run()
        if host_randomness() != chance:
            known.refused = "random numbers are drawn on the CPU"
        return worked

    def _record(self, known: Known, update: Update) -> Recording | None:
        players, config = update.players, update.objective.config
        state, device = players.state, players.world.device
        before = {name: value.clone() for name, value in state.items() if value.device.type == device.type}
        chunks = [held(chunk, torch.clone) for chunk in update.chunks]
        inputs = [each.clone() for each in update.inputs]
        uniforms = {asked: update.chunks[asked[0]].uniform(asked[1]).clone() for asked in sorted(known.asked)}
        paths = [path for path in schedules_of(config) if path not in OUTSIDE]
        buffers = {path: torch.ones((), dtype=players.dtype, device=device) for path in paths}
        given = {each.name: getattr(update.objective, each.name) for each in fields(Objective)}
        objective, worked, flat = Buffered(**given, buffers=buffers), list[Worked](), list[Tensor]()

        def once() -> list[Tensor]:
            worked[:] = [update.work(objective, served(chunks, uniforms), *inputs)]
            flat[:] = worked[0].flat()
            gradients = [each.grad for each in update.player.parameters if each.grad is not None]
            return [*gradients, *flat, *players.state.values()]

        players.state = dict(before)
        try:
            with scheduled_augmentation(update, objective):
                replay = self.backend.record(once)
            after = players.state
        except RuntimeError as error:
            known.refused = str(error).splitlines()[0]
            players.state = state
            update.undo(dict(state))
            return None
        finally:
            players.state = state
        gradients = [parameter.grad for parameter in update.player.parameters]
        return Recording(chunks, inputs, uniforms, objective, before, after, gradients, worked[0], flat, replay)


@contextmanager
def scheduled_augmentation(update: Update, objective: Buffered) -> Iterator[None]:
    """The critic's augmentation as a buffer, where it is scheduled."""
    critic = update.players.judges
    before = critic.augmentation_scale
    critic.augmentation_scale = objective.weight(AUGMENTATION, 1.0, update.progress)
    try:
        yield
    finally:
        critic.augmentation_scale = before


def held(chunk: Chunk, keep: Callable[[Tensor], Tensor]) -> Chunk:
    """The micro-batch with ``keep`` of each of its tensors, in one order."""
    real = Batch(
        keep(chunk.real.values),
        None if chunk.real.mask is None else keep(chunk.real.mask),
        {name: keep(value) for name, value in chunk.real.condition.items()},
    )
    others = None if chunk.mismatched is None else {name: keep(value) for name, value in chunk.mismatched.items()}
    return replace(chunk, real=real, noise=keep(chunk.noise), mixing=keep(chunk.mixing), mismatched=others)


def tensors_of(chunks: list[Chunk]) -> list[Tensor]:
    """All tensors of micro-batches, in the order of ``held``."""
    found = list[Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    for chunk in chunks:
        held(chunk, keep)
    return found


def spied(chunks: list[Chunk], asked: set[Asked]) -> list[Chunk]:
    """The micro-batches; what their ``uniform`` is asked for is noted."""

    def noted(index: int, chunk: Chunk) -> Callable[[tuple[int, ...]], Tensor]:
        def uniform(shape: tuple[int, ...]) -> Tensor:
            asked.add((index, tuple(shape)))
            return chunk.uniform(shape)

        return uniform

    return [replace(chunk, uniform=noted(index, chunk)) for index, chunk in enumerate(chunks)]


def served(chunks: list[Chunk], drawn: dict[Asked, Tensor]) -> list[Chunk]:
    """The micro-batches; what their ``uniform`` is asked for was drawn beforehand."""

    def kept(index: int) -> Callable[[tuple[int, ...]], Tensor]:
        return lambda shape: drawn[index, tuple(shape)]

    return [replace(chunk, uniform=kept(index)) for index, chunk in enumerate(chunks)]


def host_randomness() -> tuple[Any, ...]:
    """The states of the CPU's random number generators, to compare."""
    own: Any = np.random.get_state(legacy=True)
    return (torch.get_rng_state().numpy().tobytes(), random.getstate(), own[1].tobytes(), own[2])


def make_recorder(players: Players, config: RunConfig) -> Recorder | None:
    """A recorder where recordings can be had: on one GPU, with networks that say nothing against it."""
    world, able = players.world, players.generates.recordable and players.judges.recordable
    wanted = config.train.cuda_graphs and world.device.type == "cuda" and world.size == 1
    return Recorder(CudaGraphs()) if wanted and able else None


def recorded(update: Update) -> Worked:
    """The update's work, recorded where the players have a recorder."""
    recorder = update.players.recorder
    return update.run() if recorder is None else recorder.run(update)
