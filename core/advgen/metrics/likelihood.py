"""How likely held-out data are under a generator, and its own samples. Legend: B samples, L positions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from advgen.contracts import Batch, Generator, Modality
from advgen.errors import ConfigError
from advgen.metrics.judging import blocks_of


@torch.no_grad()
def likelihood_metrics(modality: Modality[Any], generator: Generator, held_out: Batch, generated: Batch) -> dict[str, float]:
    """Mean negative log-likelihoods in nats, for a generator that has one; nothing for others.

    Returns:
        ``nll_test``: of held-out data, a valid position; ``nll_test_padded``: the same sum over all positions of the padded
        batch, as some published tables have it, which is smaller; ``nll_div``: of its own samples, a valid position, low where
        they vary little.
    """
    if type(modality).likelihood is Modality.likelihood:
        return {}
    device = next(generator.parameters()).device
    try:
        test = _sums(functools.partial(modality.likelihood, generator), held_out, device)
        own = _sums(functools.partial(modality.likelihood_of_draws, generator), generated, device)
    except ConfigError:  # a modality may have generators with and without
        return {}
    return {"nll_test": test[0] / test[1], "nll_test_padded": test[0] / test[2], "nll_div": own[0] / own[1]}


def _sums(likelihood: Callable[[Batch], Tensor], batch: Batch, device: torch.device) -> tuple[float, float, float]:
    """Nats, valid positions and all positions of a batch."""
    nats, valid, padded = 0.0, 0.0, 0.0
    for block in blocks_of(batch):
        costs = likelihood(block.to(device)).double()
        mask = torch.ones_like(costs) if block.mask is None else block.mask.to(costs)
        nats, valid, padded = nats + float((costs * mask).sum()), valid + float(mask.sum()), padded + costs.numel()
    return nats, valid, padded
