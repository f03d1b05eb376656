"""A balance of G's costs by the gradients that they send to the sample, so that weights are shares and not units.

Legend: B batch; y what G made (B, ...); n norm of one sample's gradient at y.

A cost's gradient at y is divided by the running mean of its own n, and pulls by its share of all. The balanced gradient is that
of a mean over the batch: where all costs agree, each sample's has norm 1, however the batch is cut into parts and ranks.

Source: Defossez et al. 2022 (EnCodec), section 3.4, https://arxiv.org/abs/2210.13438
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advgen.contracts import Sample
from advgen.errors import ConfigError
from advgen.players import Players

DECAY = 0.999
EPSILON = 1e-12


@dataclass(frozen=True)
class Pull:
    """What one micro-batch asks of G.

    Args:
        output: y, with G's graph.
        gradients: names to each sample's own gradient (B, ...) at y.
        outside: the sum of the costs that are not balanced, with its graph; None where there are none.
    """

    output: Tensor
    gradients: Mapping[str, Tensor]
    outside: Tensor | None


def measure(fake: Sample, costs: Mapping[str, Tensor], shares: Mapping[str, float], dtype: torch.dtype) -> Pull:
    """Gradients at the sample of the costs that have a share, each a mean over the batch; the others stay as they are.

    Raises:
        ConfigError: where a balanced cost does not depend on the sample.
    """
    output = fake.values if fake.relaxed is None else fake.relaxed
    gradients = {name: _gradient(name, costs[name].to(dtype), output) * len(output) for name in costs if name in shares}
    others = [cost.to(dtype) for name, cost in costs.items() if name not in shares]
    return Pull(output, gradients, torch.stack(others).sum() if others else None)


def _gradient(name: str, cost: Tensor, output: Tensor) -> Tensor:
    found: Tensor | None = None
    if cost.requires_grad and output.requires_grad:
        (found,) = torch.autograd.grad(cost, output, retain_graph=True, allow_unused=True)
    if found is None:
        raise ConfigError(f"balance.{name}: this cost does not depend on the sample; give it a weight, auxiliary.{name}")
    return found


def balanced_costs(players: Players, pulls: Sequence[Pull], shares: Mapping[str, float]) -> list[Tensor]:
    """One scalar for each micro-batch, to call ``backward`` on: its slope at y is the balanced one. Moves the running means."""
    norms = _running_norms(players, pulls)
    whole = sum(shares[name] for name in norms)
    scales = {name: shares[name] / whole / (norm + EPSILON) for name, norm in norms.items()}
    return [_balanced(pull, scales) for pull in pulls]


def _balanced(pull: Pull, scales: Mapping[str, Tensor]) -> Tensor:
    parts = [scales[name] * gradient.to(scales[name].dtype) for name, gradient in pull.gradients.items()]
    slope = torch.stack(parts).sum(0)
    cost = (pull.output.to(slope.dtype) * slope).sum() / len(slope)
    return cost if pull.outside is None else cost + pull.outside


@torch.no_grad()
def _running_norms(players: Players, pulls: Sequence[Pull]) -> dict[str, Tensor]:
    """Means over updates, this one included, of the mean over the global batch of n; corrected for their start."""
    found, count = dict[str, Tensor](), players.world.size * sum(len(pull.output) for pull in pulls)
    for name in pulls[0].gradients:
        norms = [torch.linalg.vector_norm(p.gradients[name].flatten(1).to(players.dtype), dim=1).sum() for p in pulls]
        norm = players.world.total(torch.stack(norms).sum()) / count
        known = players.state.get(f"balance.{name}", norm.new_zeros(2))  # sum, and how many updates it stands for
        moved = DECAY * known + torch.stack([norm, torch.ones_like(norm)])
        # An update that is not finite is not applied, and must not stay in the means either.
        players.state[f"balance.{name}"] = torch.where(norm.isfinite(), moved, known)
        found[name] = moved[0] / moved[1]
    return found
