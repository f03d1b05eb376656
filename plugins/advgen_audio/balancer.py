"""A balance of costs by the gradients they send to the waveform, so that weights are shares and not units.

Legend: B batch; n norm of a cost's gradient at the output.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from advgen import ConfigError

EPSILON = 1e-12


class GradientBalancer(nn.Module):
    """Named costs of one output -> one scalar to call ``backward`` on, each cost pulling as hard as its weight says.

    A cost's gradient is divided by the running mean of its own norm; its share is its weight over those of all costs given.
    The running means are buffers, so a checkpoint of the module continues them. The scalar's value is the weighted sum of
    the costs, for logs; its gradient at the output is the balanced one. Costs that do not pass through the output (of
    discrete codes, say) are added outside. Each process measures its own share of a batch.

    Args:
        weights: names to shares, each above 0.
        decay: of the running means; they are corrected for their start.
        total: norm of the balanced gradient where all costs agree in direction.

    Source: Defossez et al. 2022 (EnCodec), section 3.4, https://arxiv.org/abs/2210.13438
    """

    sums: Tensor
    counts: Tensor

    def __init__(self, weights: Mapping[str, float], *, decay: float = 0.999, total: float = 1.0) -> None:
        super().__init__()
        if not weights or min(weights.values()) <= 0 or not 0 <= decay < 1:
            raise ConfigError(f"balance of {dict(weights)} with decay {decay}: expected weights above 0 and a decay in [0, 1)")
        self.weights, self.decay, self.total = dict(weights), decay, total
        self.register_buffer("sums", torch.zeros(len(weights)))
        self.register_buffer("counts", torch.zeros(len(weights)))

    def forward(self, costs: Mapping[str, Tensor], output: Tensor) -> Tensor:
        """Balance scalar costs of ``output`` (B, ...), any of those that have a weight.

        Raises:
            ConfigError: where a cost has no weight, or does not depend on the output.
        """
        unknown = sorted(set(costs) - set(self.weights))
        if unknown or not costs:
            raise ConfigError(f"balance got costs {', '.join(unknown) or 'none'}, expected some of {', '.join(self.weights)}")
        share = self.total / sum(self.weights[name] for name in costs)
        balanced = torch.zeros_like(output)
        for name, cost in costs.items():
            gradient = self._gradient(name, cost, output)
            norm = self._running_norm(list(self.weights).index(name), gradient)
            balanced += share * self.weights[name] * gradient / (norm + EPSILON)
        value = torch.stack([self.weights[name] * cost.detach() for name, cost in costs.items()]).sum()
        pull = (output * balanced).sum()
        return value + pull - pull.detach()

    def _gradient(self, name: str, cost: Tensor, output: Tensor) -> Tensor:
        found: Tensor | None = None
        if cost.requires_grad and output.requires_grad:
            (found,) = torch.autograd.grad(cost, output, retain_graph=True, allow_unused=True)
        if found is None:
            raise ConfigError(f"cost {name!r} does not depend on the output, so it cannot be balanced; add it outside")
        return found

    @torch.no_grad()
    def _running_norm(self, index: int, gradient: Tensor) -> Tensor:
        """Mean over time of the mean over the batch of n, the present one included."""
        norm = torch.linalg.vector_norm(gradient.flatten(1).to(self.sums.dtype), dim=1).mean()
        if self.training:
            # One step that is not finite is skipped by the caller; it must not stay in the means.
            finite = norm.isfinite()
            self.sums[index] = torch.where(finite, self.decay * self.sums[index] + norm, self.sums[index])
            self.counts[index] = torch.where(finite, self.decay * self.counts[index] + 1, self.counts[index])
        return torch.where(self.counts[index] > 0, self.sums[index] / self.counts[index].clamp_min(EPSILON), norm)
