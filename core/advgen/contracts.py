"""What passes between the core and a modality, and the checks at the border.

Legend: B batch, positions: whatever a modality scores one by one (patches, frames, tokens), L tokens, V vocabulary.
The core treats every axis after the batch axis as opaque.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from advgen.errors import ConfigError, ContractError
from advgen.report import DataReport, Show

Mode = Literal["values", "relaxed", "log_prob"]
ConfigT = TypeVar("ConfigT")


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
            self.values.to(device, non_blocking=True),
            None if self.mask is None else self.mask.to(device, non_blocking=True),
            {name: tensor.to(device, non_blocking=True) for name, tensor in self.condition.items()},
        )

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


@dataclass(frozen=True)
class Head:
    """One opinion of a discriminator.

    Args:
        scores: (B, *positions) raw logits; (B,) is one score a sample.
        mask: (B, *positions) bool, or None where every position counts.
        weight: share of this head in the sum over heads.
        features: inner activations, for feature matching.
    """

    scores: Tensor
    mask: Tensor | None = None
    weight: float = 1.0
    features: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """What a discriminator returns: one or more heads."""

    heads: tuple[Head, ...]

    @staticmethod
    def of(*scores: Tensor, mask: Tensor | None = None) -> Verdict:
        """Equal-weight heads (their weights add to 1) that share a mask."""
        return Verdict(tuple(Head(score, mask, 1.0 / len(scores)) for score in scores))


class Generator(nn.Module, ABC):
    """noise (B, ...), condition -> Sample. Sub-class it; the core never looks inside."""

    @abstractmethod
    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw samples. Continuous generators ignore ``mode`` and ``temperature``; each row depends on its own
        noise and condition alone (except through BatchNorm)."""

    def path_lengths(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """How far a sample moves for a step of its latent, (B,), with its graph; for the penalty ``path_length``."""
        raise ConfigError(
            f"penalties.path_length: {type(self).__name__} has no latent to measure paths in; take the penalty out, "
            "or use networks that have one (gen plugins show NAME lists a plugin's presets)"
        )


class Discriminator(nn.Module, ABC):
    """seen (B, ...), condition, mask -> Verdict; ``embed`` says what float tensor it sees of a sample."""

    batch_group: int = 1
    """How many consecutive samples are judged together (minibatch deviation); every micro-batch must hold whole groups, so
    that several processes equal one. 1: each sample is judged alone."""

    augmentation_scale: float = 1.0
    """Multiplies the probability of augmentation; the schedule of ``discriminator.augmentation`` sets it at each step."""

    def embed(self, sample: Sample) -> Tensor:
        """The float tensor that penalties differentiate: the values, or the embeddings of (relaxed) tokens."""
        return sample.values if sample.relaxed is None else sample.relaxed

    @abstractmethod
    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Judge what ``embed`` returned. Must allow double backward."""

    def adapt(self, real: Tensor, fake: Tensor) -> Mapping[str, Tensor]:
        """After each of D's updates: the scores (B,) of both sides over the global batch, the same on every rank.

        For controllers, which keep what they follow in buffers. Returns scalars to log, by name; the default does nothing.
        """
        return {}


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
    """

    facts: Mapping[str, Any]
    splits: Mapping[str, Source]
    fingerprint: str
    bad: tuple[str, ...] = ()


class Judge(Protocol):
    """A feature network that was trained on the train split and never enters a loss."""

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
        better: its direction.
        missing: why it cannot be measured here and what to do about it; empty where it can.
    """

    protocol: str
    better: Literal["lower", "higher"] = "lower"
    missing: str = ""


class Modality(ABC, Generic[ConfigT]):
    """Everything the core must know of a modality. Built from the plugin's config and the corpus's facts."""

    overview_samples: int = 64
    """How many samples ``overview`` is given; low-dimensional data need more to show their shape."""

    sample_block: int = 64
    """Samples are drawn this many at a time, whatever is asked for; fewer where one is costly."""

    formats: Mapping[str, str] = MappingProxyType({})
    """File formats that ``write`` and ``convert`` can make, each in a few words; the first is the default. Empty: only one."""

    file_format: str | None = None
    """The one of ``formats`` that ``gen sample --format`` asks for; None: the default."""

    paired: bool = False
    """A sample answers its condition (a vocoder its mel): evaluation gives G the conditions of the held-out samples, and
    ``metrics`` gets the answers row by row beside what they should have been."""

    def __init__(self, config: ConfigT, facts: Mapping[str, Any]) -> None:
        self.config = config
        self.facts = facts

    @classmethod
    @abstractmethod
    def read(cls, config: ConfigT, request: DataRequest) -> Corpus:
        """Read data, or make the embedded corpus.

        Raises:
            DataError: with the file's name, what came, what was expected.
        """

    @classmethod
    def inspect(cls, config: ConfigT, request: DataRequest, show: Show) -> DataReport | None:
        """Look through the data of ``request.path`` for ``gen data inspect``, sample by sample, calling ``show`` as it goes.
        None, the default: the core reads the corpus as for training and reports what it sees of it."""
        return None

    @abstractmethod
    def generator(self) -> Generator:
        """A freshly initialised generator (from the global random state)."""

    @abstractmethod
    def discriminator(self) -> Discriminator:
        """A freshly initialised discriminator."""

    @abstractmethod
    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        """(B, ...) noise on the CPU, row by row, from ``generator`` alone."""

    @abstractmethod
    def judge(self, corpus: Corpus, cache: Path) -> Judge:
        """Train (or load from ``cache``, by content hash) the feature network."""

    @abstractmethod
    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """One file per sample in the modality's own format (text: one line per sample in samples.txt)."""

    @abstractmethod
    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """One picture (or table) of the batch beside ``stem`` (path without suffix)."""

    def comparison(self, generated: Batch, real: Batch, stem: Path) -> list[Path]:
        """``overview`` while training: row by row beside held-out samples of the same classes. The default leaves them out."""
        return self.overview(generated, stem)

    def describe(self, generator: Generator) -> dict[str, str | int | float]:
        """Facts of G that its users should know, such as how far it looks, for ``gen runs show``."""
        return {}

    def differences(self, facts: Mapping[str, Any]) -> list[str]:
        """What gives weights of a run with other facts another meaning here, a text each; said where ``--from`` takes them."""
        return []

    def prepare(self, batch: Batch) -> Batch:
        """Source values to the networks' scale, on the device. The default changes nothing."""
        return batch

    def postprocess(self, sample: Sample, condition: Mapping[str, Tensor]) -> Batch:
        """A generated sample as a Batch in the *prepared* scale, for judges and writers."""
        return Batch(sample.values, sample.mask, condition)

    def condition(self, num_samples: int, generator: torch.Generator, *, label: int | None = None) -> dict[str, Tensor]:
        """Conditions drawn as in the training data: ``facts["classes"]`` names, ``facts["class_counts"]`` weights."""
        classes = self.facts.get("classes") or ()
        if label is not None and not 0 <= label < len(classes):
            raise ConfigError(f"class {label} does not exist; this run has {len(classes)} classes: {', '.join(classes)}")
        if not classes:
            return {}
        if label is not None:
            return {"label": torch.full((num_samples,), label)}
        weights = torch.tensor(self.facts["class_counts"], dtype=torch.float64)
        return {"label": torch.multinomial(weights, num_samples, replacement=True, generator=generator)}

    def likelihood(self, generator: Generator, batch: Batch) -> Tensor:
        """Negative log-likelihood of a prepared batch, (B, *positions) in nats; for likelihood phases and anchors."""
        raise ConfigError(f"{type(self).__name__} has no likelihood; remove the likelihood phase and anchor")

    def automatic_weight(self, penalty: str, batch_size: int) -> float:
        """The weight of a penalty whose configuration says ``auto``, for the data's size and the global batch."""
        raise ConfigError(f"penalties.{penalty}.weight = auto: {type(self).__name__} has no rule for it; give a number")

    def auxiliary(self, real: Batch, fake: Sample) -> Mapping[str, Tensor | Callable[[], Tensor]]:
        """Named extra generator costs, each a scalar or a call that makes one; weights come from the config's ``auxiliary``,
        shares from ``balance``. A call is made only where the config names it."""
        return {}

    def verdict_auxiliary(self, real: Verdict, fake: Verdict) -> dict[str, Tensor]:
        """Further generator costs, of what D saw inside (feature matching). Computed only where the config's ``auxiliary``
        names a term that ``auxiliary`` lacks, as it costs a pass of D over real samples; those carry no gradient."""
        return {}

    def convert(self, generator: Generator, paths: Sequence[Path], folder: Path) -> list[Path]:
        """Files through G, for ``gen sample --from``: writes one file for each into ``folder``; G is in eval mode."""
        raise ConfigError(f"{type(self).__name__} makes samples from noise alone; leave out --from")

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """The modality's own metrics (factors read back, validity, BLEU, ...), on prepared-scale batches."""
        return {}

    def metric_notes(self) -> Mapping[str, MetricNote]:
        """How those metrics are measured, by name; a metric without a note is reported all the same."""
        return {}


def check_verdict(verdict: Verdict, num_samples: int, who: str) -> Verdict:
    """Refuse a verdict whose heads are not (B, *positions) logits.

    Raises:
        ContractError: naming the head, its shape and the expected one.
    """
    if not isinstance(verdict, Verdict) or not verdict.heads:
        raise ContractError(f"{who} returned {type(verdict).__name__}, expected a Verdict with at least one head")
    for index, head in enumerate(verdict.heads):
        shape = tuple(head.scores.shape)
        if not shape or shape[0] != num_samples:
            expected = f"({num_samples}, *positions)"
            raise ContractError(f"{who} returned scores of shape {shape} for head {index}, expected {expected}")
        if head.mask is not None and head.mask.shape != head.scores.shape:
            raise ContractError(f"{who} returned a mask of shape {tuple(head.mask.shape)} at head {index}, expected {shape}")
    return verdict
