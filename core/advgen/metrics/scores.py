"""Scores of generated samples alone, from a classifier's logits. Legend: N samples, K classes."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from advgen.metrics.features import check_features

SPLITS = 10


def classifier_score(logits: Tensor, splits: int = SPLITS) -> float:
    """How sure a classifier is of each sample and how evenly its classes occur; with Inception's logits the inception score.

    exp of the mean divergence from a sample's class probabilities to their mean over its part, averaged over consecutive
    parts. It says nothing about the data, and a set with one perfect sample of each class has the best value.

    Args:
        logits: (N, K).
        splits: parts; fewer where a part would hold fewer than two samples.

    Returns:
        A value in [1, K]; 1 where every sample gets the same probabilities. It falls with the size of the parts.

    Raises:
        DataError: fewer than two samples, or logits that are not finite.

    Source: Salimans et al. 2016, https://arxiv.org/abs/1606.03498
    """
    log_probabilities = check_features(logits, "the classifier's logits as").log_softmax(dim=1)
    num_samples = len(logits)
    parts = max(1, min(splits, num_samples // 2))
    edges = [part * num_samples // parts for part in range(parts + 1)]
    values = [_score(log_probabilities[start:stop]) for start, stop in pairwise(edges)]
    return sum(values) / parts


def _score(log_probabilities: Tensor) -> float:
    mean = torch.logsumexp(log_probabilities, dim=0) - math.log(len(log_probabilities))
    divergence = (log_probabilities.exp() * (log_probabilities - mean)).sum(dim=1)
    return float(divergence.mean().exp())
