"""Distances between two sets of features, and what each says about a generator.

Legend: N generated samples, M real samples, F features. All functions take (N, F) and (M, F) tensors, compute in float64
on the features' device, and know nothing of a modality. Sets may differ in size; every value depends on N and M, so
values compare only at equal counts (the evaluation report states them).
"""

from __future__ import annotations

import torch
from torch import Tensor

from advgen.errors import DataError

KERNEL = "(x.y/F + 1)^3, unbiased, whole sets"
"""How ``kernel_distance`` is computed by default; its size follows the sixth power of the features' scale."""
ROWS = 256
"""Rows of one block of a large matrix."""


def kernel_over_blocks(block: int) -> str:
    """How ``kernel_distance`` is computed in blocks."""
    return KERNEL.replace("whole sets", f"mean over blocks of {block}")


def check_features(features: Tensor, who: str, *, more_than: int = 1) -> Tensor:
    """The features as (N, F) float64, or a refusal that names the side at fault.

    Raises:
        DataError: where the shape is not (N, F), a value is not finite, or there are ``more_than`` rows or fewer.
    """
    if features.ndim != 2 or not features.shape[1]:
        raise DataError(f"{who} features have shape {tuple(features.shape)}, expected (samples, features)")
    if features.shape[0] <= more_than:
        raise DataError(f"{who} features hold {features.shape[0]} samples, expected more than {more_than}; bring or draw more")
    bad = int((~torch.isfinite(features)).any(dim=1).sum())
    if bad:
        raise DataError(
            f"{who} features are not finite in {bad} of {features.shape[0]} samples, expected numbers; "
            "look at those samples for NaN or infinity, and at the run's log for a diverged step"
        )
    return features.detach().to(torch.float64)


def check_pair(generated: Tensor, real: Tensor, *, more_than: int = 1) -> tuple[Tensor, Tensor]:
    """Both sides checked, and of one width.

    Raises:
        DataError: as ``check_features``, and where the widths differ.
    """
    generated = check_features(generated, "generated", more_than=more_than)
    real = check_features(real, "real", more_than=more_than)
    if generated.shape[1] != real.shape[1]:
        raise DataError(
            f"generated features are {generated.shape[1]} wide and real ones {real.shape[1]}, expected the same; "
            "use one judge for both"
        )
    return generated, real


def frechet_distance(*, generated: Tensor, real: Tensor) -> float:
    """Squared 2-Wasserstein distance between the Gaussians fitted to two sets of features; 0 is best.

    The trace of the covariances' square root is the nuclear norm of the product of their triangular factors, so nothing is
    squared and no root of a nearly singular matrix is taken: identical sets give 0 to rounding, even with N < F.

    Args:
        generated: (N, F) features.
        real: (M, F) features.

    Returns:
        A value in [0, inf), in squared feature units; sets that differ by a shift s give exactly |s|^2.

    Raises:
        DataError: fewer than two samples on a side, or features that are not finite.

    Source: Heusel et al. 2017, https://arxiv.org/abs/1706.08500; Dowson and Landau 1982.
    """
    generated, real = check_pair(generated, real)
    shift = (generated.mean(dim=0) - real.mean(dim=0)).square().sum()
    factors = [_covariance_factor(generated), _covariance_factor(real)]
    cross = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    spread = factors[0].square().sum() + factors[1].square().sum() - 2.0 * cross
    return max(0.0, float(shift + spread))


def _covariance_factor(features: Tensor) -> Tensor:
    """R with R^T R the covariance (divided by N - 1); (min(N, F), F)."""
    centred = features - features.mean(dim=0)
    factor: Tensor = torch.linalg.qr(centred / (len(features) - 1) ** 0.5, mode="r").R
    return factor


def kernel_distance(*, generated: Tensor, real: Tensor, block: int | None = None) -> float:
    """Unbiased squared maximum mean discrepancy under the kernel (x.y / F + 1)^3; about 0 is best, may be negative.

    Args:
        generated: (N, F) features.
        real: (M, F) features.
        block: average over consecutive blocks of this many samples, as the published KID does with 1,000;
            None uses the whole sets, which has less variance.

    Returns:
        The distance as it is (many tables print it times 1,000).

    Raises:
        DataError: fewer than two samples on a side (or in a block), or features that are not finite.

    Source: Binkowski et al. 2018 (KID), https://arxiv.org/abs/1801.01401; Gretton et al. 2012.
    """
    generated, real = check_pair(generated, real)
    if block is None:
        return _squared_discrepancy(generated, real)
    smaller = min(len(generated), len(real))
    if not 2 <= block <= smaller:
        raise DataError(
            f"kernel distance was asked for blocks of {block} samples, expected 2 to {smaller}, the smaller set's size"
        )
    starts = range(0, smaller - block + 1, block)
    values = [_squared_discrepancy(generated[i : i + block], real[i : i + block]) for i in starts]
    return sum(values) / len(values)


def _squared_discrepancy(x: Tensor, y: Tensor) -> float:
    within = [(_kernel_sum(z, z) - _kernel_diagonal(z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
    return within[0] + within[1] - 2.0 * _kernel_sum(x, y) / (len(x) * len(y))


def _kernel_sum(x: Tensor, y: Tensor) -> float:
    starts = range(0, len(x), ROWS)
    return float(sum(float((x[i : i + ROWS] @ y.T / x.shape[1] + 1.0).pow(3).sum()) for i in starts))


def _kernel_diagonal(x: Tensor) -> float:
    return float((x.square().mean(dim=1) + 1.0).pow(3).sum())


def vendi_score(features: Tensor) -> float:
    """Effective number of distinct samples: exp of the entropy of the cosine kernel's spectrum, in [1, min(N, F)].

    Raises:
        DataError: fewer than two samples, or features that are not finite.

    Source: Friedman and Dieng 2023, https://arxiv.org/abs/2210.02410
    """
    features = check_features(features, "given")
    unit = features / features.norm(dim=1, keepdim=True).clamp_min(1e-300)
    # The squared singular values are the kernel's non-zero eigenvalues, without the (N, N) matrix.
    shares = torch.linalg.svdvals(unit / len(unit) ** 0.5).square()
    return float(torch.special.entr(shares).sum().exp())
