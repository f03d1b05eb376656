"""The table of adversarial losses. Their formulas: ``costs``; how verdicts become costs: ``reduction``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen import costs
from advgen.errors import ConfigError, PluginError, nearest

Side = Callable[[Tensor], Tensor]


class Cost(Protocol):
    """Elementwise cost: logits (B, *positions) of both sides -> the same shape."""

    def __call__(self, *, real: Tensor, fake: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Loss:
    """One adversarial loss and what is known of it.

    Args:
        discriminator: elementwise cost of the discriminator.
        generator: elementwise cost of the generator.
        pairs: fake[i] is compared with real[i], position by position; such a loss has no sides.
        couples_batch: each logit is compared with the opponent's mean over batch and positions. The sides then take
            centred logits (own logit minus that mean), and the mean must be global over ranks and accumulation.
        tie_discriminator: the discriminator's cost where all logits are 0.
        sides: (real cost, fake cost) of one argument each, whose sum is the discriminator's cost.
        generator_sides: the same for the generator; only for ``couples_batch``.
        source: paper, year, link.
        density_ratio: the best discriminator's logit is log (density of real / density of generated samples).
        positions_alike: scores are log-likelihoods, which add up over a sample: every valid position counts alike, where
            other losses take the mean of each sample's positions. Only for losses with sides that do not couple the batch.
    """

    name: str
    summary: str
    discriminator: Cost
    generator: Cost
    pairs: bool
    couples_batch: bool
    tie_discriminator: float
    source: str
    sides: tuple[Side, Side] | None = None
    generator_sides: tuple[Side, Side] | None = None
    density_ratio: bool = False
    positions_alike: bool = False

    def __post_init__(self) -> None:
        if self.pairs and (self.couples_batch or self.sides):
            raise PluginError(f"loss {self.name!r} compares pairs, so it can neither couple the batch nor have sides")
        if not self.pairs and self.sides is None:
            raise PluginError(f"loss {self.name!r} has no sides; expected (real_cost, fake_cost), or pairs=True")
        if self.couples_batch and self.generator_sides is None:
            raise PluginError(f"loss {self.name!r} couples the batch without generator_sides; expected (real_cost, fake_cost)")
        if self.positions_alike and (self.pairs or self.couples_batch):
            raise PluginError(f"loss {self.name!r} compares scores, so its positions are no likelihoods to add up")


_TABLE = (
    Loss(
        name="minimax",
        summary="The zero-sum game of the first GAN; the generator's gradient saturates.",
        discriminator=costs.logistic_discriminator,
        generator=costs.minimax_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=2 * math.log(2),
        source="Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661",
        sides=(costs.not_real, F.softplus),
        density_ratio=True,
    ),
    Loss(
        name="nonsaturating",
        summary="The textbook GAN: the generator maximises log D(fake).",
        discriminator=costs.logistic_discriminator,
        generator=costs.nonsaturating_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=2 * math.log(2),
        source="Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661",
        sides=(costs.not_real, F.softplus),
        density_ratio=True,
    ),
    Loss(
        name="least_squares",
        summary="Squared distance of scores from 1 (real) and 0 (fake).",
        discriminator=costs.least_squares_discriminator,
        generator=costs.least_squares_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=0.5,
        source="Mao et al. 2017, https://arxiv.org/abs/1611.04076",
        sides=(costs.from_one, costs.from_zero),
    ),
    Loss(
        name="hinge",
        summary="Scores count up to a margin of 1; the generator maximises the score.",
        discriminator=costs.hinge_discriminator,
        generator=costs.negative_score_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=2.0,
        source="Lim and Ye 2017, https://arxiv.org/abs/1705.02894",
        sides=(costs.below_one, costs.above_minus_one),
    ),
    Loss(
        name="wasserstein",
        summary="Difference of mean scores; use it with the penalty wgan_gp.",
        discriminator=costs.wasserstein_discriminator,
        generator=costs.negative_score_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=0.0,
        source="Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875",
        sides=(torch.neg, torch.positive),
    ),
    Loss(
        name="relativistic",
        summary="Each fake against the real sample it is paired with; use it with the penalties r1 and r2.",
        discriminator=costs.relativistic_discriminator,
        generator=costs.relativistic_generator,
        pairs=True,
        couples_batch=False,
        tie_discriminator=math.log(2),
        source="Huang et al. 2024, https://arxiv.org/abs/2501.05441",
    ),
    Loss(
        name="relativistic_average",
        summary="Each score against the opponent's average, logistic.",
        discriminator=costs.relativistic_average_discriminator,
        generator=costs.relativistic_average_generator,
        pairs=False,
        couples_batch=True,
        tie_discriminator=2 * math.log(2),
        source="Jolicoeur-Martineau 2018, https://arxiv.org/abs/1807.00734",
        sides=(costs.not_real, F.softplus),
        generator_sides=(F.softplus, costs.not_real),
    ),
    Loss(
        name="relativistic_hinge",
        summary="Each score against the opponent's average, hinge.",
        discriminator=costs.relativistic_hinge_discriminator,
        generator=costs.relativistic_hinge_generator,
        pairs=False,
        couples_batch=True,
        tie_discriminator=2.0,
        source="Jolicoeur-Martineau 2018, https://arxiv.org/abs/1807.00734",
        sides=(costs.below_one, costs.above_minus_one),
        generator_sides=(costs.above_minus_one, costs.below_one),
    ),
)

LOSSES: dict[str, Loss] = {loss.name: loss for loss in _TABLE}


def get_loss(name: str, table: Mapping[str, Loss] = LOSSES) -> Loss:
    """Return the loss of that name, from the core or from a ``table`` that includes a plugin's own.

    Raises:
        ConfigError: with the known names and the nearest.
    """
    if name not in table:
        raise ConfigError(f"loss {name!r} is unknown; {nearest(name, table)}")
    return table[name]
