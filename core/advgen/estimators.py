"""How the generator's gradient is obtained from an elementwise cost, and the pieces of each way.

Legend: B batch, L tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.contracts import Mode
from advgen.errors import ConfigError, ContractError, nearest
from advgen.reduction import masked_mean


@dataclass(frozen=True)
class Estimator:
    """One way to the generator's gradient.

    Args:
        mode: what the generator is asked to return.
        source: paper, year, link.
        scores_again: samples are drawn without a graph, which comes from ``Generator.score`` of them.
    """

    name: str
    summary: str
    mode: Mode
    source: str
    scores_again: bool = False


_TABLE = (
    Estimator(
        "pathwise",
        "Through the sample itself; for continuous values.",
        "values",
        "Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661",
    ),
    Estimator(
        "straight_through",
        "Discrete tokens forward, their softmax backward; biased, low variance.",
        "relaxed",
        "Jang et al. 2017, https://arxiv.org/abs/1611.01144",
    ),
    Estimator(
        "score_function",
        "Minus the cost as reward for each drawn token; unbiased, high variance.",
        "log_prob",
        "Williams 1992, https://doi.org/10.1007/BF00992696; d'Autume et al. 2019, https://arxiv.org/abs/1905.09922",
    ),
    Estimator(
        "ppo",
        "The score function in several clipped updates over the same samples.",
        "values",
        "Schulman et al. 2017, https://arxiv.org/abs/1707.06347; Wu et al. 2021 (TextGAIL), https://arxiv.org/abs/2004.13796",
        scores_again=True,
    ),
    Estimator(
        "expectation",
        "The exact mean cost over the next token at each place of drawn samples; for a D that scores every alternative.",
        "values",
        "Lu et al. 2018 (CoT), https://arxiv.org/abs/1804.03782",
        scores_again=True,
    ),
)

Rewards = Literal["dense", "terminal", "rollout", "importance"]

ESTIMATORS: dict[str, Estimator] = {estimator.name: estimator for estimator in _TABLE}


def get_estimator(name: str) -> Estimator:
    """The estimator of that name.

    Raises:
        ConfigError: with the known names and the nearest.
    """
    if name not in ESTIMATORS:
        raise ConfigError(f"estimator {name!r} is unknown; {nearest(name, ESTIMATORS)}")
    return ESTIMATORS[name]


def valid_places(mask: Tensor | None, like: Tensor) -> Tensor:
    """The mask, or where there is none that every place counts."""
    return torch.ones_like(like, dtype=torch.bool) if mask is None else mask


def zero_outside(values: Tensor, valid: Tensor) -> Tensor:
    """Select instead of multiply: 0 times an infinite log-probability is not a number."""
    return torch.where(valid, values, torch.zeros_like(values))


def returns(rewards: Tensor, mask: Tensor | None, discount: float) -> Tensor:
    """Reward from each position on, later ones discounted.

    Args:
        rewards: (B, L).
        mask: (B, L) bool, or None where every position counts.
        discount: in [0, 1]; 0 keeps each position's own reward.

    Returns:
        (B, L): returns[t] = rewards[t] + discount * returns[t + 1]; 0 where masked.
    """
    valid = valid_places(mask, rewards)
    kept = zero_outside(rewards, valid)
    columns = [kept[:, -1]]
    for position in range(kept.shape[1] - 2, -1, -1):
        columns.append(kept[:, position] + discount * columns[-1])
    return zero_outside(torch.stack(columns[::-1], 1), valid)


def gains(cost: Tensor, valid: Tensor, kind: Rewards) -> Tensor:
    """Minus the cost at each valid position, (B, L): the position's own, or for terminal rewards the whole sequence's."""
    cost = cost.detach()
    if cost.shape != valid.shape and (kind != "terminal" or cost.shape != valid.shape[:1]):
        hint = "; for one score per sample set estimator.rewards to 'terminal'" if kind == "dense" else ""
        raise ContractError(f"{kind} rewards got a cost of shape {tuple(cost.shape)} for tokens {tuple(valid.shape)}{hint}")
    if kind == "terminal":
        whole = cost if cost.dim() == 1 else masked_mean(cost, valid)
        cost = whole.unsqueeze(1).expand(valid.shape)
    return -zero_outside(cost, valid)


def _remaining(valid: Tensor) -> Tensor:
    """Valid positions after each one, (B, L)."""
    return valid.sum(1, keepdim=True) - valid.cumsum(1)


def advantages(
    gained: Tensor, valid: Tensor, baseline: Tensor, *, positions: Tensor | float, discount: float, rewards: Rewards
) -> Tensor:
    """What each token is credited with beyond the average, (B, L); arguments as for ``score_function_cost``.

    A rollout's value is of the whole sample already, so it is neither added up nor discounted; importance weights have
    mean 1 and that taken off, so they need no baseline.
    """
    if rewards == "importance":
        return gained / positions
    centred = torch.where(valid & ~baseline.isnan(), gained - baseline.detach(), torch.zeros_like(gained))
    if rewards == "dense":
        return returns(centred, valid, discount) / positions
    return centred if rewards == "rollout" else centred * discount ** _remaining(valid)


def score_function_cost(
    *,
    log_prob: Tensor,
    entropy: Tensor,
    cost: Tensor,
    mask: Tensor | None,
    baseline: Tensor,
    positions: Tensor | float,
    discount: float,
    rewards: Rewards,
    entropy_weight: float,
) -> tuple[Tensor, Tensor]:
    """A cost whose gradient is the score-function estimate of the gradient of the mean cost over positions.

    Dense rewards credit each token with the rewards from its own position on, which is right where the discriminator
    judges a position by what came before it; terminal rewards suit any discriminator. A discount below 1 trades
    bias for variance.

    Rewards are compared with the baseline of their position *before* they are added up, so what comes after the end counts
    as average: else a cost that is never negative would pay for an early end. For the same reason no sample is divided by
    its own length: short samples would count more.

    Args:
        log_prob: (B, L) log-probability of each drawn token, with its graph.
        entropy: (B, L) entropy in nats of each draw, with its graph.
        cost: (B, L) generator's cost per position, or, for terminal rewards, (B,) per sample; its graph is cut.
        mask: (B, L) bool, or None where every position counts.
        baseline: (L,) expected reward of a position, NaN where unknown, which counts the reward there as average; of samples
            of one length, any value leaves the expected gradient as it is.
        positions: valid positions of a mean sample, by which sums over positions are divided.
        discount: in [0, 1].
        rewards: ``dense``: each position its own; ``terminal``: the whole cost after the last valid position; ``rollout``: the
            cost of a position is that of the samples that go on from it; ``importance``: it is 1 less a density ratio.
        entropy_weight: reward per nat of mean entropy.

    Returns:
        Surrogate cost (B,), of which only the gradient means anything, and the rewards (B, L) for the baseline, without graph.

    Source: Williams 1992, https://doi.org/10.1007/BF00992696; d'Autume et al. 2019 (ScratchGAN), https://arxiv.org/abs/1905.09922
    """
    valid = valid_places(mask, log_prob)
    gained = gains(cost, valid, rewards)
    advantage = advantages(gained, valid, baseline, positions=positions, discount=discount, rewards=rewards)
    surrogate = -(advantage * zero_outside(log_prob, valid)).sum(1)
    return surrogate - entropy_weight * zero_outside(entropy, valid).sum(1) / positions, gained


def update_baseline(baseline: Tensor, gained: Tensor, mask: Tensor | None, decay: float, steps: int | Tensor) -> Tensor:
    """Moving average of the reward at each position; over several ranks, give it the rewards of all.

    Args:
        baseline: (L,) average so far.
        gained: (B, L).
        mask: (B, L) bool, or None where every position counts.
        decay: share of the old average once warm, in [0, 1).
        steps: updates so far, a number or (L,); the first updates are a plain mean, so that no start value lingers.

    Returns:
        (L,) new average; a position without a valid sample keeps its own.
    """
    valid = valid_places(mask, gained)
    count = valid.sum(0)
    mean = zero_outside(gained, valid).sum(0) / count.clamp(min=1)
    done = torch.as_tensor(steps, dtype=baseline.dtype, device=baseline.device)
    share = (done / (done + 1)).clamp(max=decay)
    return torch.where(count > 0, share * baseline + (1 - share) * mean, baseline)


def straight_through(logits: Tensor, one_hot_index: Tensor, temperature: float) -> Tensor:
    """One-hot tokens forward, the softmax's gradient backward.

    Args:
        logits: (B, L, V), with Gumbel noise where the tokens were drawn with it.
        one_hot_index: (B, L) int64, the tokens drawn.
        temperature: of the softmax, above 0; a low one is nearer to discrete, with a larger variance.

    Returns:
        (B, L, V), exactly one-hot.

    Source: Bengio et al. 2013, https://arxiv.org/abs/1308.3432; Jang et al. 2017, https://arxiv.org/abs/1611.01144
    """
    soft = torch.softmax(logits / temperature, -1)
    hard = F.one_hot(one_hot_index, logits.shape[-1]).to(soft.dtype)
    # The difference is exactly 0; added first to hard it would round.
    return hard + (soft - soft.detach())


def gumbel(noise: Tensor) -> Tensor:
    """Uniform noise in [0, 1] to Gumbel noise: logits plus it have their argmax at a draw from softmax(logits).

    Args:
        noise: any shape, floating; 0 and 1 are moved inside the open interval.

    Returns:
        Same shape, finite, mean 0.577.

    Source: Gumbel 1954; Maddison et al. 2014, https://arxiv.org/abs/1411.0030
    """
    limits = torch.finfo(noise.dtype)
    inside = noise.clamp(min=limits.tiny, max=1 - limits.eps)
    return -torch.log(-torch.log(inside))
