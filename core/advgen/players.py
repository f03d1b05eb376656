"""What one step works on: micro-batches, the objective, and everything that learns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advgen.config.model import RunConfig
from advgen.contracts import Batch, Discriminator, Generator, Modality
from advgen.engine import Player
from advgen.losses import Loss
from advgen.penalties import Penalty
from advgen.world import World

if TYPE_CHECKING:
    from advgen.recording import Recorder


@dataclass(frozen=True)
class Chunk:
    """One micro-batch, cut from the global batch.

    Args:
        real: prepared real samples.
        noise: for as many fakes.
        mixing: uniform (B,), for penalties that interpolate.
        uniform: a shape (...) to uniform (B, ...), for penalties that move every value.
        start: index of its first sample in the global batch.
        mismatched: the conditions of other samples of the global batch, where D learns to tell them; else None.
        more_noise: a turn, samples (K,) of the micro-batch in ascending order and a count to noise (K, count, ...), for so many
            further draws of each of them at that turn, such as rollouts from a place.
    """

    real: Batch
    noise: Tensor
    mixing: Tensor
    uniform: Callable[[tuple[int, ...]], Tensor]
    start: int = 0
    mismatched: Mapping[str, Tensor] | None = None
    more_noise: Callable[[int, Tensor, int], Tensor] | None = None


@dataclass
class Turn:
    """What the micro-batches of one generator update share.

    Args:
        positions: valid positions of a mean real sample of the global batch.
        gains: per micro-batch, rewards (B, L) and their mask, for the baseline.
    """

    positions: Tensor
    gains: list[tuple[Tensor, Tensor]] = field(default_factory=list)


Draw = Callable[[str, int], list[Chunk]]
"""stream, update index -> this rank's micro-batches."""


@dataclass
class Objective:
    """What the players play for."""

    config: RunConfig
    loss: Loss
    penalties: Mapping[str, Penalty]
    scale: Callable[[str, float], float]
    """path, progress -> multiplier of the scalar at that path of the configuration."""

    def weight(self, path: str, base: float, progress: float) -> float:
        """A scheduled scalar."""
        return base * self.scale(path, progress)

    @property
    def auxiliary(self) -> dict[str, float]:
        """G's further costs, each with its weight; 1 for those that have a share instead."""
        balanced = dict.fromkeys(self.config.balance, 1.0)
        return {name: weight for name, weight in (self.config.auxiliary | balanced).items() if name != "loss"}

    def shares(self, progress: float) -> dict[str, float]:
        """The balanced costs of G, each with its share."""
        return {name: self.weight(f"balance.{name}", share, progress) for name, share in self.config.balance.items()}


@dataclass
class Players:
    """Everything that learns, and the state that belongs to neither network."""

    generator: Player
    discriminator: Player
    average: Generator | None
    modality: Modality[Any]
    world: World
    dtype: torch.dtype = torch.float32
    autocast: bool = False
    judges_apart: bool = False
    """Real and generated samples go through D apart: as the configuration says, or as D mixes a batch's samples (BatchNorm)."""
    state: dict[str, Tensor] = field(default_factory=dict)
    reference: Generator | None = None
    """G as the adversarial phase found it, where the estimator holds G near it."""
    recorder: Recorder | None = None
    """What replays updates instead of asking Python again."""

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 autocast where it is on."""
        return torch.autocast(self.world.device.type, torch.bfloat16) if self.autocast else contextlib.nullcontext()

    @property
    def generates(self) -> Generator:
        """The generator's network."""
        network = self.generator.network
        assert isinstance(network, Generator)  # make_players checked it
        return network

    @property
    def judges(self) -> Discriminator:
        """The discriminator's network."""
        network = self.discriminator.network
        assert isinstance(network, Discriminator)  # make_players checked it
        return network
