"""What a judge sees of samples, and the comparison of two sets of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgen.contracts import Batch, Judge
from advgen.errors import ContractError
from advgen.metrics.features import (
    frechet_distance,
    kernel_distance,
    precision_recall_density_coverage,
    within_class_recall,
)

BLOCK = 256


def compare(judge: Judge, candidate: Batch, real: Batch, names: Any = ()) -> dict[str, Any]:
    """Feature metrics of ``candidate`` against ``real``, and where the judge knows classes, what it recognised.

    Raises:
        DataError: too few samples, or features that are not finite.
    """
    features, real_features = features_of(judge, candidate), features_of(judge, real)
    result: dict[str, Any] = {
        "frechet_distance": frechet_distance(generated=features, real=real_features),
        "kernel_distance": kernel_distance(generated=features, real=real_features),
        **precision_recall_density_coverage(generated=features, real=real_features),
    }
    recognised = _recognised(judge, candidate)
    own = candidate.condition.get("label", recognised)
    if own is not None and "label" in real.condition:
        recalls = within_class_recall(
            generated=features, generated_labels=own, real=real_features, real_labels=real.condition["label"]
        )
        result |= {"within_class_recall": sum(recalls.values()) / len(recalls)} if recalls else {}
    return result | _class_metrics(recognised, candidate.condition.get("label"), names)


def features_of(judge: Judge, batch: Batch) -> Tensor:
    """(N, F) float64 features on the CPU, in blocks so that memory stays small.

    Raises:
        ContractError: where the judge returns another shape.
    """
    blocks = []
    for block in _blocks(batch):
        with torch.no_grad():
            features = judge.features(block)
        if features.ndim != 2 or len(features) != len(block):
            raise ContractError(
                f"judge {judge.name} returned features of shape {tuple(features.shape)}, expected ({len(block)}, features)"
            )
        blocks.append(features.to("cpu", torch.float64))
    return torch.cat(blocks)


def _blocks(batch: Batch) -> list[Batch]:
    return [batch.slice(start, start + BLOCK) for start in range(0, len(batch), BLOCK)]


def _recognised(judge: Judge, batch: Batch) -> Tensor | None:
    """(N,) int64 labels as the judge sees them, or None where the data has none."""
    with torch.no_grad():
        labels = [judge.classify(block) for block in _blocks(batch)]
    known = [label.to("cpu") for label in labels if label is not None]
    return torch.cat(known) if len(known) == len(labels) else None


def _class_metrics(recognised: Tensor | None, asked: Tensor | None, names: Any) -> dict[str, Any]:
    if recognised is None:
        return {}
    counts = torch.bincount(recognised, minlength=len(names)).tolist()
    labels = [str(name) for name in names] + [str(i) for i in range(len(names), len(counts))]
    accuracy = {} if asked is None else {"class_accuracy": float((recognised == asked).double().mean())}
    return {
        **accuracy,
        "num_classes_hit": sum(count > 0 for count in counts),
        "class_histogram": dict(zip(labels, counts, strict=True)),
    }


def judge_accuracy(judge: Judge, held_out: Batch) -> dict[str, float]:
    """``judge_accuracy``: share of real held-out samples that the judge knows, which every other number of it rests on."""
    recognised = _recognised(judge, held_out)
    if recognised is None or "label" not in held_out.condition:
        return {}
    return {"judge_accuracy": float((recognised == held_out.condition["label"].cpu()).double().mean())}
