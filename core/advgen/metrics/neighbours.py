"""Neighbours among features: how plausible samples are, how much of the data they reach, what they copy, what tells them apart.

Legend: N generated samples, M real samples, F features. As in ``features``: float64, on the features' device, of no modality.
Distances come from one matrix product a block, ten times faster than differences, in features around their mean; pairs that
are so near that rounding would show are measured again by their difference, so copies lie at exactly 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from advgen.errors import DataError
from advgen.metrics.features import ROWS, check_features, check_pair

NEIGHBOURS = 5
_MOST_NEAR = 16 * ROWS
_NEAR = 1e-6
_ALIKE = 1 + 1e-8
"""Distances whose ratio lies below this are equal: rounding of a product, of at most 1e-15 of squares above ``_NEAR``, does not
decide who lies inside a ball."""


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first row, (rows, M) Euclidean distances) over blocks of x; equal points are at exactly 0."""
    centre = y.mean(dim=0)
    centred = y - centre
    lengths = centred.square().sum(dim=1)
    for start in range(0, len(x), ROWS):
        rows = x[start : start + ROWS]
        moved = rows - centre
        own = moved.square().sum(dim=1, keepdim=True)
        squares = torch.addmm(lengths, moved, centred.T, alpha=-2).add_(own)
        near = (squares <= _NEAR * (own + lengths.max())).nonzero()
        if len(near) > _MOST_NEAR:
            yield start, torch.cdist(rows, y, compute_mode="donot_use_mm_for_euclid_dist")
            continue
        one, other = near.unbind(dim=1)
        squares[one, other] = (rows[one] - y[other]).square().sum(dim=1)
        yield start, squares.sqrt_()


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
    return torch.cat([block.topk(neighbours, dim=1, largest=False).values[:, -1] for block in others])


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
    generated, real = check_pair(generated, real, more_than=neighbours)
    real_radii, generated_radii = (_ALIKE * neighbour_radii(side, neighbours) for side in (real, generated))
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
    generated, real = check_pair(generated, real)
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
    radii = _ALIKE * neighbour_radii(generated, neighbours)
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
        nearer, further = across > inside * _ALIKE, inside > across * _ALIKE
        told.append(0.5 + 0.5 * (nearer.double() - further.double()))
    return float(torch.cat(told).mean())
