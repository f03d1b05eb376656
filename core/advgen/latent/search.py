"""The latent that reproduces a given sample, found by optimisation. Legend: B candidates in parallel.

How near two samples are is measured by what the run's own discriminator sees inside, so that nothing has to be fetched, and by
their values. Both are relative to the target: 1 is as far as nothing is from it.

Source: Karras et al. 2019 (StyleGAN2, appendix D: search, noise, rates), https://arxiv.org/abs/1912.04958; Larsen et al.
2015 (the discriminator's features as a measure), https://arxiv.org/abs/1512.09300
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advgen.contracts import Batch, Discriminator, Sample
from advgen.errors import ConfigError
from advgen.latent.space import Place, Space
from advgen.randomness import keyed_generator, untouched

CANDIDATES = 64
NOISE_STRENGTH, NOISE_UNTIL = 0.05, 0.75
RAMP_UP, RAMP_DOWN = 0.05, 0.25
BETAS = (0.9, 0.999)
PULL_WEIGHT = 0.1
"""Of the mean square of noise above 1, which normal noise seldom has and G has not learned from."""
NUM_SHOWN = 8
SMALLEST = 1e-12


@dataclass(frozen=True)
class Search:
    """How the latent is sought.

    Args:
        steps: updates of each candidate.
        starts: how many of the nearest samples are improved side by side.
        seed: of the candidates and of the noise.
        label: the class; None: the classes of the nearest samples.
        learning_rate: in units of the latent's own spread.
        value_weight: of the distance of values beside that of features.
    """

    steps: int = 400
    starts: int = 4
    seed: int = 0
    label: int | None = None
    learning_rate: float = 0.1
    value_weight: float = 1.0

    def check(self) -> None:
        """Refuse numbers that no search has.

        Raises:
            ConfigError: naming the option.
        """
        if self.steps < 1 or not 1 <= self.starts <= CANDIDATES:
            raise ConfigError(
                f"--steps {self.steps} --starts {self.starts}: expected at least one step, and 1 to {CANDIDATES} starts"
            )
        if not (self.learning_rate > 0 and self.value_weight >= 0):
            raise ConfigError(
                f"--learning-rate {self.learning_rate:g} --value-weight {self.value_weight:g}: expected a positive rate and a "
                "weight of 0 or more"
            )


@dataclass(frozen=True)
class Distances:
    """How far each of B samples is from the target, (B,) each; 0 is the target itself."""

    features: Tensor
    values: Tensor

    def total(self, value_weight: float) -> Tensor:
        """What the search makes small."""
        return self.features + value_weight * self.values

    def row(self, index: int) -> dict[str, float]:
        """JSON-able."""
        return {"features": float(self.features[index].detach()), "values": float(self.values[index].detach())}


class Measure:
    """Distances from one target in the eyes of one discriminator, which is in evaluation mode and learns nothing."""

    def __init__(self, discriminator: Discriminator, target: Batch) -> None:
        self.discriminator, self.target = discriminator, target
        with torch.no_grad():
            self.seen = self._features(Sample(target.values, mask=target.mask), target.condition)

    def __call__(self, sample: Sample, condition: Mapping[str, Tensor]) -> Distances:
        """Mean over the layers that D shows, and the values' own, each relative to the target's."""
        layers = [_relative(mine, its) for mine, its in zip(self._features(sample, condition), self.seen, strict=True)]
        values = _relative(sample.values, self.target.values)
        return Distances(torch.stack(layers).mean(0) if layers else torch.zeros_like(values), values)

    def _features(self, sample: Sample, condition: Mapping[str, Tensor]) -> list[Tensor]:
        verdict = self.discriminator(self.discriminator.embed(sample), condition, sample.mask)
        return [layer for head in verdict.heads for layer in head.features]


def _relative(mine: Tensor, its: Tensor) -> Tensor:
    """(B, ...) against (1, ...) -> (B,): squared error over the target's own square."""
    error = (mine - its).flatten(1).square().sum(1)
    return error / its.flatten(1).square().sum(1).clamp_min(SMALLEST)


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Args:
        distances: by name: ``found``, ``nearest`` (the best of the candidates, where it began) and ``typical`` (their median).
        path: places on the way, the start first and the found one last.
    """

    place: Place
    distances: Mapping[str, Mapping[str, float]]
    path: tuple[Place, ...]


def search(space: Space, measure: Measure, wanted: Search, say: Any = None) -> Found:
    """Improve the nearest samples step by step; the best of all is found.

    The step size rises and falls, and the latents are shaken less and less until the last quarter, so that the search leaves
    small dents of its landscape. What is found is never worse than the nearest candidate.
    """
    for parameter in space.generator.parameters():
        parameter.requires_grad_(False)
    with untouched(space.device):
        latent, condition, begun, spread = _begin(space, measure, wanted)
        best, path = _descend(space, measure, wanted, (latent, condition, spread), say)
    return Found(best[0], {**begun, "found": best[1]}, tuple(path))


def _begin(
    space: Space, measure: Measure, wanted: Search
) -> tuple[Tensor, dict[str, Tensor], dict[str, dict[str, float]], Tensor]:
    """The nearest of some samples, their conditions, how near they are, and the spread of the latents' numbers."""
    places = [space.place(_seed(wanted.seed, index), wanted.label) for index in range(CANDIDATES)]
    latents = torch.cat([place.latent for place in places])
    conditions = {name: torch.cat([place.condition[name] for place in places]) for name in places[0].condition}
    with torch.no_grad():
        rows = [measure(space.generator.render(place.latent, place.condition), place.condition) for place in places]
    distances = Distances(torch.cat([row.features for row in rows]), torch.cat([row.values for row in rows]))
    order = distances.total(wanted.value_weight).argsort()
    begun = {"nearest": distances.row(int(order[0])), "typical": distances.row(int(order[CANDIDATES // 2]))}
    chosen = order[: wanted.starts]
    spread = latents.std(0).mean().clamp_min(SMALLEST)
    return latents[chosen].clone(), {name: value[chosen] for name, value in conditions.items()}, begun, spread


def _seed(seed: int, index: int) -> int:
    return seed * CANDIDATES + index


def _descend(
    space: Space, measure: Measure, wanted: Search, start: tuple[Tensor, dict[str, Tensor], Tensor], say: Any
) -> tuple[tuple[Place, dict[str, float]], list[Place]]:
    """The best place with its distances, and places on the way of the row that it is on."""
    latent, condition, spread = start[0].requires_grad_(), start[1], start[2]
    optimizer = torch.optim.Adam([latent], betas=BETAS)
    rng = keyed_generator(wanted.seed, "projection")
    kept, way = _Best(latent, condition), list[Tensor]()
    shown = {round(index * wanted.steps / (NUM_SHOWN - 1)) for index in range(NUM_SHOWN - 1)}
    for step in range(wanted.steps):
        share = step / wanted.steps
        if step in shown:
            way.append(latent.detach().clone())
        shake = 0.0 if step == 0 else float(spread) * NOISE_STRENGTH * max(0.0, 1.0 - share / NOISE_UNTIL) ** 2
        moved = latent + shake * torch.randn(latent.shape, generator=rng).to(latent)
        distances = measure(space.generator.render(moved, condition), condition)
        cost = distances.total(wanted.value_weight)
        if not shake:
            kept.take(latent, distances, cost)
        if say is not None:
            say(step, float(cost.detach().min()))
        optimizer.param_groups[0]["lr"] = wanted.learning_rate * float(spread) * pace((step + 0.5) / wanted.steps)
        optimizer.zero_grad()
        (cost + _pull(space, latent)).sum().backward()
        optimizer.step()
    with torch.no_grad():
        distances = measure(space.generator.render(latent, condition), condition)
        kept.take(latent, distances, distances.total(wanted.value_weight))
    row, place = kept.row, kept.place
    return (place, kept.distances), [*(Place(each[row : row + 1], place.condition) for each in way), place]


def pace(share: float) -> float:
    """The step size, 0 to 1, at a share of the search: rises over the first twentieth, falls over the last quarter."""
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - share) / RAMP_DOWN))
    return down * min(1.0, share / RAMP_UP)


def _pull(space: Space, latent: Tensor) -> Tensor:
    """(B,) the cost of noise that is larger than normal noise is; behind a mapping network there is none."""
    if space.generator.mapped:
        return latent.new_zeros(len(latent))
    return PULL_WEIGHT * (latent.flatten(1).square().mean(1) - 1.0).clamp_min(0.0)


class _Best:
    """The nearest place so far, over all rows."""

    def __init__(self, latent: Tensor, condition: Mapping[str, Tensor]) -> None:
        self.condition, self.cost, self.row = condition, math.inf, 0
        self.place, self.distances = Place(latent.detach()[:1], condition), dict[str, float]()

    def take(self, latent: Tensor, distances: Distances, cost: Tensor) -> None:
        """Keep the best row where it beats what is kept; what is not finite never does."""
        costs = cost.detach().nan_to_num(math.inf)
        row = int(costs.argmin())
        if float(costs[row]) >= self.cost:
            return
        self.row, self.cost, self.distances = row, float(costs[row]), distances.row(row)
        own = {name: value[row : row + 1] for name, value in self.condition.items()}
        self.place = Place(latent.detach()[row : row + 1].clone(), own)
