"""Training speed of advgen against a plain hand-written loop of the same networks, in alternating pairs.

    python benchmarks/step.py --plugin image --pairs 30

The plain loop has the same networks, loss, penalties, optimizer and batch, no checks, no keyed randomness, no logging and
no host sync. Printed: samples per second of both, the median ratio, and a 95 % bootstrap interval of the median.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import resource
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.config.load import load_config
from advgen.contracts import Sample
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.step import train_step
from advgen.world import join_world


def score(verdict: object) -> Tensor:
    """(B,) weighted mean score over heads and positions."""
    total = 0.0
    for head in verdict.heads:
        flat = head.scores.flatten(1) if head.scores.dim() > 1 else head.scores[:, None]
        mask = torch.ones_like(flat) if head.mask is None else head.mask.flatten(1).to(flat.dtype)
        total = total + head.weight * (flat * mask).sum(1) / mask.sum(1)
    return total


def pair_cost(one: object, other: object) -> Tensor:
    """Mean relativistic pairing cost; masked positions meet the partner's masked mean."""
    total = 0.0
    for a, b in zip(one.heads, other.heads, strict=True):
        x, y, mask = a.scores, b.scores, None
        if a.mask is not None:
            x, y = fill(x, a.mask), fill(y, b.mask)
            mask = (a.mask | b.mask).to(x.dtype)
        cost = F.softplus(y - x)
        mean = cost.mean() if mask is None else ((cost * mask).sum(1) / mask.sum(1)).mean()
        total = total + a.weight * mean
    return total


def fill(scores: Tensor, mask: Tensor) -> Tensor:
    """Masked positions take the sample's masked mean."""
    mean = (scores * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
    return torch.where(mask, scores, mean)


def plain_step(setup: Setup) -> Callable[[], None]:
    """What a careful person would write by hand: relativistic pairing with R1 and R2."""
    modality, config = setup.modality, setup.config
    generator = copy.deepcopy(setup.players.generator.network)
    critic = copy.deepcopy(setup.players.discriminator.network)
    average = copy.deepcopy(generator).requires_grad_(False)
    optimizers = [
        torch.optim.Adam(net.parameters(), lr=own.learning_rate, betas=own.betas, fused=True)
        for net, own in ((generator, config.generator), (critic, config.discriminator))
    ]
    source, rng, size = setup.corpus.splits["train"], torch.Generator().manual_seed(0), config.train.batch_size
    device = setup.world.device
    state = {"order": torch.randperm(len(source)), "at": 0, "baseline": None}

    def batch() -> object:
        if state["at"] + size > len(source):
            state["order"], state["at"] = torch.randperm(len(source)), 0
        indices = state["order"][state["at"] : state["at"] + size]
        state["at"] += size
        return modality.prepare(source.batch(indices, rng).to(device))

    def discriminator_step() -> None:
        real = batch()
        with torch.no_grad():
            fake = generator(modality.noise(size, rng).to(device), real.condition)
        seen_real = critic.embed(Sample(real.values, mask=real.mask))
        seen_fake = critic.embed(fake)
        seen_real, seen_fake = (x if x.requires_grad else x.requires_grad_() for x in (seen_real, seen_fake))
        on_real, on_fake = critic(seen_real, real.condition, real.mask), critic(seen_fake, real.condition, fake.mask)
        cost = pair_cost(on_real, on_fake)
        if config.discriminator.mismatch:
            others = {name: tensor.roll(-1, 0) for name, tensor in real.condition.items()}
            cost = cost + config.discriminator.mismatch * pair_cost(on_real, critic(seen_real.detach(), others, real.mask))
        for name, verdict, seen in (("r1", on_real, seen_real), ("r2", on_fake, seen_fake)):
            gradient = torch.autograd.grad(score(verdict).sum(), seen, create_graph=True)[0]
            cost = cost + config.penalties[name].amount / 2 * gradient.square().flatten(1).sum(1).mean()
        optimizers[1].zero_grad(set_to_none=True)
        cost.backward()
        clip(critic, config.discriminator)
        optimizers[1].step()

    def generator_step() -> None:
        real = batch()
        critic.requires_grad_(False)
        dense = config.estimator.name == "score_function"
        mode = "log_prob" if dense else "values"
        fake = generator(modality.noise(size, rng, mode=mode).to(device), real.condition, mode=mode)
        with torch.no_grad():
            on_real = critic(critic.embed(Sample(real.values, mask=real.mask)), real.condition, real.mask)
        with torch.set_grad_enabled(not dense):
            on_fake = critic(critic.embed(fake), real.condition, fake.mask)
        cost = policy_cost(fake, on_real, on_fake, real.mask.sum()) if dense else pair_cost(on_fake, on_real)
        if "likelihood" in config.auxiliary:
            nats = modality.likelihood(generator, real)
            cost = cost + config.auxiliary["likelihood"] * (nats * real.mask).sum() / real.mask.sum()
        optimizers[0].zero_grad(set_to_none=True)
        cost.backward()
        clip(generator, config.generator)
        optimizers[0].step()
        critic.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(generator.parameters()), 0.01)

    def policy_cost(fake: Sample, on_real: object, on_fake: object, real_positions: Tensor) -> Tensor:
        mask, discount = fake.mask, config.estimator.discount
        reward = -F.softplus(fill(on_real.heads[0].scores, on_real.heads[0].mask) - fill(on_fake.heads[0].scores, mask)) * mask
        mean = (reward * mask).sum(0) / mask.sum(0).clamp(min=1)
        known = mean if state["baseline"] is None else state["baseline"]
        state["baseline"] = known.lerp(mean, 0.05)
        centred = (reward - known) * mask
        gained, tail = torch.zeros_like(reward), torch.zeros(len(reward))
        for position in reversed(range(reward.shape[1])):
            tail = centred[:, position] + discount * tail
            gained[:, position] = tail
        return -(gained * fake.log_prob * mask).sum() / real_positions

    def step() -> None:
        discriminator_step()
        generator_step()

    return step


def clip(network: torch.nn.Module, settings: object) -> None:
    """Norm clipping, where the configuration has it."""
    if settings.clip.kind == "norm":
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip.limit, foreach=True)


def own_step(setup: Setup) -> Callable[[], None]:
    """advgen's step with its draws and checks."""
    state = {"step": 0}

    def step() -> None:
        train_step(setup.players, setup.objective, setup.draw, state["step"], 0.0)
        state["step"] += 1

    return step


def seconds(step: Callable[[], None], count: int) -> float:
    """Wall time of several steps, until an accelerator has done them too."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    started = time.perf_counter()
    for _ in range(count):
        step()
    wait()
    return time.perf_counter() - started


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[50], medians[1949]


def alternate(
    ours: Callable[[], None],
    plain: Callable[[], None],
    pairs: int,
    steps: int,
    warm_up: int = 3,
    show: Callable[[int], None] = lambda pair: None,
) -> list[tuple[float, float]]:
    """Seconds of ours and of the plain loop, side by side, each first in every other pair; after a warm-up."""
    seconds(ours, warm_up), seconds(plain, warm_up)
    times = []
    for index in range(pairs):
        show(index)
        order = (ours, plain) if index % 2 == 0 else (plain, ours)
        spent = {id(step): seconds(step, steps) for step in order}
        times.append((spent[id(ours)], spent[id(plain)]))
    return times


def summary(times: list[tuple[float, float]], batch: int, steps: int) -> dict[str, object]:
    """Speeds and the median ratio of pairs, with its interval."""
    ratios = [theirs / own for own, theirs in times]
    return {
        "advgen_samples_per_second": batch * steps / statistics.median(own for own, _ in times),
        "plain_samples_per_second": batch * steps / statistics.median(theirs for _, theirs in times),
        "ratio": statistics.median(ratios),
        "ratio_95": list(interval(ratios)),
        "pairs": len(times),
        "steps_a_turn": steps,
        "peak_resident_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def line(row: dict[str, object], name: str) -> str:
    """One row in words."""
    low, high = row["ratio_95"]
    return (
        f"{name}: {row['advgen_samples_per_second']:.3g} against {row['plain_samples_per_second']:.3g} samples/s, "
        f"ratio {row['ratio']:.3f} [{low:.3f}, {high:.3f}], {row['pairs']} pairs, "
        f"peak resident {row['peak_resident_mb']:.0f} MB"
    )


def measure(plugin: str, pairs: int, steps: int, overrides: list[str]) -> dict[str, object]:
    """Ratio advgen / plain of samples per second for one plugin's default."""
    record = find_plugin(plugin)
    config = load_config(record, overrides=overrides, cli={"train.steps": 1000}).config
    setup = build(record, config, join_world("cpu"))
    times = alternate(own_step(setup), plain_step(setup), pairs, steps)
    return {"plugin": plugin, **summary(times, config.train.batch_size, steps)}


def main() -> None:
    """Print one line per plugin, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", action="append", help="default: image, audio and text")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=5, help="steps a turn")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    plugins = arguments.plugin or ("image", "audio", "text")
    rows = [measure(plugin, arguments.pairs, arguments.steps, arguments.overrides) for plugin in plugins]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(line(row, row["plugin"]))


if __name__ == "__main__":
    main()
