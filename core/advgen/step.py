"""The algorithm: update D on real against fake, update G on a fresh draw, update the average."""

from __future__ import annotations

import torch
from torch import Tensor

from advgen import reduction
from advgen.balance import Pull, balanced_costs, measure
from advgen.config.model import RunConfig
from advgen.contracts import Batch, Discriminator, Mode, Sample, Verdict
from advgen.controllers import follow_lengths, follow_scores, lecam_cost, path_length_cost
from advgen.engine import Player, Terms, apply_update, frozen, set_second_beta
from advgen.errors import ConfigError
from advgen.estimators import ESTIMATORS, score_function_cost, update_baseline
from advgen.losses import LOSSES, Loss
from advgen.penalising import Side, due_penalties, is_due, judge, penalty_cost, penalty_weight
from advgen.players import Chunk, Draw, Objective, Players, Turn
from advgen.randomness import seed_networks
from advgen.world import World


def train_step(players: Players, objective: Objective, draw: Draw, step: int, progress: float) -> dict[str, Tensor]:
    """Update D on real against fake, then G on a fresh draw, then the average. Returns detached tensors."""
    config, logs = objective.config, dict[str, Tensor]()
    _schedule(players, objective, progress)
    for turn in range(config.discriminator.steps):
        update = step * config.discriminator.steps + turn
        logs |= update_discriminator(players, objective, draw("discriminator", update), update, progress)
    for turn in range(config.generator.steps):
        update = step * config.generator.steps + turn
        logs |= update_generator(players, objective, draw("generator", update), update, progress)
    update_average(players, config, step, objective.scale("average.half_life_steps", progress))
    return logs


def likelihood_step(players: Players, objective: Objective, draw: Draw, step: int, progress: float) -> dict[str, Tensor]:
    """Train G alone on data by likelihood, then the average."""
    seed_networks(objective.config.train.seed, "likelihood", step)
    _schedule(players, objective, progress)
    terms, chunks = Terms(), draw("generator", step)
    positions = mean_positions(players.world, chunks)
    for chunk in chunks:
        with players.precision():
            cost = likelihood_cost(players, chunk.real, positions)
        cost.div(len(chunks)).backward()
        _add(terms.costs, "likelihood", cost, len(chunks))
    scale = objective.scale("generator.learning_rate", progress)
    logs = apply_update(players.generator, terms, scale, players.world)
    update_average(players, objective.config, step, objective.scale("average.half_life_steps", progress))
    return logs | {f"generator/{name}": value for name, value in terms.costs.items()}


def _schedule(players: Players, objective: Objective, progress: float) -> None:
    """Scheduled values that no update takes as an argument."""
    players.judges.augmentation_scale = objective.scale("discriminator.augmentation", progress)
    for player in (players.generator, players.discriminator):
        set_second_beta(player, objective.scale(f"{player.name}.beta2", progress))


def likelihood_cost(players: Players, real: Batch, positions: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats a position, a scalar.

    Every position counts alike: a mean within each sample first would favour what short samples hold, their end above all.
    """
    nats = players.modality.likelihood(players.generates, real)
    if real.mask is None:
        return nats.mean()
    return torch.where(real.mask, nats, torch.zeros_like(nats)).sum() / (len(real) * positions)


def mean_positions(world: World, chunks: list[Chunk]) -> Tensor:
    """Valid positions of a mean real sample over all micro-batches and ranks, a scalar; all of them without a mask."""
    masks = [chunk.real.mask for chunk in chunks if chunk.real.mask is not None]
    if not masks:
        return torch.full((), float(chunks[0].real.values[0].numel()), device=world.device)
    valid = torch.stack([mask.sum() for mask in masks]).sum()
    return (world.total(valid) / (world.size * sum(map(len, masks)))).clamp(min=1)


def update_discriminator(
    players: Players, objective: Objective, chunks: list[Chunk], update: int, progress: float
) -> dict[str, Tensor]:
    """One update of D; G is untouched."""
    seed_networks(objective.config.train.seed, "discriminator", update)
    terms, seen_scores = Terms(), list[tuple[Tensor, Tensor]]()
    for chunk in chunks:
        costs, scores = discriminator_costs(players, objective, chunk, update, progress)
        _backward(players, terms, costs, len(chunks))
        seen_scores.append((scores["real_score"], scores["fake_score"]))
        for name, value in scores.items():
            _add(terms.logs, name, value.mean(), len(chunks))
    scale = objective.scale("discriminator.learning_rate", progress)
    logs = apply_update(players.discriminator, terms, scale, players.world)
    if due_penalties(objective, update, own_step=True):
        own = Terms()
        for chunk in chunks:
            _backward(players, own, penalty_costs(players, objective, chunk, update, progress), len(chunks))
        logs |= _own_step(players, players.discriminator, own, scale)
        terms.costs |= own.costs
    terms.logs |= _remember(players, objective, seen_scores)
    return logs | {f"discriminator/{name}": value for name, value in (terms.costs | terms.logs).items()}


def _backward(players: Players, terms: Terms, costs: dict[str, Tensor], chunks: int) -> None:
    """Gradients of one of ``chunks`` micro-batches' costs, which are added to the update's."""
    total = torch.stack([cost.to(players.dtype) for cost in costs.values()]).sum()
    (total if chunks == 1 else total / chunks).backward()
    for name, cost in costs.items():
        _add(terms.costs, name, cost, chunks)


def _own_step(players: Players, player: Player, terms: Terms, scale: float) -> dict[str, Tensor]:
    """Apply an update of penalties alone; its gradient norm is not the one that is logged."""
    name = f"{player.name}/non_finite"
    return {name: apply_update(player, terms, scale, players.world)[name]}


def _remember(players: Players, objective: Objective, scores: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Let what has a memory see the scores (B,) of the whole global batch; scalars to log."""
    critic, lecam = players.judges, "lecam" in objective.config.penalties
    if not lecam and type(critic).adapt is Discriminator.adapt:
        return {}
    real, fake = (players.world.gather(torch.cat(each)) for each in zip(*scores, strict=True))
    if lecam:
        follow_scores(players.state, real, fake)
    return dict(critic.adapt(real, fake))


def discriminator_costs(
    players: Players, objective: Objective, chunk: Chunk, update: int, progress: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Named scalar costs of D on one micro-batch, and the scores (B,) of both sides."""
    critic, real = players.judges, chunk.real
    fake = _fakes(players, objective, chunk, progress)
    due = due_penalties(objective, update)
    needs_gradient = any(objective.config.penalties[name].share == 1 for name in due)
    seen_real, seen_fake = (_seen(critic, sample, needs_gradient) for sample in (Sample(real.values, mask=real.mask), fake))
    with players.precision():
        on_real = judge(critic, seen_real, real.condition, real.mask)
        on_fake = judge(critic, seen_fake, real.condition, fake.mask)
    means = global_means(objective.loss, on_real, on_fake, players.world)
    costs = {"loss": reduction.discriminator_cost(objective.loss, on_real, on_fake, means).mean()}
    scores = {"real_score": reduction.reduce_verdict(on_real), "fake_score": reduction.reduce_verdict(on_fake)}
    if chunk.mismatched is not None:
        costs["mismatch"] = _mismatch_cost(players, objective, chunk, seen_real, on_real, progress)
    if is_due(objective, "lecam", update):
        weight = penalty_weight(objective, "lecam", progress)
        costs["lecam"] = lecam_cost(players.state, scores["real_score"], scores["fake_score"], weight)
    reuse = not players.autocast  # penalties are computed in full precision
    sides = (Side(seen_real, real.mask, on_real if reuse else None), Side(seen_fake, fake.mask, on_fake if reuse else None))
    costs |= {name: penalty_cost(players, objective, chunk, sides, name, progress) for name in due}
    return costs, {name: score.detach() for name, score in scores.items()}


def penalty_costs(players: Players, objective: Objective, chunk: Chunk, update: int, progress: float) -> dict[str, Tensor]:
    """Named scalar costs of the penalties that take an update of their own, on one micro-batch."""
    critic, real, due = players.judges, chunk.real, due_penalties(objective, update, own_step=True)
    answer = Sample(real.values, mask=real.mask)
    unused = all(penalty.needs == "real" for penalty in due.values())
    fake = answer if unused else _fakes(players, objective, chunk, progress)
    sides = Side(_seen(critic, answer, True), real.mask, None), Side(_seen(critic, fake, True), fake.mask, None)
    return {name: penalty_cost(players, objective, chunk, sides, name, progress) for name in due}


def _fakes(players: Players, objective: Objective, chunk: Chunk, progress: float) -> Sample:
    """As many generated samples, without a graph."""
    with torch.no_grad(), players.precision():
        temperature = _temperature(objective, "values", progress)
        fake: Sample = players.generates(chunk.noise, chunk.real.condition, temperature=temperature)
        return fake.detach()


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
                    _add(terms.costs, name, cost, parts)
            else:
                _backward(players, terms, costs, parts)
            if joined:
                _backward(players, terms, _path_length(players, objective, chunk, progress, lengths), parts)
        for cost in balanced_costs(players, pulls, objective.shares(progress)) if pulls else ():
            cost.div(parts).backward()
    scale = objective.scale("generator.learning_rate", progress)
    logs = apply_update(players.generator, terms, scale, players.world)
    if own_step:
        own = Terms()
        for chunk in chunks:
            _backward(players, own, _path_length(players, objective, chunk, progress, lengths), parts)
        logs |= _own_step(players, players.generator, own, scale)
        terms.costs |= own.costs
    if lengths:
        follow_lengths(players.state, torch.cat(lengths), players.world)
    if turn.gains:
        _update_baseline(players, objective, turn.gains)
    return logs | {f"generator/{name}": value for name, value in terms.costs.items()}


def _path_length(
    players: Players, objective: Objective, chunk: Chunk, progress: float, lengths: list[Tensor]
) -> dict[str, Tensor]:
    """The cost of path lengths in full precision, on every second sample; the lengths are kept for the target."""
    condition = {name: value[::2] for name, value in chunk.real.condition.items()}
    found = players.generates.path_lengths(chunk.noise[::2], condition)
    lengths.append(found.detach())
    return {"path_length": path_length_cost(players.state, found, penalty_weight(objective, "path_length", progress))}


def generated(players: Players, objective: Objective, chunk: Chunk, progress: float) -> Sample:
    """What G makes for one micro-batch, in the estimator's mode."""
    mode, generator = ESTIMATORS[objective.config.estimator.name].mode, players.generates
    fake: Sample = generator(chunk.noise, chunk.real.condition, mode=mode, temperature=_temperature(objective, mode, progress))
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


def update_average(players: Players, config: RunConfig, step: int, scale: float = 1.0) -> None:
    """Move the average's parameters towards G's; other state (BatchNorm statistics) is copied."""
    if players.average is None:
        return
    half_life = max(config.average.half_life_steps * scale, 1e-3)
    if config.average.ramp_up > 0:
        half_life = min(half_life, max(config.average.ramp_up * (step + 1), 1e-3))
    network = players.generator.network
    mean: list[Tensor] = list(players.average.parameters())
    now: list[Tensor] = list(network.parameters())
    with torch.no_grad():
        torch._foreach_lerp_(mean, now, 1.0 - 0.5 ** (1.0 / half_life))
        for own, other in zip(players.average.buffers(), network.buffers(), strict=True):
            own.copy_(other)


def global_means(loss: Loss, real: Verdict, fake: Verdict, world: World) -> list[tuple[Tensor, Tensor]] | None:
    """Each head's mean score of real and of fake over all ranks, where the loss couples the batch."""
    if not loss.couples_batch:
        return None
    pairs = zip(reduction.head_means(real), reduction.head_means(fake), strict=True)
    return [
        (world.total(real_sum) / world.total(real_count), world.total(fake_sum) / world.total(fake_count))
        for (real_sum, real_count), (fake_sum, fake_count) in pairs
    ]


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


def _seen(critic: Discriminator, sample: Sample, with_gradient: bool) -> Tensor:
    seen = critic.embed(sample)
    return seen.detach().requires_grad_() if with_gradient and not seen.requires_grad else seen


def _temperature(objective: Objective, mode: Mode, progress: float) -> float:
    """Of the generator's draws. Under straight_through it softens the gradient alone: tokens come as they are sampled later."""
    if mode == "values" and objective.config.estimator.name == "straight_through":
        return 1.0
    return objective.weight("estimator.temperature", objective.config.estimator.temperature, progress)


def _add(into: dict[str, Tensor], name: str, value: Tensor, chunks: int) -> None:
    part = value.detach() if chunks == 1 else value.detach() / chunks
    into[name] = into[name] + part if name in into else part
