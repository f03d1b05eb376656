"""How a discriminator's verdicts become one cost per sample, once and for all losses and penalties.

Mean over a head's valid positions (sum over them, for a loss of likelihoods), weighted sum over heads; the caller takes the
mean over the batch.

Legend: B batch, positions: whatever a discriminator scores one by one (patches, frames, tokens).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from advgen.contracts import Head, Verdict
from advgen.errors import ContractError, PluginError
from advgen.losses import Cost, Loss, Side

Means = Sequence[tuple[Tensor, Tensor]]
"""Per head (mean of real scores, mean of fake scores), for losses that couple the batch."""
Average = Callable[[Tensor, Tensor | None], Tensor]
"""Costs (B, *positions) and their mask -> one cost a sample, (B,)."""


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
    values = _full(values)
    if mask is None and values.dim() == 1:
        return values
    values = values.reshape(len(values), -1)
    if mask is None:
        return values.mean(1)
    valid = mask.reshape(len(mask), -1)
    return torch.where(valid, values, torch.zeros_like(values)).sum(1) / valid.sum(1).clamp(min=1)


def _summed(values: Tensor, mask: Tensor | None, positions: Tensor) -> Tensor:
    """Sum over each sample's valid positions by their mean number, (B,), so that a long sample has as much more to say."""
    values = _full(values)
    kept = values if mask is None else torch.where(mask, values, torch.zeros_like(values))
    return kept.reshape(len(kept), -1).sum(1) / positions


def _total(heads: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Weighted sum; the one head that most discriminators have is not multiplied by 1 and added to nothing."""
    if len(heads) == 1 and heads[0][0] == 1:
        return heads[0][1]
    return torch.stack([weight * part for weight, part in heads]).sum(0)


def reduce_verdict(verdict: Verdict) -> Tensor:
    """One score per sample, (B,): the weighted sum over heads of the mean over valid positions."""
    return _total([(head.weight, masked_mean(head.scores, head.mask)) for head in verdict.heads])


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


def average_of(loss: Loss, real: Head, positions: Tensor | None) -> Average:
    """How a head's costs become one a sample. Both sides are divided by one number, else the side of shorter samples would
    weigh more and likelihood would not find the even mixture of both."""
    if not loss.positions_alike or real.scores.dim() == 1:
        return masked_mean
    number = _count(real).clamp(min=1) / len(real.scores) if positions is None else positions
    return functools.partial(_summed, positions=number)


def _sided(sides: tuple[Side, Side], real: Head, fake: Head, means: tuple[Tensor, Tensor] | None, average: Average) -> Tensor:
    """Each side's cost over its own valid positions; of logits less the opponent's mean where means are given."""
    real_logits, fake_logits = _clean(real), _clean(fake)
    if means is not None:
        real_logits, fake_logits = real_logits - means[1], fake_logits - means[0]
    return average(sides[0](real_logits), real.mask) + average(sides[1](fake_logits), fake.mask)


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
    return _total([(other.weight, cost(one, other, mean)) for one, other, mean in heads])


def discriminator_cost(
    loss: Loss, real: Verdict, fake: Verdict, means: Means | None = None, positions: Tensor | None = None
) -> Tensor:
    """What the discriminator pays for each sample.

    Args:
        real: verdict on real samples.
        fake: verdict on generated samples; for a loss that pairs, fake[i] is paired with real[i].
        means: per head (real mean, fake mean), global and with their graph; only coupled losses look at them, and
            take the means of these verdicts if left out.
        positions: valid positions of a mean real sample of the global batch, for a loss with ``positions_alike``; those of
            ``real`` if left out.

    Returns:
        (B,) weighted sum over heads of the mean over valid positions, or of their sum by ``positions``.

    Raises:
        ContractError: where heads or shapes of the two verdicts differ.
    """

    def cost(one: Head, other: Head, mean: tuple[Tensor, Tensor] | None) -> Tensor:
        if loss.sides is None:
            return _paired(loss.discriminator, one, other)
        return _sided(loss.sides, one, other, mean, average_of(loss, one, positions))

    return _over_heads(loss, real, fake, means, cost)


def generator_cost(
    loss: Loss, real: Verdict, fake: Verdict, means: Means | None = None, positions: Tensor | None = None
) -> Tensor:
    """What the generator pays for each sample; arguments, result and refusals as for ``discriminator_cost``."""

    def cost(one: Head, other: Head, mean: tuple[Tensor, Tensor] | None) -> Tensor:
        if loss.pairs:
            return _paired(loss.generator, one, other)
        if loss.generator_sides is not None:
            return _sided(loss.generator_sides, one, other, mean, masked_mean)
        logits = _clean(other)
        return average_of(loss, one, positions)(loss.generator(real=logits, fake=logits), other.mask)

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
