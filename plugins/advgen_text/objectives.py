"""Losses that published text generators play for, beside those of the core."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen import Loss


def _not_real(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


def _logistic(*, real: Tensor, fake: Tensor) -> Tensor:
    """-log D(real) - log (1 - D(fake)) in nats."""
    return F.softplus(-real) + F.softplus(fake)


def bounded_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """1 - 2 D(fake): a reward in [-1, 1], so that one sentence that D is sure of cannot outweigh a batch.

    Args:
        real: logits of real samples (B, *positions); not used.
        fake: logits of generated samples, same shape.

    Returns:
        Cost per score, same shape, in [-1, 1]; 0 at logit 0.

    Source: d'Autume et al. 2019 (ScratchGAN), https://arxiv.org/abs/1905.09922
    """
    return -torch.tanh(fake / 2)


def _minus_both(*, real: Tensor, fake: Tensor) -> Tensor:
    return -real - fake


def _minus_fake(*, real: Tensor, fake: Tensor) -> Tensor:
    return -fake


BOUNDED = Loss(
    name="bounded",
    summary="Logistic discriminator; the generator's reward is 2 D - 1, so no sample outweighs the batch.",
    discriminator=_logistic,
    generator=bounded_generator,
    pairs=False,
    couples_batch=False,
    tie_discriminator=2 * math.log(2),
    source="d'Autume et al. 2019 (ScratchGAN), https://arxiv.org/abs/1905.09922",
    sides=(_not_real, F.softplus),
    density_ratio=True,
)

COOPERATIVE = Loss(
    name="cooperative",
    summary="Scores are log-probabilities of a mediator, which learns real and generated samples alike by likelihood.",
    discriminator=_minus_both,
    generator=_minus_fake,
    pairs=False,
    couples_batch=False,
    tie_discriminator=0.0,
    source="Lu et al. 2018 (CoT), https://arxiv.org/abs/1804.03782",
    sides=(torch.neg, torch.neg),
    positions_alike=True,
)
