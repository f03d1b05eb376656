"""One update of G: its loss by the estimator, the modality's further costs, its penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from advgen import reduction
from advgen.balance import Pull, balanced_costs, measure
from advgen.contracts import Batch, Sample, Verdict
from advgen.controllers import follow_lengths, path_length_cost
from advgen.engine import Terms, apply_update, frozen
from advgen.errors import ConfigError
from advgen.estimators import ESTIMATORS, score_function_cost, update_baseline
from advgen.judging import judge
from advgen.penalising import is_due, penalty_weight
from advgen.players import Chunk, Objective, Players, Turn
from advgen.randomness import seed_networks
from advgen.updating import add, apply_own, backward, draw_temperature, global_means, likelihood_cost, mean_positions


def update_generator(
    players: Players, objective: Objective, chunks: list[Chunk], update: int, progress: float
) -> dict[str, Tensor]:
    """One update of G; D is untouched."""
    seed_networks(objective.config.train.seed, "generator", update)
    terms, turn, pulls = Terms(), Turn(mean_positions(players.world, chunks)), list[Pull]()
    joined, own_step = (is_due(objective, "path_length", update, own) for own in (False, True))
    lengths, parts = list[Tensor](), len(chunks)
    with frozen(players.discriminator.network):
        for chunk in chunks:
            with players.precision():
                fake = generated(players, objective, chunk, progress)
                costs = generator_costs(players, objective, chunk, fake, progress, turn)
            if objective.config.balance:
                pulls.append(measure(fake, costs, objective.shares(progress), players.dtype))
                for name, cost in costs.items():
                    add(terms.costs, name, cost, parts)
            else:
                backward(players, players.generator, terms, costs, parts)
            if joined:
                backward(players, players.generator, terms, _path_length(players, objective, chunk, progress, lengths), parts)
        for cost in balanced_costs(players, pulls, objective.shares(progress)) if pulls else ():
            cost.div(parts).backward()
    scale = objective.scale("generator.learning_rate", progress)
    logs = apply_update(players.generator, terms, scale, players.world)
    if own_step:
        own = Terms()
        for chunk in chunks:
            backward(players, players.generator, own, _path_length(players, objective, chunk, progress, lengths), parts)
        logs |= apply_own(players, players.generator, own, scale)
        terms.costs |= own.costs
    if lengths:
        follow_lengths(players.state, torch.cat(lengths), players.world)
    if turn.gains:
        _update_baseline(players, objective, turn.gains)
    return logs | {f"generator/{name}": value for name, value in terms.costs.items()}


def generated(players: Players, objective: Objective, chunk: Chunk, progress: float) -> Sample:
    """What G makes for one micro-batch, in the estimator's mode."""
    mode, generator = ESTIMATORS[objective.config.estimator.name].mode, players.generates
    fake: Sample = generator(
        chunk.noise, chunk.real.condition, mode=mode, temperature=draw_temperature(objective, mode, progress)
    )
    return fake


def generator_costs(
    players: Players, objective: Objective, chunk: Chunk, fake: Sample, progress: float, turn: Turn
) -> dict[str, Tensor]:
    """Named scalar costs of G on one micro-batch."""
    config, mode = objective.config, ESTIMATORS[objective.config.estimator.name].mode
    critic, real, on_real = players.judges, chunk.real, None
    if objective.loss.pairs or objective.loss.couples_batch:
        with torch.no_grad():
            on_real = judge(critic, critic.embed(Sample(real.values, mask=real.mask)), real.condition, real.mask)
    if mode == "log_prob":
        with torch.no_grad():
            on_fake = judge(critic, critic.embed(fake), real.condition, fake.mask)
        costs = {"loss": _score_function(players, objective, fake, on_real or on_fake, on_fake, turn)}
    else:
        on_fake = judge(critic, critic.embed(fake), real.condition, fake.mask)
        means = global_means(objective.loss, on_real or on_fake, on_fake, players.world)
        costs = {"loss": reduction.generator_cost(objective.loss, on_real or on_fake, on_fake, means).mean()}
    extra = _extra_costs(players, objective, real, fake, on_real, on_fake)
    for name, base in objective.auxiliary.items():
        weight = base if name in config.balance else objective.weight(f"auxiliary.{name}", base, progress)
        costs[name] = weight * (likelihood_cost(players, real, turn.positions) if name == "likelihood" else extra[name])
    return costs


def _extra_costs(
    players: Players, objective: Objective, real: Batch, fake: Sample, on_real: Verdict | None, on_fake: Verdict
) -> dict[str, Tensor]:
    """The modality's own terms that are asked for; those of verdicts only where one is."""
    modality, critic = players.modality, players.judges
    wanted = set(objective.auxiliary) - {"likelihood"}
    offered = dict(modality.auxiliary(real, fake)) if wanted else {}
    if wanted - set(offered):
        if on_real is None:
            with torch.no_grad():
                on_real = judge(critic, critic.embed(Sample(real.values, mask=real.mask)), real.condition, real.mask)
        offered |= modality.verdict_auxiliary(on_real, on_fake)
    for name in sorted(wanted - set(offered)):
        table = "balance" if name in objective.config.balance else "auxiliary"
        raise ConfigError(f"{table}.{name}: this plugin has no such term; known: {', '.join(['likelihood', *offered])}")
    return {name: cost if isinstance(cost, Tensor) else cost() for name, cost in offered.items() if name in wanted}


def _path_length(
    players: Players, objective: Objective, chunk: Chunk, progress: float, lengths: list[Tensor]
) -> dict[str, Tensor]:
    """The cost of path lengths in full precision, on every second sample; the lengths are kept for the target."""
    condition = {name: value[::2] for name, value in chunk.real.condition.items()}
    found = players.generates.path_lengths(chunk.noise[::2], condition)
    lengths.append(found.detach())
    return {"path_length": path_length_cost(players.state, found, penalty_weight(objective, "path_length", progress))}


def _score_function(
    players: Players,
    objective: Objective,
    fake: Sample,
    on_real: Verdict,
    on_fake: Verdict,
    turn: Turn,
) -> Tensor:
    settings = objective.config.estimator
    if fake.log_prob is None or fake.entropy is None:
        raise ConfigError("estimator score_function needs a generator that returns log_prob and entropy; use pathwise")
    mask = torch.ones_like(fake.log_prob, dtype=torch.bool) if fake.mask is None else fake.mask
    baseline = players.state.setdefault("baseline", fake.log_prob.new_zeros(fake.log_prob.shape[1]).detach())
    updates = players.state.setdefault("baseline_updates", torch.zeros_like(baseline, dtype=torch.int64))
    cost = torch.zeros_like(fake.log_prob)
    means = global_means(objective.loss, on_real, on_fake, players.world)
    for head, (each, _) in zip(
        on_fake.heads, reduction.generator_cost_per_position(objective.loss, on_real, on_fake, means), strict=True
    ):
        each = each.unsqueeze(1).expand_as(cost) if each.dim() == 1 else each
        cost = cost + head.weight * each
    surrogate, gained = score_function_cost(
        log_prob=fake.log_prob,
        entropy=fake.entropy,
        cost=cost,
        mask=mask,
        baseline=torch.where(updates > 0, baseline, torch.nan),
        positions=turn.positions,
        discount=settings.discount,
        rewards=settings.rewards,
        entropy_weight=settings.entropy_weight,
    )
    turn.gains.append((gained, mask))
    return surrogate.mean()


def _update_baseline(players: Players, objective: Objective, gains: list[tuple[Tensor, Tensor]]) -> None:
    gained = players.world.gather(torch.cat([each for each, _ in gains]))
    mask = players.world.gather(torch.cat([each for _, each in gains]))
    state, decay = players.state, objective.config.estimator.baseline_decay
    state["baseline"] = update_baseline(state["baseline"], gained, mask, decay, state["baseline_updates"])
    state["baseline_updates"] = state["baseline_updates"] + mask.any(0)
