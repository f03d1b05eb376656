"""An update up to its gradients, as something that can be run, recorded or taken back."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advgen.engine import Player, Terms
from advgen.players import Chunk, Objective, Players
from advgen.recording.buffers import tensors_of

Key = tuple[Any, ...]


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
        kinds = ((tuple(each.shape), each.dtype) for each in self.tensors)
        return (*self.key, *kinds, *(chunk.start for chunk in self.chunks))

    @cached_property
    def tensors(self) -> list[Tensor]:
        """All that it is given: those of micro-batches, then inputs."""
        return [*tensors_of(self.chunks), *self.inputs]

    def remembered(self, names: set[str]) -> dict[str, Tensor]:
        """Of the players' state what has these names."""
        return {name: self.players.state[name] for name in sorted(names) if name in self.players.state}


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


def host_randomness() -> tuple[Any, ...]:
    """The states of the CPU's random number generators, to compare."""
    own: Any = np.random.get_state(legacy=True)
    return (torch.get_rng_state().numpy().tobytes(), random.getstate(), own[1].tobytes(), own[2])
