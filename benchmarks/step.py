"""Training speed of advgen against a plain hand-written loop of the same networks, in alternating pairs.

    python benchmarks/step.py --plugin image --pairs 30
    python benchmarks/step.py --device cuda --pairs 30 --steps 10

The plain loop has the same networks, loss, penalties, optimizer and batch, no checks, no keyed randomness, no logging and
no host sync. Printed: samples per second of both, the median ratio, and a 95 % bootstrap interval of the median.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.config.load import load_config
from advgen.contracts import Batch, Sample, Verdict
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.step import train_step
from advgen.world import join_world


def score(verdict: Verdict) -> Tensor:
    """(B,) weighted mean score over heads and positions."""
    total = 0.0
    for head in verdict.heads:
        flat = head.scores.flatten(1) if head.scores.dim() > 1 else head.scores[:, None]
        mask = torch.ones_like(flat) if head.mask is None else head.mask.flatten(1).to(flat.dtype)
        total = total + head.weight * (flat * mask).sum(1) / mask.sum(1)
    return total


def pair_cost(one: Verdict, other: Verdict) -> Tensor:
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


class PlainLoop:
    """What a careful person would write by hand: relativistic pairing with R1 and R2, dense rewards for text."""

    def __init__(self, setup: Setup) -> None:
        self.modality, self.config = setup.modality, setup.config
        self.device, self.precision = setup.world.device, setup.players.precision
        self.generator = copy.deepcopy(setup.players.generator.network)
        self.critic = copy.deepcopy(setup.players.discriminator.network)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.optimizers = [
            torch.optim.Adam(net.parameters(), lr=own.learning_rate, betas=own.betas, fused=True)
            for net, own in ((self.generator, self.config.generator), (self.critic, self.config.discriminator))
        ]
        self.source, self.rng = setup.corpus.splits["train"], torch.Generator().manual_seed(0)
        self.size, self.order, self.at, self.baseline = self.config.train.batch_size, torch.arange(0), 0, None

    def __call__(self) -> None:
        self.discriminator_step()
        self.generator_step()

    def batch(self) -> Batch:
        """The next real samples, in an order that is drawn anew each time round."""
        if self.at + self.size > len(self.order):
            self.order, self.at = torch.randperm(len(self.source)), 0
        indices = self.order[self.at : self.at + self.size]
        self.at += self.size
        return self.modality.prepare(self.source.batch(indices, self.rng).to(self.device))

    def noise(self, mode: str = "values") -> Tensor:
        """For a batch of generated samples."""
        return self.modality.noise(self.size, self.rng, mode=mode).to(self.device)

    def discriminator_step(self) -> None:
        """D on real and on generated samples, one pass each, and the slope of each."""
        real, critic = self.batch(), self.critic
        with torch.no_grad(), self.precision():
            fake = self.generator(self.noise(), real.condition)
        with self.precision():
            seen = critic.embed(Sample(real.values, mask=real.mask)), critic.embed(fake)
            seen_real, seen_fake = (x if x.requires_grad else x.requires_grad_() for x in seen)
            on_real, on_fake = critic(seen_real, real.condition, real.mask), critic(seen_fake, real.condition, fake.mask)
        cost = pair_cost(on_real, on_fake)
        if self.config.discriminator.mismatch:
            others = {name: tensor.roll(-1, 0) for name, tensor in real.condition.items()}
            mismatched = critic(seen_real.detach(), others, real.mask)
            cost = cost + self.config.discriminator.mismatch * pair_cost(on_real, mismatched)
        for name, verdict, each in (("r1", on_real, seen_real), ("r2", on_fake, seen_fake)):
            gradient = torch.autograd.grad(score(verdict).sum(), each, create_graph=True)[0]
            cost = cost + self.config.penalties[name].amount / 2 * gradient.square().flatten(1).sum(1).mean()
        self.optimizers[1].zero_grad(set_to_none=True)
        cost.backward()
        clip(critic, self.config.discriminator)
        self.optimizers[1].step()

    def generator_step(self) -> None:
        """G on a fresh draw, and its average."""
        self.critic.requires_grad_(False)
        real = self.batch()
        with self.precision():
            cost = self.generator_cost(real)
        self.optimizers[0].zero_grad(set_to_none=True)
        cost.backward()
        clip(self.generator, self.config.generator)
        self.optimizers[0].step()
        self.critic.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 0.01)

    def generator_cost(self, real: Batch) -> Tensor:
        """The pairing cost, or that of dense rewards with the likelihood anchor."""
        critic, dense = self.critic, self.config.estimator.name == "score_function"
        mode = "log_prob" if dense else "values"
        fake = self.generator(self.noise(mode), real.condition, mode=mode)
        with torch.no_grad():
            on_real = critic(critic.embed(Sample(real.values, mask=real.mask)), real.condition, real.mask)
        with torch.set_grad_enabled(not dense):
            on_fake = critic(critic.embed(fake), real.condition, fake.mask)
        cost = self.policy_cost(fake, on_real, on_fake, real.mask.sum()) if dense else pair_cost(on_fake, on_real)
        if "likelihood" in self.config.auxiliary:
            nats = self.modality.likelihood(self.generator, real)
            cost = cost + self.config.auxiliary["likelihood"] * (nats * real.mask).sum() / real.mask.sum()
        return cost

    def policy_cost(self, fake: Sample, on_real: Verdict, on_fake: Verdict, real_positions: Tensor) -> Tensor:
        """Rewards to go of each drawn token, less a moving average of each position's reward."""
        mask, discount = fake.mask, self.config.estimator.discount
        reward = -F.softplus(fill(on_real.heads[0].scores, on_real.heads[0].mask) - fill(on_fake.heads[0].scores, mask)) * mask
        mean = (reward * mask).sum(0) / mask.sum(0).clamp(min=1)
        known = mean if self.baseline is None else self.baseline
        self.baseline = known.lerp(mean, 0.05)
        centred = (reward - known) * mask
        gained, tail = torch.zeros_like(reward), reward.new_zeros(len(reward))
        for position in reversed(range(reward.shape[1])):
            tail = centred[:, position] + discount * tail
            gained[:, position] = tail
        return -(gained * fake.log_prob * mask).sum() / real_positions


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
        "peak_resident_mb": peak_resident_mb(),
    }


def peak_resident_mb() -> float:
    """Return the most memory that this process had in MB; NaN on Windows, which does not report it."""
    try:
        import resource
    except ImportError:
        return math.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


def line(row: dict[str, object], name: str) -> str:
    """One row in words."""
    low, high = row["ratio_95"]
    return (
        f"{name}: {row['advgen_samples_per_second']:.3g} against {row['plain_samples_per_second']:.3g} samples/s, "
        f"ratio {row['ratio']:.3f} [{low:.3f}, {high:.3f}], {row['pairs']} pairs, "
        f"peak resident {row['peak_resident_mb']:.0f} MB"
    )


def measure(plugin: str, pairs: int, steps: int, overrides: list[str], device: str) -> dict[str, object]:
    """Ratio advgen / plain of samples per second for one plugin's default."""
    record = find_plugin(plugin)
    config = load_config(record, overrides=overrides, cli={"train.steps": 1000}).config
    setup = build(record, config, join_world(device))
    times = alternate(own_step(setup), PlainLoop(setup), pairs, steps)
    return {"plugin": plugin, **summary(times, config.train.batch_size, steps)}


def main() -> None:
    """Print one line per plugin, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", action="append", help="default: image, audio and text")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=5, help="steps a turn")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto (cpu)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    plugins = arguments.plugin or ("image", "audio", "text")
    rows = [measure(plugin, arguments.pairs, arguments.steps, arguments.overrides, arguments.device) for plugin in plugins]
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(line(row, row["plugin"]))


if __name__ == "__main__":
    main()
