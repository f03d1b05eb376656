"""What passes on the side of data: sources and corpora, who asks for them, who judges with them.

Legend: B batch, N samples, F features. The records of the networks' side are in ``contracts``, which has these names too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from advgen.records import Batch


class Source(Protocol):
    """One split of a data set, random access by sample index."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Samples at ``indices`` (B,) int64, on the CPU. Random crops draw from ``generator`` alone,
        once per index in order."""
        ...


@dataclass(frozen=True)
class DataRequest:
    """Where data comes from. ``path`` None means the plugin's embedded corpus, or what ``address`` names.

    Args:
        address: ``hub:owner/name`` and the like, for plugins that declare it (``PluginSpec.addresses``).
    """

    path: Path | None
    max_bad: int = 10
    validation_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0
    address: str = ""


@dataclass(frozen=True)
class Corpus:
    """Data as a plugin read it.

    Args:
        facts: JSON-able facts that rebuild the modality without the data (size, classes, vocabulary, rate).
        splits: ``train``, ``validation``, ``test``, disjoint and fixed by hash or by the data set; where training samples are
            of another form than held-out ones (segments of clips), also ``reference``: those of ``train`` in that form.
        fingerprint: sha256 over the content (or over names, sizes and times of a large folder).
        bad: files left out, each with its reason.
        notes: sentences on what the user may not expect of a run on these data, said when it starts.
    """

    facts: Mapping[str, Any]
    splits: Mapping[str, Source]
    fingerprint: str
    bad: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Judge(Protocol):
    """A feature network that was trained on the train split, or on published data, and never enters a loss.

    It may also have ``identity``, a text that decides its features (a hash of weights and resizing): features of real data
    are then kept in the cache; ``features_and_logits(batch)``, both in one pass, logits (N, K) of its own classes or None,
    from which a score called ``score_name`` is made; and ``protocol``, names to texts that stand in reports:
    layer, resizing, hash of the weights.
    """

    name: str

    def features(self, batch: Batch) -> Tensor:
        """(N, F) float features, on unpadded content."""
        ...

    def classify(self, batch: Batch) -> Tensor | None:
        """(N,) int64 predicted label, or None where the data has no labels."""
        ...


@dataclass(frozen=True)
class MetricNote:
    """What a reader must know of one of a modality's own metrics, for reports and stop rules.

    Args:
        protocol: how it is measured: what is compared, window, rate, unit.
        better: its direction, or what it is best equal to: the column real, or what held-out samples have, which another metric
            says (``NAME_held_out``); a stop rule asks for ``stop.better`` then.
        missing: why it cannot be measured here and what to do about it; empty where it can.
    """

    protocol: str
    better: Literal["lower", "higher", "as real", "as held out"] = "lower"
    missing: str = ""
