"""Adversarial losses as pure functions of logits, and the table of them. How verdicts become costs: ``reduction``.

Legend: B batch, positions: whatever a discriminator scores one by one (patches, frames, tokens). Costs are in nats
where a loss is a logarithm of a probability. Every cost is to be minimised by the player it is named for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.errors import ConfigError, ContractError, PluginError, nearest

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

    def __post_init__(self) -> None:
        if self.pairs and (self.couples_batch or self.sides):
            raise PluginError(f"loss {self.name!r} compares pairs, so it can neither couple the batch nor have sides")
        if not self.pairs and self.sides is None:
            raise PluginError(f"loss {self.name!r} has no sides; expected (real_cost, fake_cost), or pairs=True")
        if self.couples_batch and self.generator_sides is None:
            raise PluginError(f"loss {self.name!r} couples the batch without generator_sides; expected (real_cost, fake_cost)")


def _same_shape(real: Tensor, fake: Tensor) -> None:
    if real.shape != fake.shape:
        raise ContractError(
            f"real logits of shape {tuple(real.shape)} meet fake logits of shape {tuple(fake.shape)}; "
            "expected the same (B, *positions): the discriminator must score as many positions of both"
        )


def _below_one(logits: Tensor) -> Tensor:
    return F.relu(1 - logits)


def _above_minus_one(logits: Tensor) -> Tensor:
    return F.relu(1 + logits)


def _not_real(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


def _from_one(logits: Tensor) -> Tensor:
    return 0.5 * (logits - 1).square()


def _from_zero(logits: Tensor) -> Tensor:
    return 0.5 * logits.square()


def logistic_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Cross-entropy of telling real from fake: -log D(real) - log(1 - D(fake)), D the sigmoid of the logit.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape.

    Returns:
        Cost per score, same shape, in nats, at least 0; 2 log 2 where both logits are 0.

    Source: Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661
    """
    _same_shape(real, fake)
    return _not_real(real) + F.softplus(fake)


def minimax_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """log(1 - D(fake)): the zero-sum game, whose gradient vanishes where D is sure of a fake.

    Args:
        real: logits of real samples, shape (B, *positions); not used.
        fake: logits of generated samples, same shape.

    Returns:
        Cost per score, same shape, in nats, at most 0; -log 2 at logit 0.

    Source: Goodfellow et al. 2014, equation 1, https://arxiv.org/abs/1406.2661
    """
    _same_shape(real, fake)
    return -F.softplus(fake)


def nonsaturating_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """-log D(fake): keeps a gradient of about 1 where D is sure of a fake.

    Args:
        real: logits of real samples, shape (B, *positions); not used.
        fake: logits of generated samples, same shape.

    Returns:
        Cost per score, same shape, in nats, at least 0; log 2 at logit 0.

    Source: Goodfellow et al. 2014, section 3, https://arxiv.org/abs/1406.2661
    """
    _same_shape(real, fake)
    return _not_real(fake)


def least_squares_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance of real scores from 1 and of fake scores from 0.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, at least 0; 1/2 where both scores are 0.

    Source: Mao et al. 2017 (LSGAN, a=0, b=c=1), https://arxiv.org/abs/1611.04076
    """
    _same_shape(real, fake)
    return _from_one(real) + _from_zero(fake)


def least_squares_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance of fake scores from 1.

    Args:
        real: scores of real samples, shape (B, *positions); not used.
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, at least 0; 1/2 at score 0.

    Source: Mao et al. 2017 (LSGAN, c=1), https://arxiv.org/abs/1611.04076
    """
    _same_shape(real, fake)
    return _from_one(fake)


def hinge_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """How far real scores fall short of 1 and fake scores exceed -1.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, at least 0; 0 beyond the margins, 2 where both scores are 0.

    Source: Lim and Ye 2017 (Geometric GAN), https://arxiv.org/abs/1705.02894
    """
    _same_shape(real, fake)
    return _below_one(real) + _above_minus_one(fake)


def wasserstein_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Fake score minus real score; needs a discriminator held Lipschitz by a penalty.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, unbounded; 0 where the scores are equal.

    Source: Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875
    """
    _same_shape(real, fake)
    return fake - real


def negative_score_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Minus the fake score: the generator of the hinge and the Wasserstein losses.

    Args:
        real: scores of real samples, shape (B, *positions); not used.
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, unbounded; 0 at score 0.

    Source: Lim and Ye 2017, https://arxiv.org/abs/1705.02894; Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875
    """
    _same_shape(real, fake)
    return -fake


def relativistic_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Penalise each fake that outscores the real sample it is paired with.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape; fake[i] is paired with real[i].

    Returns:
        Cost per score, same shape, in nats, at least 0; log 2 where a pair is tied.

    Source: Huang et al. 2024 (R3GAN), https://arxiv.org/abs/2501.05441
    """
    _same_shape(real, fake)
    return F.softplus(fake - real)


def relativistic_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Penalise each fake that is outscored by the real sample it is paired with.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape; fake[i] is paired with real[i].

    Returns:
        Cost per score, same shape, in nats, at least 0; log 2 where a pair is tied.

    Source: Huang et al. 2024 (R3GAN), https://arxiv.org/abs/2501.05441
    """
    _same_shape(real, fake)
    return F.softplus(real - fake)


def _centred(real: Tensor, fake: Tensor, real_mean: Tensor | None, fake_mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each side's logits minus the opponent's mean over batch and positions."""
    _same_shape(real, fake)
    real_mean = real.mean() if real_mean is None else real_mean
    fake_mean = fake.mean() if fake_mean is None else fake_mean
    return real - fake_mean, fake - real_mean


def relativistic_average_discriminator(
    *, real: Tensor, fake: Tensor, real_mean: Tensor | None = None, fake_mean: Tensor | None = None
) -> Tensor:
    """Tell real scores from the average fake and fake scores from the average real.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape.
        real_mean: scalar mean of all real logits; that of ``real`` if left out.
        fake_mean: scalar mean of all fake logits; that of ``fake`` if left out.

    Returns:
        Cost per score, same shape, in nats, at least 0; 2 log 2 where all logits are equal.

    Source: Jolicoeur-Martineau 2018 (RaSGAN), https://arxiv.org/abs/1807.00734
    """
    real, fake = _centred(real, fake, real_mean, fake_mean)
    return _not_real(real) + F.softplus(fake)


def relativistic_average_generator(
    *, real: Tensor, fake: Tensor, real_mean: Tensor | None = None, fake_mean: Tensor | None = None
) -> Tensor:
    """The relativistic average discriminator's cost with real and fake exchanged.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape.
        real_mean: scalar mean of all real logits; that of ``real`` if left out.
        fake_mean: scalar mean of all fake logits; that of ``fake`` if left out.

    Returns:
        Cost per score, same shape, in nats, at least 0; 2 log 2 where all logits are equal.

    Source: Jolicoeur-Martineau 2018 (RaSGAN), https://arxiv.org/abs/1807.00734
    """
    real, fake = _centred(real, fake, real_mean, fake_mean)
    return F.softplus(real) + _not_real(fake)


def relativistic_hinge_discriminator(
    *, real: Tensor, fake: Tensor, real_mean: Tensor | None = None, fake_mean: Tensor | None = None
) -> Tensor:
    """Hinge cost of real scores against the average fake and of fake scores against the average real.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.
        real_mean: scalar mean of all real scores; that of ``real`` if left out.
        fake_mean: scalar mean of all fake scores; that of ``fake`` if left out.

    Returns:
        Cost per score, same shape, at least 0; 2 where all scores are equal.

    Source: Jolicoeur-Martineau 2018 (RaHingeGAN), https://arxiv.org/abs/1807.00734
    """
    real, fake = _centred(real, fake, real_mean, fake_mean)
    return _below_one(real) + _above_minus_one(fake)


def relativistic_hinge_generator(
    *, real: Tensor, fake: Tensor, real_mean: Tensor | None = None, fake_mean: Tensor | None = None
) -> Tensor:
    """The relativistic hinge discriminator's cost with real and fake exchanged.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.
        real_mean: scalar mean of all real scores; that of ``real`` if left out.
        fake_mean: scalar mean of all fake scores; that of ``fake`` if left out.

    Returns:
        Cost per score, same shape, at least 0; 2 where all scores are equal.

    Source: Jolicoeur-Martineau 2018 (RaHingeGAN), https://arxiv.org/abs/1807.00734
    """
    real, fake = _centred(real, fake, real_mean, fake_mean)
    return _above_minus_one(real) + _below_one(fake)


_TABLE = (
    Loss(
        name="minimax",
        summary="The zero-sum game of the first GAN; the generator's gradient saturates.",
        discriminator=logistic_discriminator,
        generator=minimax_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=2 * math.log(2),
        source="Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661",
        sides=(_not_real, F.softplus),
    ),
    Loss(
        name="nonsaturating",
        summary="The textbook GAN: the generator maximises log D(fake).",
        discriminator=logistic_discriminator,
        generator=nonsaturating_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=2 * math.log(2),
        source="Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661",
        sides=(_not_real, F.softplus),
    ),
    Loss(
        name="least_squares",
        summary="Squared distance of scores from 1 (real) and 0 (fake).",
        discriminator=least_squares_discriminator,
        generator=least_squares_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=0.5,
        source="Mao et al. 2017, https://arxiv.org/abs/1611.04076",
        sides=(_from_one, _from_zero),
    ),
    Loss(
        name="hinge",
        summary="Scores count up to a margin of 1; the generator maximises the score.",
        discriminator=hinge_discriminator,
        generator=negative_score_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=2.0,
        source="Lim and Ye 2017, https://arxiv.org/abs/1705.02894",
        sides=(_below_one, _above_minus_one),
    ),
    Loss(
        name="wasserstein",
        summary="Difference of mean scores; use it with the penalty wgan_gp.",
        discriminator=wasserstein_discriminator,
        generator=negative_score_generator,
        pairs=False,
        couples_batch=False,
        tie_discriminator=0.0,
        source="Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875",
        sides=(torch.neg, torch.positive),
    ),
    Loss(
        name="relativistic",
        summary="Each fake against the real sample it is paired with; use it with the penalties r1 and r2.",
        discriminator=relativistic_discriminator,
        generator=relativistic_generator,
        pairs=True,
        couples_batch=False,
        tie_discriminator=math.log(2),
        source="Huang et al. 2024, https://arxiv.org/abs/2501.05441",
    ),
    Loss(
        name="relativistic_average",
        summary="Each score against the opponent's average, logistic.",
        discriminator=relativistic_average_discriminator,
        generator=relativistic_average_generator,
        pairs=False,
        couples_batch=True,
        tie_discriminator=2 * math.log(2),
        source="Jolicoeur-Martineau 2018, https://arxiv.org/abs/1807.00734",
        sides=(_not_real, F.softplus),
        generator_sides=(F.softplus, _not_real),
    ),
    Loss(
        name="relativistic_hinge",
        summary="Each score against the opponent's average, hinge.",
        discriminator=relativistic_hinge_discriminator,
        generator=relativistic_hinge_generator,
        pairs=False,
        couples_batch=True,
        tie_discriminator=2.0,
        source="Jolicoeur-Martineau 2018, https://arxiv.org/abs/1807.00734",
        sides=(_below_one, _above_minus_one),
        generator_sides=(_above_minus_one, _below_one),
    ),
)

LOSSES: dict[str, Loss] = {loss.name: loss for loss in _TABLE}


def get_loss(name: str) -> Loss:
    """The loss of that name.

    Raises:
        ConfigError: with the known names and the nearest.
    """
    if name not in LOSSES:
        raise ConfigError(f"loss {name!r} is unknown; {nearest(name, LOSSES)}")
    return LOSSES[name]
