"""One update of D: its loss on real against generated samples, its penalties, what it learns from other conditions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advgen import reduction
from advgen.contracts import Discriminator, Sample, Verdict
from advgen.controllers import follow_scores, lecam_cost
from advgen.engine import Terms, apply_update
from advgen.losses import LOSSES
from advgen.penalties import Penalty
from advgen.players import Chunk, Objective, Players
from advgen.randomness import seed_networks
from advgen.recording import Update, Worked, recorded
from advgen.updates.judging import Side, judge, judge_apart, judge_both
from advgen.updates.penalising import due_penalties, is_due, one_sided, penalty_costs, penalty_weight
from advgen.updates.shared import add, apply_own, backward, draw_temperature, global_means, mean_positions


def update_discriminator(
    players: Players, objective: Objective, chunks: list[Chunk], update: int, progress: float
) -> dict[str, Tensor]:
    """One update of D; G is untouched."""
    seed_networks(objective.config.train.seed, "discriminator", update, *players.world.own_key)
    player, scale = players.discriminator, objective.scale("discriminator.learning_rate", progress)

    def own_work(objective: Objective, chunks: list[Chunk]) -> Worked:
        own = Terms()
        for chunk in chunks:
            backward(players, player, own, own_penalty_costs(players, objective, chunk, update, progress), len(chunks))
        return Worked(own)

    def work(objective: Objective, chunks: list[Chunk]) -> Worked:
        return _gradients(players, objective, chunks, update, progress)

    due = sorted([*due_penalties(objective, update), *(["lecam"] if is_due(objective, "lecam", update) else [])])
    worked = recorded(Update(("discriminator", *due), players, player, objective, chunks, progress, work))
    costs, logs = worked.terms.costs, apply_update(player, worked.terms, scale, players.world)
    if due := sorted(due_penalties(objective, update, own_step=True)):
        key = ("discriminator's penalties", *due)
        own = recorded(Update(key, players, player, objective, chunks, progress, own_work)).terms
        logs |= apply_own(players, player, own, scale)
        costs = costs | own.costs
    seen = worked.terms.logs | _remember(players, objective, worked.pairs)
    return logs | {f"discriminator/{name}": value for name, value in (costs | seen).items()}


def _gradients(players: Players, objective: Objective, chunks: list[Chunk], update: int, progress: float) -> Worked:
    """Those of all costs but the penalties that take an update of their own, with the scores (B,) of both sides."""
    worked = Worked(Terms())
    positions = mean_positions(players.world, chunks) if objective.loss.positions_alike else None
    for chunk in chunks:
        costs, scores = discriminator_costs(players, objective, chunk, update, progress, positions)
        backward(players, players.discriminator, worked.terms, costs, len(chunks))
        worked.pairs.append((scores["real_score"], scores["fake_score"]))
        for name, value in scores.items():
            add(worked.terms.logs, name, value.mean(), len(chunks))
    return worked


def discriminator_costs(
    players: Players, objective: Objective, chunk: Chunk, update: int, progress: float, positions: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Named scalar costs of D on one micro-batch, and the scores (B,) of both sides; ``positions`` as for ``reduction``."""
    fake, due = _fakes(players, objective, chunk, progress), due_penalties(objective, update)
    whole = {name: each for name, each in due.items() if objective.config.penalties[name].share == 1}
    sides = _judged(players, chunk, fake, whole)
    (on_real, on_fake), seen_real = (side.verdict for side in sides), sides[0].seen
    assert on_real is not None and on_fake is not None
    means = global_means(objective.loss, on_real, on_fake, players.world)
    costs = {"loss": reduction.discriminator_cost(objective.loss, on_real, on_fake, means, positions).mean()}
    scores = {"real_score": reduction.reduce_verdict(on_real), "fake_score": reduction.reduce_verdict(on_fake)}
    if chunk.mismatched is not None:
        costs["mismatch"] = _mismatch_cost(players, objective, chunk, seen_real, on_real, progress)
    if is_due(objective, "lecam", update):
        weight = penalty_weight(objective, "lecam", progress)
        costs["lecam"] = lecam_cost(players.state, scores["real_score"], scores["fake_score"], weight)
    if players.autocast:  # penalties are computed in full precision
        sides = (sides[0].forgotten(), sides[1].forgotten())
    costs |= penalty_costs(players, objective, chunk, sides, due, progress)
    return costs, {name: score.detach() for name, score in scores.items()}


def _judged(players: Players, chunk: Chunk, fake: Sample, whole: Mapping[str, Penalty]) -> tuple[Side, Side]:
    """D's verdicts of both sides, for the loss and for the penalties of the whole batch."""
    critic, real = players.judges, chunk.real
    sides = _sides(critic, real.sample, fake, bool(whole))
    apart = players.judges_apart or one_sided(whole)
    with players.precision():
        return (judge_apart if apart else judge_both)(critic, *sides, real.condition)


def own_penalty_costs(players: Players, objective: Objective, chunk: Chunk, update: int, progress: float) -> dict[str, Tensor]:
    """Named scalar costs of the penalties that take an update of their own, on one micro-batch."""
    real, due = chunk.real, due_penalties(objective, update, own_step=True)
    answer = real.sample
    unused = all(penalty.needs == "real" for penalty in due.values())
    fake = answer if unused else _fakes(players, objective, chunk, progress)
    sides = _sides(players.judges, answer, fake, True)
    return penalty_costs(players, objective, chunk, sides, due, progress)


def _sides(critic: Discriminator, real: Sample, fake: Sample, with_gradient: bool) -> tuple[Side, Side]:
    one, other = (Side(_seen(critic, sample, with_gradient), sample.mask) for sample in (real, fake))
    return one, other


def _seen(critic: Discriminator, sample: Sample, with_gradient: bool) -> Tensor:
    seen = critic.embed(sample)
    return seen.detach().requires_grad_() if with_gradient and not seen.requires_grad else seen


def _fakes(players: Players, objective: Objective, chunk: Chunk, progress: float) -> Sample:
    """As many generated samples, without a graph."""
    with torch.no_grad(), players.precision():
        temperature = draw_temperature(players, objective, "values", progress)
        fake: Sample = players.generates(chunk.noise, chunk.real.condition, temperature=temperature)
        return fake.seen_in(players.dtype).detach()


def _mismatch_cost(
    players: Players, objective: Objective, chunk: Chunk, seen: Tensor, matched: Verdict, progress: float
) -> Tensor:
    """D's cost of ranking a real sample under another sample's condition as high as under its own, a scalar; log 2 at a tie.

    Always in pairs, whatever the loss: a score that does not depend on the condition gets no gradient from it, and neither
    does a pair whose conditions are the same.

    Source: a matching-aware critic, Reed et al. 2016, https://arxiv.org/abs/1605.05396, with relativistic pairs
    """
    with players.precision():
        seen = seen.detach() if seen.is_leaf else seen  # an embedding learns; a penalty's leaf needs no second gradient
        mismatched = judge(players.judges, seen, chunk.mismatched or {}, chunk.real.mask)
    weight = objective.weight("discriminator.mismatch", objective.config.discriminator.mismatch, progress)
    return weight * reduction.discriminator_cost(LOSSES["relativistic"], matched, mismatched, None).mean()


def _remember(players: Players, objective: Objective, scores: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Let what has a memory see the scores (B,) of the whole global batch; scalars to log."""
    critic, lecam = players.judges, "lecam" in objective.config.penalties
    if not lecam and type(critic).adapt is Discriminator.adapt:
        return {}
    real, fake = (players.world.gather(torch.cat(each)) for each in zip(*scores, strict=True))
    if lecam:
        follow_scores(players.state, real, fake)
    return dict(critic.adapt(real, fake))
