"""What passes between the core and a modality's networks, and the check at the border.

Legend: B batch, positions: whatever a modality scores one by one (patches, frames, tokens), L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from advgen.errors import ContractError
from advgen.transfer import to_device

Mode = Literal["values", "relaxed", "log_prob"]


@dataclass(frozen=True)
class Batch:
    """Samples, real or generated: what data sources return and what writers take.

    Args:
        values: (B, ...) the samples; on a source's side any dtype (uint8 images, int64 tokens).
        mask: (B, *positions) bool, True where a position is real; None where all are.
        condition: names to tensors (B, ...), such as ``label`` (B,) int64.
    """

    values: Tensor
    mask: Tensor | None = None
    condition: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.values.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device; no copy when it is there already."""
        return Batch(
            to_device(self.values, device),
            None if self.mask is None else to_device(self.mask, device),
            {name: to_device(tensor, device) for name, tensor in self.condition.items()},
        )

    @property
    def sample(self) -> Sample:
        """The same as a generator would return them: D sees real and generated samples by the same eye."""
        return Sample(self.values, mask=self.mask)

    def slice(self, start: int, stop: int) -> Batch:
        """Samples ``start`` to ``stop``."""
        return Batch(
            self.values[start:stop],
            None if self.mask is None else self.mask[start:stop],
            {name: tensor[start:stop] for name, tensor in self.condition.items()},
        )

    def rolled(self) -> Batch:
        """Each sample in the place of the one before it, the first in the last place."""
        return Batch.cat([self.slice(1, len(self)), self.slice(0, 1)])

    @staticmethod
    def cat(batches: list[Batch]) -> Batch:
        """One batch of several that agree in everything but length."""
        first = batches[0]
        return Batch(
            torch.cat([batch.values for batch in batches]),
            None if first.mask is None else torch.cat([b.mask for b in batches if b.mask is not None]),
            {name: torch.cat([batch.condition[name] for batch in batches]) for name in first.condition},
        )


@dataclass(frozen=True)
class Sample:
    """What a generator returns.

    Args:
        values: (B, ...) in the modality's own scale; tokens are int64.
        relaxed: (B, L, V) one-hot forward, soft backward; only for ``mode="relaxed"``.
        log_prob: (B, L) log-probability of each drawn token, with its graph; only for ``mode="log_prob"``.
        entropy: (B, L) entropy in nats of each draw, with its graph; only for ``mode="log_prob"``.
        mask: (B, *positions) bool, or None.
    """

    values: Tensor
    relaxed: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None
    mask: Tensor | None = None

    def detach(self) -> Sample:
        """The same sample without its graph."""
        return replace(self, **{name: value.detach() for name, value in vars(self).items() if value is not None})

    def seen_in(self, dtype: torch.dtype) -> Sample:
        """The same sample with the floats that D may see of it, values and relaxed tokens, in ``dtype``; tokens stay tokens.

        Under autocast G writes bfloat16, while real samples, and penalties on both, are in full precision. No copy is made
        of what has ``dtype`` already.
        """
        values = self.values.to(dtype) if self.values.is_floating_point() else self.values
        return replace(self, values=values, relaxed=None if self.relaxed is None else self.relaxed.to(dtype))


@dataclass(frozen=True)
class Head:
    """One opinion of a discriminator.

    Args:
        scores: (B, *positions) raw logits; (B,) is one score a sample.
        mask: (B, *positions) bool, or None where every position counts.
        weight: share of this head in the sum over heads.
        features: inner activations (B, ...), for feature matching.
        alternatives: (B, L, V) what each token of the vocabulary would have scored in its place, after the same tokens before
            it; for the estimator ``expectation``.
    """

    scores: Tensor
    mask: Tensor | None = None
    weight: float = 1.0
    features: tuple[Tensor, ...] = ()
    alternatives: Tensor | None = None

    def slice(self, start: int, stop: int) -> Head:
        """Samples ``start`` to ``stop``; inner activations too, batch first."""
        mask = None if self.mask is None else self.mask[start:stop]
        alternatives = None if self.alternatives is None else self.alternatives[start:stop]
        features = tuple(each[start:stop] for each in self.features)
        return Head(self.scores[start:stop], mask, self.weight, features, alternatives)

    def rows(self, index: Tensor) -> Head:
        """Scores and mask of the samples that ``index`` (N,) names."""
        return Head(self.scores[index], None if self.mask is None else self.mask[index], self.weight)


@dataclass(frozen=True)
class Verdict:
    """What a discriminator returns: one or more heads."""

    heads: tuple[Head, ...]

    def slice(self, start: int, stop: int) -> Verdict:
        """Samples ``start`` to ``stop``."""
        return Verdict(tuple(head.slice(start, stop) for head in self.heads))

    def rows(self, index: Tensor) -> Verdict:
        """Scores and masks of the samples that ``index`` (N,) names."""
        return Verdict(tuple(head.rows(index) for head in self.heads))

    @staticmethod
    def of(*scores: Tensor, mask: Tensor | None = None) -> Verdict:
        """Equal-weight heads (their weights add to 1) that share a mask."""
        return Verdict(tuple(Head(score, mask, 1.0 / len(scores)) for score in scores))


def check_verdict(verdict: Verdict, num_samples: int, who: str) -> Verdict:
    """Refuse a verdict whose heads are not (B, *positions) logits.

    Raises:
        ContractError: naming the head, its shape and the expected one.
    """
    if fault := verdict_fault(verdict, num_samples):
        raise ContractError(f"{who} returned {fault}")
    return verdict


def verdict_fault(verdict: object, num_samples: int) -> str:
    """Find the first fault of a verdict, in words for after "returned"; empty if there is none."""
    if not isinstance(verdict, Verdict):
        came = "a bare Tensor" if isinstance(verdict, Tensor) else "None" if verdict is None else type(verdict).__name__
        remedy = "; write: return Verdict.of(scores)" if isinstance(verdict, Tensor) else ""
        return f"{came}, expected a Verdict (advgen.Verdict) with at least one head{remedy}"
    if not verdict.heads:
        return "a Verdict without heads, expected a Verdict with at least one head"
    faults = (_head_fault(head, index, num_samples) for index, head in enumerate(verdict.heads))
    return next((fault for fault in faults if fault), "")


def _head_fault(head: object, index: int, num_samples: int) -> str:
    if not isinstance(head, Head) or not isinstance(head.scores, Tensor):
        came = f"{type(head.scores).__name__} as scores of" if isinstance(head, Head) else f"{type(head).__name__} as"
        return f"{came} head {index}, expected a Head with scores (B, *positions)"
    shape = tuple(head.scores.shape)
    if not shape or shape[0] != num_samples:
        return f"scores of shape {shape} for head {index}, expected ({num_samples}, *positions)"
    if not head.scores.is_floating_point():
        return f"scores of {head.scores.dtype} for head {index}, expected raw float logits"
    if head.mask is not None and (head.mask.shape != head.scores.shape or head.mask.dtype is not torch.bool):
        return f"a mask of {head.mask.dtype} {tuple(head.mask.shape)} at head {index}, expected torch.bool {shape}"
    other = head.alternatives
    if other is not None and other.shape[:-1] != head.scores.shape:
        return f"alternatives of shape {tuple(other.shape)} at head {index}, expected {(*shape, 'V')}"
    if any(len(each) != num_samples for each in head.features):
        shapes = ", ".join(str(tuple(each.shape)) for each in head.features)
        return f"features of shapes {shapes} at head {index}, expected ({num_samples}, ...)"
    return ""
