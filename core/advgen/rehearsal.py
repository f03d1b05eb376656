"""Rehearsal of a step with a few samples: values that plugins return are checked before a run begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advgen.border import refusal
from advgen.contracts import Batch, Mode, Sample, Source
from advgen.controllers import CONTROLLERS
from advgen.estimators import get_estimator
from advgen.faults import scalar_fault, seen_fault
from advgen.players import Objective, Players
from advgen.randomness import keyed_generator, seed_networks, untouched
from advgen.transfer import to_device
from advgen.updates.generator import extra_costs, require_log_probs
from advgen.updates.shared import draw_temperature

FEW = 5
"""Number of samples. An axis of a single sample is seldom of this length, so it cannot pass for a batch."""


def rehearse(players: Players, objective: Objective, source: Source) -> None:
    """Call both networks and the modality as the planned steps will; weights, buffers and random numbers do not change.

    Raises:
        ContractError: naming the method whose value breaks its contract.
    """
    config, critic = objective.config, players.judges
    kinds = {phase.kind for phase in config.phases}
    share = config.train.batch_size // (players.world.size * config.train.accumulate)
    count = min(share, -(-FEW // critic.batch_group) * critic.batch_group)
    with untouched(players.world.device), unchanged(players.generates), unchanged(critic):
        seed_networks(config.train.seed, "rehearsal")
        real = _real(players, source, count, config.train.seed)
        fake = _generated(players, objective, real)
        _show(players, fake, real, config.train.seed)
        if kinds != {"likelihood"}:
            _judged(players, objective, real, fake)
        if "likelihood" in kinds or "likelihood" in config.auxiliary:
            with torch.no_grad(), players.precision():
                players.modality.likelihood(players.generates, real)


@contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Restore buffers after the block; refuse a network that has gained or lost tensors in it.

    Raises:
        ContractError: naming the first such tensor.
    """
    before = set(network.state_dict())
    kept = [(module, name, buffer, buffer.clone()) for module, name, buffer in _buffers(network)]
    try:
        yield
    finally:
        for module, name, buffer, value in kept:
            setattr(module, name, buffer)  # the call may have replaced the buffer instead of writing to it
            buffer.detach().copy_(value)
    if new := sorted(before ^ set(network.state_dict())):
        raise refusal(
            type(network), f"made or dropped {new[0]} when it was called; make all parameters and buffers with the network"
        )


def _buffers(network: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Yield each buffer with its module and its name there."""
    for module in network.modules():
        yield from ((module, name, buffer) for name, buffer in module.named_buffers(recurse=False))


def _real(players: Players, source: Source, count: int, seed: int) -> Batch:
    """Read the first samples, prepared as for a step."""
    batch = source.batch(torch.arange(count), keyed_generator(seed, "rehearsal", "data"))
    real: Batch = players.modality.prepare(batch.to(players.world.device))
    values = real.values.to(players.dtype) if real.values.is_floating_point() else real.values
    return Batch(values, real.mask, real.condition)


def _generated(players: Players, objective: Objective, real: Batch) -> Sample:
    """Generate one fake per real sample in the estimator's mode, and make the other calls of estimator and penalties."""
    config, generator, condition = objective.config, players.generates, real.condition
    estimator, seed = get_estimator(config.estimator.name), config.train.seed
    fake = Sample(real.values)
    modes: list[Mode] = ["values", estimator.mode]
    for mode in dict.fromkeys(modes):
        temperature = draw_temperature(players, objective, mode, 0.0)
        noise = players.modality.noise(len(real), keyed_generator(seed, "rehearsal", "noise"), mode=mode)
        noise = to_device(noise, players.world.device, players.dtype if noise.is_floating_point() else noise.dtype)
        with torch.set_grad_enabled(mode != "values"), players.precision():
            fake = generator(noise, condition, mode=mode, temperature=temperature).seen_in(players.dtype)
        if mode == "log_prob":
            require_log_probs(fake)
    with torch.no_grad(), players.precision():
        if estimator.scores_again:
            generator.score(fake.values, condition, temperature=temperature, drawn=True)
        if estimator.name in ("score_function", "ppo") and config.estimator.rewards == "rollout":
            kept = torch.ones(len(real), dtype=torch.int64, device=players.world.device)
            more = players.modality.noise(len(real), keyed_generator(seed, "rehearsal", "rollouts"))
            more = to_device(more, players.world.device, players.dtype if more.is_floating_point() else more.dtype)
            generator.continue_from(fake.values, more, condition, kept=kept, temperature=temperature)
    if "path_length" in config.penalties:
        generator.path_lengths(noise, condition)
    return fake


@torch.no_grad()
def _show(players: Players, fake: Sample, real: Batch, seed: int) -> None:
    """Postprocess samples and draw conditions, as overviews in the run will."""
    players.modality.postprocess(fake.detach(), real.condition)
    players.modality.condition(len(real), keyed_generator(seed, "rehearsal", "condition"), label=None)


def _judged(players: Players, objective: Objective, real: Batch, fake: Sample) -> None:
    """Judge real and fake samples, and compute the costs that the modality adds."""
    critic, verdicts = players.judges, []
    penalized = any(each.amount > 0 for name, each in objective.config.penalties.items() if name not in CONTROLLERS)
    with players.precision():
        for sample in (real.sample, fake):
            seen = critic.embed(sample)
            if penalized and (fault := seen_fault(seen, sample)):
                raise refusal(type(critic).embed, f"returned {fault}", type(critic), "embed")
            verdicts.append(critic(seen, real.condition, sample.mask))
        costs = extra_costs(players, objective, real, fake, *verdicts)
    for name, cost in costs.items():
        if fault := scalar_fault(cost):
            raise refusal(type(players.modality), f"makes the cost auxiliary.{name} that is {fault}")
