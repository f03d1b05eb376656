"""Adversarial losses as pure functions of logits, one table, and how a verdict becomes one cost per sample.

Legend: B batch, positions: whatever a discriminator scores one by one (patches, frames, tokens). Costs are in nats
where a loss is a logarithm of a probability. Every cost is to be minimised by the player it is named for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.contracts import Head, Verdict
from advgen.errors import ConfigError, ContractError, PluginError, nearest

Side = Callable[[Tensor], Tensor]
Means = Sequence[tuple[Tensor, Tensor]]


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


def _full(scores: Tensor) -> Tensor:
    """Scores in at least float32, because bfloat16 sums lose digits."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _clean(head: Head) -> Tensor:
    """A head's scores in full precision, 0 where masked, so that what padding holds cannot reach any gradient."""
    scores = _full(head.scores)
    return scores if head.mask is None else torch.where(head.mask, scores, torch.zeros_like(scores))


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the valid positions of each sample.

    Args:
        values: (B, *positions).
        mask: (B, *positions) bool, or None where every position counts.

    Returns:
        (B,); 0 for a sample without valid positions.
    """
    if mask is not None and mask.shape != values.shape:
        raise ContractError(f"mask of shape {tuple(mask.shape)} for values of shape {tuple(values.shape)}; expected the same")
    values = _full(values).reshape(len(values), -1)
    if mask is None:
        return values.mean(1)
    valid = mask.reshape(len(mask), -1)
    return torch.where(valid, values, torch.zeros_like(values)).sum(1) / valid.sum(1).clamp(min=1)


def _total(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(0)


def reduce_verdict(verdict: Verdict) -> Tensor:
    """One score per sample, (B,): the weighted sum over heads of the mean over valid positions."""
    return _total([head.weight * masked_mean(head.scores, head.mask) for head in verdict.heads])


def head_means(verdict: Verdict) -> list[tuple[Tensor, Tensor]]:
    """Per head (sum, count) of the valid scores, both scalar, for a mean over all ranks and accumulated batches.

    Sum them over ranks with an all-reduce that autograd knows (its backward sums gradients over ranks), then divide:
    a coupled loss has its gradient through the mean too, and a plain all-reduce would drop it silently.
    """
    return [(_clean(head).sum(), _count(head)) for head in verdict.heads]


def _count(head: Head) -> Tensor:
    if head.mask is not None:
        return head.mask.sum()
    return torch.full((), head.scores.numel(), device=head.scores.device)


def _local_means(real: Verdict, fake: Verdict) -> list[tuple[Tensor, Tensor]]:
    pairs = zip(head_means(real), head_means(fake), strict=True)
    return [(r_sum / r_count.clamp(min=1), f_sum / f_count.clamp(min=1)) for (r_sum, r_count), (f_sum, f_count) in pairs]


def _check_match(loss: Loss, real: Verdict, fake: Verdict) -> None:
    if len(real.heads) != len(fake.heads):
        raise ContractError(f"the discriminator gave {len(real.heads)} heads for real and {len(fake.heads)} for fake samples")
    for index, (one, other) in enumerate(zip(real.heads, fake.heads, strict=True)):
        shapes = tuple(one.scores.shape), tuple(other.scores.shape)
        if shapes[0] != shapes[1]:
            raise ContractError(
                f"loss {loss.name!r}: head {index} scored real samples {shapes[0]} and fake samples {shapes[1]}; "
                "expected the same (B, *positions): pad to one length and use masks"
            )


def _filled(head: Head) -> Tensor:
    """Scores with each sample's masked positions at the mean of its valid ones."""
    scores = _clean(head)
    if head.mask is None:
        return scores
    mean = masked_mean(scores, head.mask).reshape(-1, *[1] * (scores.dim() - 1))
    return torch.where(head.mask, scores, mean)


def _either(real: Tensor | None, fake: Tensor | None) -> Tensor | None:
    return None if real is None or fake is None else real | fake


def _paired(cost: Cost, real: Head, fake: Head) -> Tensor:
    """A missing position meets its partner with its own sample's mean; a position missing on both sides does not count."""
    return masked_mean(cost(real=_filled(real), fake=_filled(fake)), _either(real.mask, fake.mask))


def _sided(sides: tuple[Side, Side], real: Head, fake: Head, means: tuple[Tensor, Tensor] | None) -> Tensor:
    """Each side's cost over its own valid positions; of logits less the opponent's mean where means are given."""
    real_logits, fake_logits = _clean(real), _clean(fake)
    if means is not None:
        real_logits, fake_logits = real_logits - means[1], fake_logits - means[0]
    return masked_mean(sides[0](real_logits), real.mask) + masked_mean(sides[1](fake_logits), fake.mask)


def _over_heads(
    loss: Loss,
    real: Verdict,
    fake: Verdict,
    means: Means | None,
    cost: Callable[[Head, Head, tuple[Tensor, Tensor] | None], Tensor],
) -> Tensor:
    """Weighted sum over heads of a per-sample cost, (B,)."""
    _check_match(loss, real, fake)
    if loss.couples_batch and means is None:
        means = _local_means(real, fake)
    given = means if loss.couples_batch and means is not None else [None] * len(fake.heads)
    heads = zip(real.heads, fake.heads, given, strict=True)
    return _total([other.weight * cost(one, other, mean) for one, other, mean in heads])


def discriminator_cost(loss: Loss, real: Verdict, fake: Verdict, means: Means | None = None) -> Tensor:
    """What the discriminator pays for each sample.

    Args:
        real: verdict on real samples.
        fake: verdict on generated samples; for a loss that pairs, fake[i] is paired with real[i].
        means: per head (real mean, fake mean), global and with their graph; only coupled losses look at them, and
            take the means of these verdicts if left out.

    Returns:
        (B,) weighted sum over heads of the mean over valid positions.

    Raises:
        ContractError: where heads or shapes of the two verdicts differ.
    """

    def cost(one: Head, other: Head, mean: tuple[Tensor, Tensor] | None) -> Tensor:
        if loss.sides is None:
            return _paired(loss.discriminator, one, other)
        return _sided(loss.sides, one, other, mean)

    return _over_heads(loss, real, fake, means, cost)


def generator_cost(loss: Loss, real: Verdict, fake: Verdict, means: Means | None = None) -> Tensor:
    """What the generator pays for each sample; arguments, result and refusals as for ``discriminator_cost``."""

    def cost(one: Head, other: Head, mean: tuple[Tensor, Tensor] | None) -> Tensor:
        if loss.pairs:
            return _paired(loss.generator, one, other)
        if loss.generator_sides is not None:
            return _sided(loss.generator_sides, one, other, mean)
        logits = _clean(other)
        return masked_mean(loss.generator(real=logits, fake=logits), other.mask)

    return _over_heads(loss, real, fake, means, cost)


def _slope(cost: Side, real: Head, fake_mean: Tensor) -> Tensor:
    """How the mean cost of the real side changes with the mean fake score, scalar."""
    with torch.enable_grad():
        mean = fake_mean.detach().requires_grad_()
        total = masked_mean(cost(_clean(real).detach() - mean), real.mask).mean()
        (slope,) = torch.autograd.grad(total, mean)
    return slope


def _coupled_cost(loss: Loss, real: Head, fake: Head, means: tuple[Tensor, Tensor]) -> Tensor:
    """The fake side's cost, plus each score's first-order share in the real side's cost through the mean."""
    if loss.generator_sides is None:
        raise PluginError(f"loss {loss.name!r} couples the batch without generator_sides")
    real_cost, fake_cost = loss.generator_sides
    logits = _clean(fake)
    return fake_cost(logits - means[0]) + _slope(real_cost, real, means[1]) * (logits - means[1])


def generator_cost_per_position(
    loss: Loss, real: Verdict, fake: Verdict, means: Means | None = None
) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """What the generator pays for each position of its samples, for the score-function estimator.

    Args:
        real: verdict on real samples.
        fake: verdict on generated samples.
        means: as for ``discriminator_cost``.

    Returns:
        Per head: cost (B, *positions), not weighted, and the fake samples' own mask, because a position without a
        token has no log-probability to reward.
    """
    _check_match(loss, real, fake)
    means = _local_means(real, fake) if means is None and loss.couples_batch else means
    costs = []
    for index, (one, other) in enumerate(zip(real.heads, fake.heads, strict=True)):
        if loss.couples_batch and means is not None:
            cost = _coupled_cost(loss, one, other, means[index])
        else:
            cost = loss.generator(real=_filled(one), fake=_filled(other))
        costs.append((cost, other.mask))
    return tuple(costs)
