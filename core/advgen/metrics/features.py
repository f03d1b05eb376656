"""Distances between two sets of features, and what each says about a generator.

Legend: N generated samples, M real samples, F features. All functions take (N, F) and (M, F) tensors, compute in float64
on the features' device, and know nothing of a modality. Sets may differ in size; every value depends on N and M, so
values compare only at equal counts (the evaluation report states them).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advgen.errors import DataError

NEIGHBOURS = 5
KERNEL = "(x.y/F + 1)^3, unbiased, whole sets"
"""How ``kernel_distance`` is computed by default; its size follows the sixth power of the features' scale."""
_ROWS = 256


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


def _check_pair(generated: Tensor, real: Tensor, *, more_than: int = 1) -> tuple[Tensor, Tensor]:
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
    generated, real = _check_pair(generated, real)
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
    generated, real = _check_pair(generated, real)
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
    starts = range(0, len(x), _ROWS)
    return float(sum(float((x[i : i + _ROWS] @ y.T / x.shape[1] + 1.0).pow(3).sum()) for i in starts))


def _kernel_diagonal(x: Tensor) -> float:
    return float((x.square().mean(dim=1) + 1.0).pow(3).sum())


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, (rows, M) Euclidean distances) over blocks of x; equal points are at exactly 0."""
    for start in range(0, len(x), _ROWS):
        yield start, torch.cdist(x[start : start + _ROWS], y, compute_mode="donot_use_mm_for_euclid_dist")


def _without_itself(distances: Tensor, start: int) -> Tensor:
    rows = torch.arange(len(distances), device=distances.device)
    distances[rows, rows + start] = torch.inf
    return distances


def neighbour_radii(features: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Distance of each sample to its k-th nearest other sample of the same set, (N,).

    Raises:
        DataError: ``neighbours`` samples or fewer.
    """
    features = check_features(features, "given", more_than=neighbours)
    others = (_without_itself(block, start) for start, block in _distances(features, features))
    return torch.cat([block.kthvalue(neighbours, dim=1).values for block in others])


def precision_recall_density_coverage(*, generated: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """How plausible generated samples are (precision, density) and how much of the data they reach (recall, coverage).

    A sample's ball reaches to its k-th nearest neighbour in its own set, border included. Precision is the share of generated
    samples inside some real ball, recall the share of real samples inside some generated ball, density the mean number of
    real balls around a generated sample divided by k, coverage the share of real balls with a generated sample inside.

    Args:
        generated: (N, F) features.
        real: (M, F) features.
        neighbours: k; both sides need more samples than that.

    Returns:
        ``precision``, ``recall`` and ``coverage`` in [0, 1], ``density`` in [0, N/k]; identical sets give 1, 1, about 1, 1.

    Raises:
        DataError: k samples or fewer on a side, or features that are not finite.

    Source: Kynkäänniemi et al. 2019, https://arxiv.org/abs/1904.06991; Naeem et al. 2020, https://arxiv.org/abs/2002.09797
    """
    generated, real = _check_pair(generated, real, more_than=neighbours)
    real_radii, generated_radii = neighbour_radii(real, neighbours), neighbour_radii(generated, neighbours)
    balls = torch.zeros(len(generated), dtype=torch.float64, device=generated.device)
    recalled, covered = [], []
    for start, block in _distances(real, generated):
        inside = block <= real_radii[start : start + len(block), None]
        balls += inside.sum(dim=0)
        covered.append(inside.any(dim=1))
        recalled.append((block <= generated_radii).any(dim=1))
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": float(torch.cat(recalled).double().mean()),
        "density": float(balls.mean() / neighbours),
        "coverage": float(torch.cat(covered).double().mean()),
    }


def within_class_recall(
    *, generated: Tensor, generated_labels: Tensor, real: Tensor, real_labels: Tensor, neighbours: int = NEIGHBOURS
) -> dict[int, float]:
    """Recall inside each class: finds a generator that makes every class, but always the same sample of it.

    Both sides of a class are cut to the smaller side's count, so that a rare class is judged as strictly as a common one.
    A class with k or fewer generated samples counts 0; one with k or fewer real samples cannot be judged and is left out.

    Args:
        generated: (N, F) features, with ``generated_labels`` (N,) int64.
        real: (M, F) features, with ``real_labels`` (M,) int64.
        neighbours: k.

    Returns:
        Label to recall in [0, 1]; empty where no class has enough real samples.

    Raises:
        DataError: features that are not finite or labels that do not fit them.

    Source: Kynkäänniemi et al. 2019, applied class by class.
    """
    generated, real = _check_pair(generated, real)
    for features, labels, who in ((generated, generated_labels, "generated"), (real, real_labels, "real")):
        if labels.shape != (len(features),):
            raise DataError(f"{who} labels have shape {tuple(labels.shape)}, expected ({len(features)},), one a sample")
    recalls = {}
    for label in sorted(set(real_labels.tolist())):
        own, others = real[real_labels == label], generated[generated_labels == label]
        count = min(len(own), len(others))
        if len(own) > neighbours:
            recalls[int(label)] = _recall(others[:count], own[:count], neighbours) if count > neighbours else 0.0
    return recalls


def _recall(generated: Tensor, real: Tensor, neighbours: int) -> float:
    radii = neighbour_radii(generated, neighbours)
    inside = [(block <= radii).any(dim=1) for _, block in _distances(real, generated)]
    return float(torch.cat(inside).double().mean())


def nearest_neighbours(features: Tensor, others: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distance (N,) and index (N,) int64 of each sample's nearest one in ``others``, or in its own set, itself left out.

    Copies are at exactly 0: to the train split, that is memorisation; to its own set, a repeated sample.

    Raises:
        DataError: an empty side (fewer than two samples when compared with itself), or features that are not finite.
    """
    features = check_features(features, "given", more_than=0 if others is not None else 1)
    references = features if others is None else check_features(others, "reference", more_than=0)
    blocks = _distances(features, references)
    nearest = [(_without_itself(block, start) if others is None else block).min(dim=1) for start, block in blocks]
    return torch.cat([found.values for found in nearest]), torch.cat([found.indices for found in nearest])


def neighbour_distances(features: Tensor, train: Tensor, *, count: int) -> dict[str, float]:
    """Mean distance of samples to their nearest neighbour in the training data, and among themselves.

    Below real data's value, the first says that samples were copied from the training data, the second that they repeat each
    other. Both shrink as sets grow, so the sets that are compared are cut to one ``count`` and share one ``train``.

    Args:
        features: (N, F) of the samples.
        train: (M, F) of training samples.
        count: the first so many samples are used; at least 2.

    Returns:
        ``neighbour_distance_train`` and ``neighbour_distance_within``, Euclidean, in the features' unit; a copy counts 0.

    Raises:
        DataError: fewer than two samples, or features that are not finite.

    Source: Donahue et al. 2019 (WaveGAN), https://arxiv.org/abs/1802.04208
    """
    own = features[:count]
    return {
        "neighbour_distance_train": float(nearest_neighbours(own, train)[0].mean()),
        "neighbour_distance_within": float(nearest_neighbours(own)[0].mean()),
    }


def two_sample_accuracy(*, generated: Tensor, real: Tensor) -> float:
    """How often a sample's nearest other one is of its own kind: 0.5 where the two cannot be told apart.

    Towards 1 the kinds lie apart (either is easily known, or samples repeat each other); below 0.5 generated samples sit on top
    of the real ones they are compared with. Both sides are cut to the smaller one's count; equally near counts half.

    Args:
        generated: (N, F) features.
        real: (M, F) features.

    Raises:
        DataError: fewer than two samples on a side, or features that are not finite.

    Source: leave-one-out nearest neighbours as the classifier of Lopez-Paz and Oquab 2017, https://arxiv.org/abs/1610.06545,
    as in Xu et al. 2018, https://arxiv.org/abs/1806.07755
    """
    count = min(len(generated), len(real))
    one, other = generated[:count], real[:count]
    told = []
    for own, against in ((one, other), (other, one)):
        inside, across = nearest_neighbours(own)[0], nearest_neighbours(own, against)[0]
        told.append((inside < across).double() + 0.5 * (inside == across).double())
    return float(torch.cat(told).mean())


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
