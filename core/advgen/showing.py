"""Which held-out samples stand beside generated ones in pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advgen.contracts import Batch, Corpus, Modality
from advgen.metrics.real import real_samples

LOOKED_AT = 512


def held_out_like(modality: Modality[Any], corpus: Corpus, generated: Batch) -> Batch | None:
    """A validation sample for each generated one, prepared, of its class where there is one of it; None where none is held."""
    if not len(corpus.splits["validation"]):
        return None
    held = real_samples(modality, corpus, "validation", limit=LOOKED_AT)
    rows = _rows(generated.condition.get("label"), held.condition.get("label"), len(generated), len(held))
    mask = None if held.mask is None else held.mask[rows]
    return Batch(held.values[rows], mask, {name: tensor[rows] for name, tensor in held.condition.items()})


def _rows(asked: Tensor | None, labels: Tensor | None, count: int, num_held: int) -> Tensor:
    """(count,) rows of the held samples: each class's in turn, from the first again where there are too few."""
    if asked is None or labels is None:
        return torch.arange(count) % num_held
    used, rows = dict[int, int](), list[int]()
    for place, label in enumerate(asked.tolist()):
        own = (labels == label).nonzero()[:, 0].tolist() or [place % num_held]
        rows.append(own[used.get(label, 0) % len(own)])
        used[label] = used.get(label, 0) + 1
    return torch.tensor(rows)
