"""Gradient penalties on the discriminator, one table.

Legend: B batch. A judge maps what the discriminator sees, (B, ...), to its verdict, with condition and mask filled in.
The scalar that is differentiated is the verdict reduced as costs are: mean over valid positions, weighted sum over heads.
Gradients are taken per sample, so no layer may mix samples of a batch (BatchNorm); where a discriminator judges groups of
samples together (minibatch deviation), the gradient is that of the group's summed scores. Regularisers with a memory:
``controllers``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from advgen.contracts import Verdict
from advgen.controllers import CONTROLLERS
from advgen.errors import ConfigError, ContractError, nearest
from advgen.reduction import reduce_verdict
from advgen.updates.judging import Judge

JudgeCall = Callable[[Tensor], Verdict]

# Inside the root of a norm, where the slope would be infinite at 0.
EPSILON = 1e-12


class Compute(Protocol):
    """Penalty per sample, (B,), with its weight."""

    def __call__(
        self, *, judge_real: JudgeCall, judge_fake: JudgeCall, real: Tensor, fake: Tensor, weight: float, noise: Tensor
    ) -> Tensor: ...


@dataclass(frozen=True)
class Penalty:
    """One gradient penalty.

    Args:
        compute: penalty per sample.
        needs: which samples it looks at.
        source: paper, year, link.
        couples_batch: it measures the whole batch, so ``compute`` takes ``move`` too: (B, ...) like what D sees of real
            samples, uniform up to half the standard deviation over the global batch. It cannot accumulate.
    """

    name: str
    summary: str
    compute: Compute
    needs: Literal["real", "fake", "both"]
    source: str
    couples_batch: bool = False


def _squared_gradient(judge: JudgeCall, seen: Tensor) -> Tensor:
    """Squared norm of each sample's score gradient at ``seen``, (B,), with a graph to the judge's parameters.

    A tensor that requires gradients is judged as it is, because the judge may know this very tensor's verdict, or its slope.
    """
    gradient = judge.known_gradient(seen) if isinstance(judge, Judge) else None
    gradient = _gradient(judge, seen) if gradient is None else gradient
    if gradient is None:
        raise ContractError(
            f"the discriminator's scores do not depend on the {tuple(seen.shape)} tensor it was given, so a gradient "
            "penalty has nothing to differentiate; use the input, without detach or no_grad, or remove the penalty"
        )
    return gradient.flatten(1).square().sum(1)


def _gradient(judge: JudgeCall, seen: Tensor) -> Tensor | None:
    with torch.enable_grad():
        seen = seen if seen.requires_grad else seen.detach().requires_grad_()
        scores = reduce_verdict(judge(seen)).sum()
        if not scores.requires_grad:
            return None
        gradient: Tensor | None = torch.autograd.grad(scores, seen, create_graph=True, allow_unused=True)[0]
    return gradient


def _squared_distance_from_one(judge: JudgeCall, seen: Tensor) -> Tensor:
    return ((_squared_gradient(judge, seen) + EPSILON).sqrt() - 1).square()


def _per_sample(noise: Tensor, like: Tensor) -> Tensor:
    """Noise (B,) shaped to multiply (B, ...)."""
    if noise.shape != like.shape[:1]:
        raise ContractError(f"penalty noise of shape {tuple(noise.shape)}, expected ({len(like)},): one number per sample")
    return noise.to(like.dtype).reshape(-1, *[1] * (like.dim() - 1))


def r1(*, judge_real: JudgeCall, judge_fake: JudgeCall, real: Tensor, fake: Tensor, weight: float, noise: Tensor) -> Tensor:
    """Half the squared score gradient at real samples: keeps D flat where the data is.

    Args:
        judge_real: the discriminator under the real samples' condition and mask.
        judge_fake: not used.
        real: what D sees of real samples, (B, ...).
        fake: not used.
        weight: gamma.
        noise: not used.

    Returns:
        (B,) weight / 2 * squared norm; 0 where D is constant.

    Source: Mescheder et al. 2018, https://arxiv.org/abs/1801.04406
    """
    return 0.5 * weight * _squared_gradient(judge_real, real)


def r2(*, judge_real: JudgeCall, judge_fake: JudgeCall, real: Tensor, fake: Tensor, weight: float, noise: Tensor) -> Tensor:
    """Half the squared score gradient at generated samples: with R1, the pair that relativistic pairing needs.

    Args:
        judge_real: not used.
        judge_fake: the discriminator under the fake samples' condition and mask.
        real: not used.
        fake: what D sees of generated samples, (B, ...), cut from the generator by the caller.
        weight: gamma.
        noise: not used.

    Returns:
        (B,) weight / 2 * squared norm; 0 where D is constant.

    Source: Mescheder et al. 2018, https://arxiv.org/abs/1801.04406; Huang et al. 2024, https://arxiv.org/abs/2501.05441
    """
    return 0.5 * weight * _squared_gradient(judge_fake, fake)


def wgan_gp(
    *, judge_real: JudgeCall, judge_fake: JudgeCall, real: Tensor, fake: Tensor, weight: float, noise: Tensor
) -> Tensor:
    """Hold the score's gradient norm at 1 on lines between real and generated samples.

    Args:
        judge_real: the discriminator under the real samples' condition and mask; it judges the mixtures too.
        judge_fake: not used.
        real: what D sees of real samples, (B, ...).
        fake: what D sees of generated samples, same shape.
        weight: lambda.
        noise: (B,) in [0, 1], the share of the real sample.

    Returns:
        (B,) weight * (norm - 1)^2; weight where D is constant.

    Source: Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028
    """
    if real.shape != fake.shape:
        raise ContractError(f"wgan_gp mixes real {tuple(real.shape)} with fake {tuple(fake.shape)}; expected the same shape")
    share = _per_sample(noise, real)
    return weight * _squared_distance_from_one(judge_real, share * real.detach() + (1 - share) * fake.detach())


def dragan(
    *,
    judge_real: JudgeCall,
    judge_fake: JudgeCall,
    real: Tensor,
    fake: Tensor,
    weight: float,
    noise: Tensor,
    move: Tensor | None = None,
) -> Tensor:
    """Hold the score's gradient norm at 1 around real samples.

    Args:
        judge_real: the discriminator under the real samples' condition and mask.
        judge_fake: not used.
        real: what D sees of real samples, (B, ...).
        fake: not used.
        weight: lambda.
        noise: (B,) in [0, 1], how much of the move each sample makes.
        move: (B, ...) the full move, uniform up to half the global batch's standard deviation; left out, it is drawn
            here, from this batch and the global random state.

    Returns:
        (B,) weight * (norm - 1)^2; weight where D is constant.

    Source: Kodali et al. 2017, https://arxiv.org/abs/1705.07215
    """
    real = real.detach()
    move = 0.5 * real.std(correction=0) * torch.rand_like(real) if move is None else move
    return weight * _squared_distance_from_one(judge_real, real + _per_sample(noise, real) * move)


_TABLE = (
    Penalty("r1", "Flat where the data is.", r1, "real", "Mescheder et al. 2018, https://arxiv.org/abs/1801.04406"),
    Penalty("r2", "Flat where the generator is.", r2, "fake", "Mescheder et al. 2018, https://arxiv.org/abs/1801.04406"),
    Penalty(
        "wgan_gp",
        "Slope 1 between data and generator.",
        wgan_gp,
        "both",
        "Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028",
    ),
    Penalty(
        "dragan",
        "Slope 1 around the data.",
        dragan,
        "real",
        "Kodali et al. 2017, https://arxiv.org/abs/1705.07215",
        couples_batch=True,
    ),
)

PENALTIES: dict[str, Penalty] = {penalty.name: penalty for penalty in _TABLE}


def get_penalty(name: str, table: Mapping[str, Penalty] = PENALTIES) -> Penalty:
    """Return the penalty of that name, from the core or from a ``table`` that includes a plugin's own.

    Raises:
        ConfigError: with the known names and the nearest.
    """
    if name not in table:
        raise ConfigError(f"penalty {name!r} is unknown; {nearest(name, [*table, *CONTROLLERS])}")
    return table[name]


def plays(name: str) -> Literal["generator", "discriminator"]:
    """Whose penalty that is."""
    return "generator" if name == "path_length" else "discriminator"
