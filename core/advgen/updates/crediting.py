"""What D's verdict is worth to each token of a drawn sample: its own score, the sample's, that of its completions, a ratio.

Legend: B samples of a micro-batch, L tokens, N completions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advgen import reduction
from advgen.contracts import Sample, Verdict
from advgen.errors import ConfigError, ContractError
from advgen.players import Chunk, Objective, Players
from advgen.reduction import Means
from advgen.updates.judging import judge_sample
from advgen.updates.policies import carried_on, importance_weights
from advgen.updates.shared import draw_temperature, global_means

MoreNoise = Callable[[int, Tensor, int], Tensor]
"""As ``Chunk.more_noise``."""
CACHED_ROWS = 512
"""Completions whose states stay in a CPU's cache: more at once take a quarter longer."""


@dataclass(frozen=True)
class Opinion:
    """D of drawn samples, without graph.

    Args:
        real: its verdict on real samples; that on the generated ones where the loss does not look at them.
        fake: its verdict on the drawn samples.
        means: as ``reduction.generator_cost`` takes them.
        positions: the same.
    """

    real: Verdict
    fake: Verdict
    means: Means | None
    positions: Tensor | None = None


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Without dropout inside the block: a reward should not depend on which units were dropped."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)


@torch.no_grad()
def opinion_of(players: Players, objective: Objective, chunk: Chunk, fake: Sample, positions: Tensor | None = None) -> Opinion:
    """D's verdicts on drawn samples, and on real ones where the loss compares."""
    critic, real, loss = players.judges, chunk.real, objective.loss
    with evaluating(critic):
        on_fake = judge_sample(critic, fake, real.condition)
        on_real = on_fake
        if loss.pairs or loss.couples_batch:
            on_real = judge_sample(critic, real.sample, real.condition)
    return Opinion(on_real, on_fake, global_means(loss, on_real, on_fake, players.world), positions)


@torch.no_grad()
def credited_cost(
    players: Players, objective: Objective, chunk: Chunk, fake: Sample, opinion: Opinion, progress: float
) -> Tensor:
    """The cost (B, L) of each token of ``fake``, by ``estimator.rewards``, or (B,) of each sample; without graph."""
    kind, mask = objective.config.estimator.rewards, drawn_places(fake)
    if kind == "importance":
        return -_importance(players, opinion.fake, mask)
    if kind == "rollout":
        return _rollout_costs(players, objective, chunk, fake, opinion, progress)
    if kind == "terminal" and objective.loss.positions_alike:
        return _whole_costs(objective, opinion, opinion.real, opinion.fake)
    cost = torch.zeros(mask.shape, dtype=players.dtype, device=mask.device)
    costs = reduction.generator_cost_per_position(objective.loss, opinion.real, opinion.fake, opinion.means)
    for head, (each, _) in zip(opinion.fake.heads, costs, strict=True):
        cost = cost + head.weight * (each.unsqueeze(1).expand_as(cost) if each.dim() == 1 else each)
    return cost


def drawn_places(fake: Sample) -> Tensor:
    """(B, L) bool: the tokens that were drawn."""
    return torch.ones_like(fake.values, dtype=torch.bool) if fake.mask is None else fake.mask


def _importance(players: Players, verdict: Verdict, mask: Tensor) -> Tensor:
    """Density ratios less 1, (B, L): of the sample, or where D scores tokens, of the sample up to each; means over heads."""
    total = torch.zeros(mask.shape, dtype=players.dtype, device=mask.device)
    for index, head in enumerate(verdict.heads):
        scores = head.scores.to(torch.promote_types(head.scores.dtype, torch.float32))
        if scores.dim() > 1 and scores.shape != mask.shape:
            raise ContractError(
                f"rewards=importance got scores of shape {tuple(scores.shape)} at head {index}, expected one a sample or one a "
                f"token, {tuple(mask.shape)}"
            )
        scores = scores.unsqueeze(1).expand(mask.shape) if scores.dim() == 1 else carried_on(scores, head.mask)
        total = total + head.weight * importance_weights(scores, players.world.gather(scores))
    return total / sum(head.weight for head in verdict.heads)


def _whole_costs(objective: Objective, opinion: Opinion, real: Verdict, fake: Verdict) -> Tensor:
    """One cost a sample of the verdict ``fake``, (B,)."""
    costs = reduction.generator_cost_per_position(objective.loss, real, fake, opinion.means)
    heads = zip(real.heads, fake.heads, costs, strict=True)
    parts = [
        other.weight * reduction.average_of(objective.loss, one, opinion.positions)(each, mask)
        for one, other, (each, mask) in heads
    ]
    return torch.stack(parts).sum(0)


def _rollout_costs(
    players: Players, objective: Objective, chunk: Chunk, fake: Sample, opinion: Opinion, progress: float
) -> Tensor:
    """Mean cost (B, L) of ``estimator.rollouts`` samples that go on from each token; at its last token the sample's own.

    All prefixes of all samples are completed side by side, the longest last, so the generator writes as often as a sample has
    tokens (as often for each ``rollout_rows`` of them, which bounds the memory). A completion pairs with the real sample that
    its sample does.

    Source: Yu et al. 2017 (SeqGAN), https://arxiv.org/abs/1609.05473
    """
    settings, mask = objective.config.estimator, drawn_places(fake)
    if chunk.more_noise is None:
        raise ConfigError("estimator.rewards=rollout: these micro-batches bring no noise for rollouts")
    place, times = torch.arange(mask.shape[1], device=mask.device), settings.rollouts
    last = (mask * place).amax(1, keepdim=True)
    values = torch.where(place == last, _whole_costs(objective, opinion, opinion.real, opinion.fake).unsqueeze(1), 0.0)
    prefixes = (mask & (place < last)).t().nonzero()
    if not len(prefixes):
        return values
    most = settings.rollout_rows if mask.is_cuda else min(settings.rollout_rows, CACHED_ROWS)
    with evaluating(players.judges):
        pieces = _pieces(chunk.more_noise, prefixes, times, most)
        parts = [_costs_of(players, objective, chunk, fake, opinion, each, progress) for each in pieces]
    position, sample = prefixes.unbind(1)
    values[sample, position] = torch.cat(parts).view(-1, times).mean(1).to(values.dtype)
    return values


@dataclass(frozen=True)
class Rows:
    """Prefixes to complete: the sample (N,) that each begins, the tokens (N,) of it that are kept, noise (N, ...)."""

    sample: Tensor
    kept: Tensor
    noise: Tensor


def _pieces(more_noise: MoreNoise, prefixes: Tensor, times: int, most: int) -> Iterator[Rows]:
    """``times`` completions of each prefix (P, 2), its last position and its sample: at most ``most`` at once, and noise."""
    asked, total = prefixes.cpu(), len(prefixes) * times
    for start in range(0, total, most):
        stop = min(start + most, total)
        first, last = start // times, (stop - 1) // times + 1
        noise = _noise_of(more_noise, asked[first:last], times).flatten(0, 1)[start - first * times : stop - first * times]
        position, sample = prefixes[torch.arange(start, stop, device=prefixes.device) // times].unbind(1)
        yield Rows(sample, position + 1, noise)


def _noise_of(more_noise: MoreNoise, prefixes: Tensor, times: int) -> Tensor:
    """Noise (P, times, ...) of prefixes (P, 2) on the CPU, position after position."""
    turns, counts = prefixes[:, 0].unique_consecutive(return_counts=True)
    each = zip(turns.tolist(), prefixes[:, 1].split(counts.tolist()), strict=True)
    return torch.cat([more_noise(turn, samples, times) for turn, samples in each])


def _costs_of(
    players: Players, objective: Objective, chunk: Chunk, fake: Sample, opinion: Opinion, rows: Rows, progress: float
) -> Tensor:
    """The cost (N,) of each completion."""
    condition = {name: value[rows.sample] for name, value in chunk.real.condition.items()}
    temperature = draw_temperature(players, objective, "values", progress)
    done = players.generates.continue_from(
        fake.values[rows.sample], rows.noise, condition, kept=rows.kept, temperature=temperature
    )
    kept = torch.arange(fake.values.shape[1], device=rows.kept.device) < rows.kept.unsqueeze(1)
    mask = None if fake.mask is None else (fake.mask[rows.sample] & kept) | drawn_places(done)
    verdict = judge_sample(players.judges, Sample(done.values, mask=mask), condition)
    return _whole_costs(objective, opinion, opinion.real.rows(rows.sample), verdict)
