"""The algorithm: update D on real against fake, update G on a fresh draw, update the average."""

from __future__ import annotations

import torch
from torch import Tensor

from advgen.config.model import RunConfig
from advgen.engine import apply_update, set_second_beta
from advgen.players import Chunk, Draw, Objective, Players
from advgen.randomness import seed_networks
from advgen.recording import Update, Worked, recorded
from advgen.updates.discriminator import update_discriminator
from advgen.updates.generator import update_generator
from advgen.updates.policy import update_policy
from advgen.updates.shared import follow_draws, likelihood_gradients


def train_step(players: Players, objective: Objective, draw: Draw, step: int, progress: float) -> dict[str, Tensor]:
    """Update D on real against fake, then G on a fresh draw, then the average. Returns detached tensors."""
    config, logs = objective.config, dict[str, Tensor]()
    move = update_policy if config.estimator.name == "ppo" else update_generator
    _schedule(players, objective, progress)
    for turn in range(config.discriminator.steps):
        update = step * config.discriminator.steps + turn
        logs |= update_discriminator(players, objective, draw("discriminator", update), update, progress)
    for turn in range(config.generator.steps):
        update = step * config.generator.steps + turn
        chunks = draw("generator", update)
        logs |= move(players, objective, chunks, update, progress)
        follow_draws(players, chunks)
    update_average(players, config, step, objective.scale("average.half_life_steps", progress))
    return logs


def likelihood_step(players: Players, objective: Objective, draw: Draw, step: int, progress: float) -> dict[str, Tensor]:
    """Train G alone on data by likelihood, then the average."""
    seed_networks(objective.config.train.seed, "likelihood", step, *players.world.own_key)
    _schedule(players, objective, progress)
    player, chunks = players.generator, draw("generator", step)

    def work(objective: Objective, chunks: list[Chunk]) -> Worked:
        return Worked(likelihood_gradients(players, chunks))

    terms = recorded(Update(("likelihood",), players, player, objective, chunks, progress, work)).terms
    logs = apply_update(player, terms, objective.scale("generator.learning_rate", progress), players.world)
    update_average(players, objective.config, step, objective.scale("average.half_life_steps", progress))
    return logs | {f"generator/{name}": value for name, value in terms.costs.items()}


def critic_step(players: Players, objective: Objective, draw: Draw, step: int, progress: float) -> dict[str, Tensor]:
    """Update D alone, against G as it is."""
    logs, turns = dict[str, Tensor](), objective.config.discriminator.steps
    _schedule(players, objective, progress)
    for update in range(step * turns, (step + 1) * turns):
        logs |= update_discriminator(players, objective, draw("discriminator", update), update, progress)
    return logs


def _schedule(players: Players, objective: Objective, progress: float) -> None:
    """Scheduled values that no update takes as an argument."""
    players.judges.augmentation_scale = objective.scale("discriminator.augmentation", progress)
    for player in (players.generator, players.discriminator):
        set_second_beta(player, objective.scale(f"{player.name}.beta2", progress))


def update_average(players: Players, config: RunConfig, step: int, scale: float = 1.0) -> None:
    """Move the average's parameters towards G's; other state (BatchNorm statistics) is copied."""
    if players.average is None:
        return
    half_life = max(config.average.half_life_steps * scale, 1e-3)
    if config.average.ramp_up > 0:
        half_life = min(half_life, max(config.average.ramp_up * (step + 1), 1e-3))
    network = players.generator.network
    pairs = list(zip(players.average.parameters(), network.parameters(), strict=True))
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    mean: list[Tensor] = [own for own, _ in floats]
    now: list[Tensor] = [other for _, other in floats]
    whole = [pair for pair in pairs if not pair[0].is_floating_point()]  # frozen integer tables have no mean
    with torch.no_grad():
        torch._foreach_lerp_(mean, now, 1.0 - 0.5 ** (1.0 / half_life))
        for own, other in [*whole, *zip(players.average.buffers(), network.buffers(), strict=True)]:
            own.copy_(other)
