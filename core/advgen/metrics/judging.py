"""What a judge sees of samples, and the comparison of two sets of them. Legend: N samples, F features, K classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advgen.blame import kind_of
from advgen.border import refusal
from advgen.contracts import Batch, Judge
from advgen.errors import ContractError
from advgen.faults import labels_fault, shape_fault
from advgen.metrics.comparison import USUAL, Comparison
from advgen.metrics.features import frechet_distance, kernel_distance
from advgen.metrics.neighbours import precision_recall_density_coverage, two_sample_accuracy, within_class_recall
from advgen.metrics.scores import classifier_score

BLOCK = 256


@dataclass(frozen=True)
class View:
    """What a judge made of samples, on the CPU.

    Args:
        seen: (N, F) features as the judge returned them.
        logits: (N, K) scores of its own classes, or None where it has none.
        recognised: (N,) int64 class of the data, or None where it knows none.
        labels: (N,) int64 class that the samples came with, or None.
    """

    seen: Tensor
    logits: Tensor | None = None
    recognised: Tensor | None = None
    labels: Tensor | None = None

    @property
    def features(self) -> Tensor:
        """(N, F) float64, which every metric is computed in."""
        return self.seen.to(torch.float64)


def see(judge: Judge, batch: Batch) -> View:
    """The judge's view of a batch, in blocks so that memory stays small.

    Raises:
        ContractError: where the judge returns another shape.
    """
    seen = [_see_block(judge, block) for block in blocks_of(batch)]
    features, logits, recognised = (_joined(parts) for parts in zip(*seen, strict=True))
    if features is None:
        raise ContractError(f"judge {judge.name} returned no features")
    label = batch.condition.get("label")
    return View(features, logits, recognised, None if label is None else label.cpu())


def _see_block(judge: Judge, block: Batch) -> tuple[Tensor, Tensor | None, Tensor | None]:
    both: Callable[[Batch], tuple[Tensor, Tensor | None]] | None = getattr(judge, "features_and_logits", None)
    with torch.no_grad():
        found: Any = (judge.features(block), None) if both is None else both(block)
        if not isinstance(found, tuple) or len(found) != 2:
            raise _refusal(judge, "features_and_logits", f"{kind_of(found)}, expected features and logits, or None for these")
        features, logits = found
        recognised = judge.classify(block)
    if fault := shape_fault(features, (len(block),), "F"):
        raise _refusal(judge, "features" if both is None else "features_and_logits", fault)
    if logits is not None and (fault := shape_fault(logits, (len(block),), "K")):
        raise _refusal(judge, "features_and_logits", f"logits that are {fault}")
    if recognised is not None and (fault := labels_fault(recognised, len(block))):
        raise _refusal(judge, "classify", fault)
    return features, logits, recognised


def _refusal(judge: Judge, method: str, fault: str) -> ContractError:
    return refusal(getattr(judge, method), f"returned {fault}", type(judge), method)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    known = [part.to("cpu") for part in parts if part is not None]
    return torch.cat(known) if len(known) == len(parts) else None


def blocks_of(batch: Batch) -> list[Batch]:
    """The batch in blocks that a judge takes at a time."""
    return [batch.slice(start, start + BLOCK) for start in range(0, len(batch), BLOCK)]


def compare(judge: Judge, candidate: Batch, real: Batch, names: Any = ()) -> dict[str, Any]:
    """Feature metrics of ``candidate`` against ``real``, and where the judge knows classes, what it recognised.

    Raises:
        DataError: too few samples, or features that are not finite.
    """
    return compare_views(see(judge, candidate), see(judge, real), score_name(judge), names)


def compare_views(candidate: View, real: View, score: str, names: Any = (), comparison: Comparison = USUAL) -> dict[str, Any]:
    """``compare`` of what the judge has already seen; ``score`` names the score of its logits."""
    features, real_features, neighbours = candidate.features, real.features, comparison.neighbours
    result: dict[str, Any] = {
        "frechet_distance": frechet_distance(generated=features, real=real_features),
        "kernel_distance": kernel_distance(generated=features, real=real_features, block=comparison.kid_block),
        **precision_recall_density_coverage(generated=features, real=real_features, neighbours=neighbours),
        "two_sample_accuracy": two_sample_accuracy(generated=features, real=real_features),
    }
    if candidate.logits is not None:
        result[score] = classifier_score(candidate.logits)
    own = candidate.recognised if candidate.labels is None else candidate.labels
    if own is not None and real.labels is not None:
        sides = {"generated": features, "generated_labels": own, "real": real_features, "real_labels": real.labels}
        recalls = within_class_recall(**sides, neighbours=neighbours)
        result |= {"within_class_recall": sum(recalls.values()) / len(recalls)} if recalls else {}
    return result | _class_metrics(candidate.recognised, candidate.labels, names)


def score_name(judge: Judge) -> str:
    """What the score of the judge's logits is called: numbers of different classifiers are not to be confused."""
    return str(getattr(judge, "score_name", "classifier_score"))


def judge_accuracy(view: View) -> dict[str, float]:
    """``judge_accuracy``: share of real held-out samples that the judge knows, which every other number of it rests on."""
    if view.recognised is None or view.labels is None:
        return {}
    return {"judge_accuracy": float((view.recognised == view.labels).double().mean())}


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
