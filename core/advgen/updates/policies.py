"""Costs of a generator whose draws are scored again: clipped updates, divergence, exact expectation, density ratios.

Legend: B batch, L tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advgen.errors import ContractError
from advgen.estimators import valid_places, zero_outside


def chosen(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability (B, L) of each token (B, L), of all (B, L, V)."""
    return log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


def entropies(log_probs: Tensor) -> Tensor:
    """Entropy in nats of each draw, (..., V) -> (...)."""
    return -(log_probs.exp() * log_probs).sum(-1)


def clipped_cost(*, log_prob: Tensor, drawn_at: Tensor, advantage: Tensor, mask: Tensor | None, clip: float) -> Tensor:
    """A cost whose gradient stops where it has moved a token's probability by more than ``clip`` in the advantage's direction.

    Args:
        log_prob: (B, L) log-probability of each token now, with its graph.
        drawn_at: (B, L) the same when the token was drawn.
        advantage: (B, L) what the token is credited with.
        mask: (B, L) bool, or None where every position counts.
        clip: share of the probability, above 0; infinite: no clipping.

    Returns:
        (B,), summed over positions: minus the smaller of ratio * advantage and clipped ratio * advantage. Its gradient where
        nothing has moved yet is that of the score function.

    Source: Schulman et al. 2017, equation 7, https://arxiv.org/abs/1707.06347
    """
    valid = valid_places(mask, log_prob)
    ratio = zero_outside(log_prob - drawn_at.detach(), valid).exp()
    credit = zero_outside(advantage.detach(), valid)
    gained = torch.minimum(ratio * credit, ratio.clamp(1 - clip, 1 + clip) * credit)
    return -zero_outside(gained, valid).sum(1)


def divergence(log_probs: Tensor, reference: Tensor, mask: Tensor | None) -> Tensor:
    """Kullback-Leibler divergence in nats of each place's next-token distribution from a reference, summed over places, (B,).

    Args:
        log_probs: (B, L, V) with their graph.
        reference: (B, L, V).
        mask: (B, L) bool, or None where every position counts.

    Returns:
        (B,), at least 0; 0 where both agree.
    """
    each = (log_probs.exp() * (log_probs - reference.detach())).sum(-1)
    return zero_outside(each, valid_places(mask, each)).sum(1)


def expected_cost(
    *, log_probs: Tensor, cost: Tensor, mask: Tensor | None, positions: Tensor | float, entropy_weight: float
) -> Tensor:
    """Mean cost of the next token at each place of drawn samples, over all tokens that might stand there instead of the drawn.

    Exact where the score function needs many draws; that a token also changes what comes after it is not counted.
    With the cost -log M of a model M of the mixture of data and samples, and an entropy weight of 1, each place is the
    divergence of G from M, whose minimum is half the way of both players to the Jensen-Shannon divergence.

    Args:
        log_probs: (B, L, V) log-probabilities of all tokens at each place, with their graph.
        cost: (B, L, V) what each would cost; its graph is cut.
        mask: (B, L) bool, or None where every position counts.
        positions: valid positions of a mean sample.
        entropy_weight: reward per nat of mean entropy.

    Returns:
        (B,).

    Source: Lu et al. 2018 (CoT), equation 10, https://arxiv.org/abs/1804.03782
    """
    if cost.shape != log_probs.shape:
        raise ContractError(
            f"costs of shape {tuple(cost.shape)} for log-probabilities {tuple(log_probs.shape)}; expected the same"
        )
    each = (log_probs.exp() * cost.detach()).sum(-1) - entropy_weight * entropies(log_probs)
    return zero_outside(each, valid_places(mask, each)).sum(1) / positions


def carried_on(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores (B, L) with those behind a sample's last valid place equal to that one's: what has ended stays what it is."""
    if mask is None:
        return scores
    places = torch.arange(scores.shape[1], device=scores.device)
    last = (mask * places).amax(1, keepdim=True)
    return torch.where(places > last, scores.gather(1, last), scores)


def importance_weights(own: Tensor, every: Tensor) -> Tensor:
    """Self-normalised density ratios less their mean of 1, from log-ratios.

    A softmax over the batch, so no ratio is ever formed that could overflow.

    Args:
        own: (B, *positions) log (real / generated) of some samples; of a position: of all up to it.
        every: (N, *positions) the same of the whole global batch.

    Returns:
        (B, *positions): N * exp(own) / sum(exp(every)) - 1, in (-1, N - 1]; 0 where all are equal.

    Source: Che et al. 2017 (MaliGAN), https://arxiv.org/abs/1702.07983
    """
    top = every.amax(0)  # taken off first, or large logits would lose their digits
    return (own - top - (every - top).logsumexp(0)).exp() * len(every) - 1
