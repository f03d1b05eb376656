"""Regularisers that remember: what they follow lives in the checkpoint, on the device, and is the same on every rank.

Legend: B batch. Each reads its memory first and moves it once an update is done, with means over the global batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen.world import World

State = dict[str, Tensor]

CONTROLLERS = {
    "lecam": "Scores of real samples stay near the running mean of fake scores, and the reverse: for few data.",
    "path_length": "Steps of one length in G's latent move its samples equally far; for generators with a latent.",
}

LECAM_DECAY = 0.99
LECAM_START = 1000
PATH_LENGTH_RATE = 0.01


def lecam(*, real: Tensor, fake: Tensor, real_mean: Tensor, fake_mean: Tensor, weight: float | Tensor) -> Tensor:
    """Hold each side's scores near the running mean of the other's, so that D cannot memorise few data freely.

    Args:
        real: scores of real samples, (B,).
        fake: scores of generated samples, (B,).
        real_mean: running mean of real scores, scalar, no graph.
        fake_mean: running mean of fake scores, scalar, no graph.
        weight: lambda.

    Returns:
        (B,) cost, at least 0; 0 where real scores are below the fake mean and fake scores above the real mean.

    Source: Tseng et al. 2021 (LeCam), https://arxiv.org/abs/2104.03310
    """
    return weight * (F.relu(real - fake_mean).square() + F.relu(real_mean - fake).square())


def lecam_cost(state: State, real: Tensor, fake: Tensor, weight: float) -> Tensor:
    """Mean cost on one micro-batch, a scalar; 0 for the first updates, while the running means still move far."""
    means = state.get("lecam")
    if means is None:
        return (real.sum() + fake.sum()) * 0.0
    begun = (means[2] >= LECAM_START).to(real.dtype)
    return lecam(real=real, fake=fake, real_mean=means[0], fake_mean=means[1], weight=weight * begun).mean()


@torch.no_grad()
def follow_scores(state: State, real: Tensor, fake: Tensor) -> None:
    """Move LeCam's running means towards the global batch's mean scores, and count the update."""
    now = torch.stack([real.mean(), fake.mean()])
    before = state.get("lecam")
    moved = now if before is None else torch.lerp(now, before[:2], LECAM_DECAY)
    count = now.new_ones(1) if before is None else before[2:] + 1
    after = torch.cat([moved, count])
    # An update that is not finite is not applied, so it must not enter the running means.
    state["lecam"] = torch.where(now.isfinite().all(), after, torch.zeros_like(after) if before is None else before)


def path_length(*, lengths: Tensor, target: Tensor, weight: float) -> Tensor:
    """Squared difference of each sample's path length from the target.

    Args:
        lengths: (B,) from ``Generator.path_lengths``, with their graph.
        target: running mean of the lengths, scalar, no graph.
        weight: of the penalty; the published one is 2.

    Returns:
        (B,) cost, at least 0; 0 where a length is the target.

    Source: Karras et al. 2019 (StyleGAN2), https://arxiv.org/abs/1912.04958
    """
    return weight * (lengths - target).square()


def path_length_cost(state: State, lengths: Tensor, weight: float) -> Tensor:
    """Mean cost on one micro-batch, a scalar."""
    target = state.get("path_length", lengths.new_zeros(()).detach())
    return path_length(lengths=lengths, target=target, weight=weight).mean()


@torch.no_grad()
def follow_lengths(state: State, lengths: Tensor, world: World) -> None:
    """Move the target towards the mean of this rank's ``lengths``, averaged over ranks."""
    mean = world.total(lengths.mean()) / world.size
    target = state.get("path_length", torch.zeros_like(mean))
    state["path_length"] = torch.where(mean.isfinite(), torch.lerp(target, mean, PATH_LENGTH_RATE), target)
