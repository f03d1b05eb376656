"""One update of G: its loss by the estimator, the modality's further costs, its penalty."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from advgen import reduction
from advgen.balance import Pull, balanced_costs, measure
from advgen.contracts import Batch, Sample, Verdict
from advgen.controllers import follow_lengths, path_length_cost
from advgen.engine import Terms, apply_update, frozen
from advgen.errors import ConfigError
from advgen.estimators import ESTIMATORS, score_function_cost
from advgen.players import Chunk, Objective, Players, Turn
from advgen.randomness import seed_networks
from advgen.recording import Update, Worked, recorded
from advgen.updates.crediting import credited_cost, drawn_places, opinion_of
from advgen.updates.judging import judge_sample
from advgen.updates.penalising import is_due, penalty_weight
from advgen.updates.policies import expected_cost
from advgen.updates.shared import (
    add,
    apply_own,
    backward,
    draw_temperature,
    follow_baseline,
    global_means,
    known_baseline,
    likelihood_cost,
    mean_positions,
)


def update_generator(
    players: Players, objective: Objective, chunks: list[Chunk], update: int, progress: float
) -> dict[str, Tensor]:
    """One update of G; D is untouched."""
    seed_networks(objective.config.train.seed, "generator", update, *players.world.own_key)
    player, scale = players.generator, objective.scale("generator.learning_rate", progress)
    joined, own_step = (is_due(objective, "path_length", update, own) for own in (False, True))

    def own_work(objective: Objective, chunks: list[Chunk]) -> Worked:
        own = Worked(Terms())
        for chunk in chunks:
            backward(players, player, own.terms, _path_length(players, objective, chunk, progress, own.tensors), len(chunks))
        return own

    def work(objective: Objective, chunks: list[Chunk]) -> Worked:
        return _gradients(players, objective, chunks, joined, progress)

    worked = recorded(Update(("generator", joined), players, player, objective, chunks, progress, work))
    logs = apply_update(player, worked.terms, scale, players.world)
    costs, lengths = worked.terms.costs, worked.tensors
    if own_step:
        own = recorded(Update(("path lengths",), players, player, objective, chunks, progress, own_work))
        logs |= apply_own(players, player, own.terms, scale)
        costs, lengths = costs | own.terms.costs, lengths + own.tensors
    if lengths:
        follow_lengths(players.state, torch.cat(lengths), players.world)
    follow_baseline(players, objective, worked.pairs)
    return logs | {f"generator/{name}": value for name, value in costs.items()}


def _gradients(players: Players, objective: Objective, chunks: list[Chunk], joined: bool, progress: float) -> Worked:
    """Those of all costs, that of path lengths too where it is ``joined``; with rewards and their masks (B, L)."""
    terms, turn, pulls = Terms(), Turn(mean_positions(players.world, chunks)), list[Pull]()
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
    return Worked(terms, turn.gains, lengths)


def generated(players: Players, objective: Objective, chunk: Chunk, progress: float) -> Sample:
    """What G makes for one micro-batch, in the estimator's mode."""
    estimator, generator = ESTIMATORS[objective.config.estimator.name], players.generates
    temperature = draw_temperature(players, objective, estimator.mode, progress)
    with torch.no_grad() if estimator.scores_again else contextlib.nullcontext():
        fake: Sample = generator(chunk.noise, chunk.real.condition, mode=estimator.mode, temperature=temperature)
    return fake.seen_in(players.dtype)


def generator_costs(
    players: Players, objective: Objective, chunk: Chunk, fake: Sample, progress: float, turn: Turn
) -> dict[str, Tensor]:
    """Named scalar costs of G on one micro-batch."""
    config, real = objective.config, chunk.real
    cost, on_real, on_fake = _LOSSES.get(config.estimator.name, _pathwise)(players, objective, chunk, fake, progress, turn)
    costs = {"loss": cost}
    extra = extra_costs(players, objective, real, fake, on_real, on_fake)
    for name, base in objective.auxiliary.items():
        weight = base if name in config.balance else objective.weight(f"auxiliary.{name}", base, progress)
        costs[name] = weight * (likelihood_cost(players, real, turn.positions) if name == "likelihood" else extra[name])
    return costs


Answer = tuple[Tensor, Verdict | None, Verdict]
"""The adversarial cost, a scalar; D's verdict on real samples where the loss looked at them; that on the generated ones."""


def _pathwise(players: Players, objective: Objective, chunk: Chunk, fake: Sample, progress: float, turn: Turn) -> Answer:
    """Through D and the sample itself."""
    critic, real, loss, on_real = players.judges, chunk.real, objective.loss, None
    if loss.pairs or loss.couples_batch:
        with torch.no_grad():
            on_real = judge_sample(critic, real.sample, real.condition)
    on_fake = judge_sample(critic, fake, real.condition)
    means = global_means(loss, on_real or on_fake, on_fake, players.world)
    cost = reduction.generator_cost(loss, on_real or on_fake, on_fake, means, turn.positions)
    return cost.mean(), on_real, on_fake


def _score_function(players: Players, objective: Objective, chunk: Chunk, fake: Sample, progress: float, turn: Turn) -> Answer:
    """Through the log-probability of each draw, which D's verdict is credited to."""
    log_prob, entropy = require_log_probs(fake)
    settings, mask = objective.config.estimator, drawn_places(fake)
    opinion = opinion_of(players, objective, chunk, fake, turn.positions)
    surrogate, gained = score_function_cost(
        log_prob=log_prob,
        entropy=entropy,
        cost=credited_cost(players, objective, chunk, fake, opinion, progress),
        mask=mask,
        baseline=known_baseline(players, mask.shape[1]),
        positions=turn.positions,
        discount=settings.discount,
        rewards=settings.rewards,
        entropy_weight=settings.entropy_weight,
    )
    if settings.rewards != "importance":
        turn.gains.append((gained, mask))
    return surrogate.mean(), opinion.real, opinion.fake


def require_log_probs(fake: Sample) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies (B, L) of drawn samples.

    Raises:
        ConfigError: if the generator has none.
    """
    if fake.log_prob is None or fake.entropy is None:
        raise ConfigError("estimator score_function needs a generator that returns log_prob and entropy; use pathwise")
    return fake.log_prob, fake.entropy


def _expectation(players: Players, objective: Objective, chunk: Chunk, fake: Sample, progress: float, turn: Turn) -> Answer:
    """Through the probability of every token at each place, with what D makes of each."""
    settings, condition = objective.config.estimator, chunk.real.condition
    opinion = opinion_of(players, objective, chunk, fake, turn.positions)
    temperature = draw_temperature(players, objective, "values", progress)
    log_probs = players.generates.score(fake.values, condition, temperature=temperature, drawn=True).log_softmax(-1)
    cost = torch.zeros_like(log_probs)
    for head in opinion.fake.heads:
        if head.alternatives is None:
            raise ConfigError(
                "estimator expectation needs a discriminator that scores every token in each place (Head.alternatives), which "
                "this one does not; of the text plugin: options.critic=mediator"
            )
        cost = cost + head.weight * objective.loss.generator(real=head.alternatives, fake=head.alternatives)
    found = expected_cost(
        log_probs=log_probs,
        cost=cost,
        mask=fake.mask,
        positions=turn.positions,
        entropy_weight=settings.entropy_weight,
    )
    return found.mean(), None, opinion.fake


_LOSSES = {"score_function": _score_function, "expectation": _expectation}
"""How the adversarial cost is had where it is not through the sample."""


def extra_costs(
    players: Players, objective: Objective, real: Batch, fake: Sample, on_real: Verdict | None, on_fake: Verdict
) -> dict[str, Tensor]:
    """The modality's own terms that are asked for; those of verdicts only where one is."""
    modality, critic = players.modality, players.judges
    wanted = set(objective.auxiliary) - {"likelihood"}
    offered = dict(modality.auxiliary(real, fake)) if wanted else {}
    if wanted - set(offered):
        if on_real is None:
            with torch.no_grad():
                on_real = judge_sample(critic, real.sample, real.condition)
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
