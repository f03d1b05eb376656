"""What a modality brings, and the core calls: two networks and everything that must be known of the samples.

What passes between them is in ``records`` (samples and verdicts) and ``sources`` (data); this module has all those names.
The core treats every axis after the batch axis as opaque. Legend: B batch, L tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from advgen import faults
from advgen.border import Contract, object_fault, returns
from advgen.data.report import DataReport, Show
from advgen.errors import ConfigError
from advgen.records import Batch as Batch
from advgen.records import Head as Head
from advgen.records import Mode as Mode
from advgen.records import Sample as Sample
from advgen.records import Verdict as Verdict
from advgen.records import check_verdict as check_verdict
from advgen.records import verdict_fault
from advgen.sources import Corpus as Corpus
from advgen.sources import DataRequest as DataRequest
from advgen.sources import Judge as Judge
from advgen.sources import MetricNote as MetricNote
from advgen.sources import Source as Source
from advgen.spec import PluginConfig

ConfigT = TypeVar("ConfigT")
instance = faults.instance_fault


class Generator(nn.Module, Contract, ABC):
    """noise (B, ...), condition -> Sample. Sub-class it; the core never looks inside.

    Tools that go between samples (interpolation, projection, truncation) take its two halves: ``latent``, then ``render``.
    """

    mapped: bool = False
    """Whether ``latent`` is a space of its own that a mapping network has learned, where straight lines make sense."""

    truncation: float = 1.0
    """How far samples lie from the mean latent where nobody says otherwise; 1: as trained."""

    num_styles: int = 0
    """How many layers take a latent each, the coarsest first, for ``mix``; 0: none do."""

    recordable: bool = True
    """Whether every call does the same to its tensors, so that a GPU may record it: False where Python decides by something
    that changes from call to call, such as a counter."""

    @abstractmethod
    @returns(faults.sample_fault, "noise", "mode", once=True)
    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw samples. Continuous generators ignore ``mode`` and ``temperature``; each row depends on its own
        noise and condition alone (except through BatchNorm)."""

    @returns(faults.sample_fault, "prefix", "mode", once=True)
    def continue_from(
        self,
        prefix: Tensor,
        noise: Tensor,
        condition: Mapping[str, Tensor],
        *,
        kept: Tensor | None = None,
        mode: Mode = "values",
        temperature: float = 1.0,
    ) -> Sample:
        """Complete sequences of tokens, for rollouts: (B, P) prefixes, of which the first ``kept`` (B,) tokens stay as they are
        (None: all), and noise as for ``forward``; the mask is True at what was drawn. A prefix that has ended is left alone."""
        raise ConfigError(
            "estimator.rewards=rollout: the generator cannot complete a part of a sample; use dense or terminal, "
            "or a generator that writes token by token"
        )

    @returns(faults.logits_fault, "tokens", once=True)
    def score(
        self, tokens: Tensor, condition: Mapping[str, Tensor], *, temperature: float = 1.0, drawn: bool = False
    ) -> Tensor:
        """Logits (B, L, V) with their graph of the token at each place of (B, L), given those before it. ``drawn``: of a draw,
        where tokens that data alone has cannot come."""
        raise ConfigError(
            "the generator has no logits of given tokens, which the estimators ppo and expectation need; use "
            "another estimator, or a generator that writes token by token"
        )

    @returns(faults.rows_fault, "noise", once=True)
    def latent(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """(B, ...) what samples are edited in, not truncated; the noise itself where there is no mapping network."""
        return noise

    @returns(faults.sample_fault, "latent", once=True)
    def render(self, latent: Tensor, condition: Mapping[str, Tensor]) -> Sample:
        """The samples of latents, in evaluation mode as they are, differentiable."""
        sample: Sample = self(latent, condition)
        return sample

    @returns(faults.rows_fault, "latent", once=True)
    def mean_latent(self, latent: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The mean of each row's latents over noise, shaped as ``latent``; what truncation draws towards. Zero for noise."""
        return torch.zeros_like(latent)

    def settle(self) -> None:
        """Work out once what ``forward`` otherwise works out of the weights as it goes, for a graph that cannot; before an
        export, in evaluation mode. Samples stay what they are."""

    @returns(faults.sample_fault, "coarse")
    def mix(self, coarse: Tensor, fine: Tensor, condition: Mapping[str, Tensor], start: int) -> Sample:
        """Samples with the latents ``coarse`` (B, ...) in the layers before ``start`` and ``fine`` from there on."""
        raise ConfigError(
            "the networks have no styles to mix: one latent makes the whole sample; mixing needs layers that take a latent "
            "each, as those of the image plugin's preset stylegan2 do (options.family=stylegan2)"
        )

    def follow(self, noise: Tensor, condition: Mapping[str, Tensor]) -> None:
        """After each of G's adversarial updates, without gradients: noise and conditions (B, ...) of the global batch, the same
        on every rank.

        For what is known of G over many updates, such as its mean latent, which it keeps in buffers; the default does nothing.
        """

    @returns(faults.lengths_fault, "noise", once=True)
    def path_lengths(self, noise: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """How far a sample moves for a step of its latent, (B,), with its graph; for the penalty ``path_length``."""
        raise ConfigError(
            "penalties.path_length: the generator has no latent to measure paths in; take the penalty out, or use networks "
            "that have one, such as the image plugin's preset stylegan2 (gen plugins show NAME lists a plugin's presets)"
        )


class Discriminator(nn.Module, Contract, ABC):
    """seen (B, ...), condition, mask -> Verdict; ``embed`` says what float tensor it sees of a sample."""

    batch_group: int = 1
    """How many consecutive samples are judged together (minibatch deviation); every micro-batch must hold whole groups, so
    that several processes equal one. 1: each sample is judged alone."""

    recordable: bool = True
    """As ``Generator.recordable``."""

    has_slope: bool = True
    """Whether scores have a gradient at what ``embed`` returns, which penalties ask for."""

    augmentation_scale: float = 1.0
    """Multiplies the probability of augmentation; the schedule of ``discriminator.augmentation`` sets it at each step."""

    @returns(faults.seen_fault, "sample", once=True)
    def embed(self, sample: Sample) -> Tensor:
        """The float tensor that penalties differentiate: the values, or the embeddings of (relaxed) tokens."""
        return sample.values if sample.relaxed is None else sample.relaxed

    @abstractmethod
    @returns(lambda verdict, seen: verdict_fault(verdict, len(seen)), "seen", once=True)
    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Judge what ``embed`` returned. Must allow double backward."""

    @returns(faults.costs_fault, once=True)
    def adapt(self, real: Tensor, fake: Tensor) -> Mapping[str, Tensor]:
        """After each of D's updates: the scores (B,) of both sides over the global batch, the same on every rank.

        For controllers, which keep what they follow in buffers. Returns scalars to log, by name; the default does nothing.
        """
        return {}


class Modality(Contract, ABC, Generic[ConfigT]):
    """Everything the core must know of a modality. Built from the plugin's config and the corpus's facts."""

    overview_samples: int = 64
    """How many samples ``overview`` is given; low-dimensional data need more to show their shape."""

    sample_block: int = 64
    """Samples are drawn this many at a time, whatever is asked for; fewer where one is costly."""

    formats: Mapping[str, str] = MappingProxyType({})
    """File formats that ``write`` and ``convert`` can make, each in a few words; the first is the default. Empty: only one."""

    file_format: str | None = None
    """The one of ``formats`` that ``gen sample --format`` asks for; None: the default."""

    one_file: bool = False
    """``write`` puts all samples into one file, so that files cannot be named by their samples."""

    normal_noise: bool = False
    """Noise is standard normal numbers alone, so that it may be scaled (truncation), turned (interpolation) and searched
    (projection)."""

    mixed_labels: bool = False
    """The generator takes ``label`` as shares (B, K) of the classes too, for what lies between two of them."""

    animations: Mapping[str, str] = MappingProxyType({})
    """Formats that ``animate`` makes, each in a few words; the first is the default."""

    feature_spaces: Mapping[str, str] = MappingProxyType({})
    """Published features that ``gen evaluate --features`` takes in place of the judge's, each in a few words."""

    trade_off: tuple[str, str] = ("precision", "recall")
    """Metrics of quality and of diversity that ``gen sweep`` shows beside each other."""

    most_references: int | None = None
    """How many held-out samples ``metrics`` gets at most in ``gen evaluate`` where more samples than by default are asked for;
    None: those that the judge sees."""

    paired: bool = False
    """A sample answers its condition (a vocoder its mel): evaluation gives G the conditions of the held-out samples, and
    ``metrics`` gets the answers row by row beside what they should have been."""

    def __init__(self, config: ConfigT, facts: Mapping[str, Any]) -> None:
        self.config = config
        self.facts = facts

    @classmethod
    @abstractmethod
    @returns(faults.corpus_fault)
    def read(cls, config: ConfigT, request: DataRequest) -> Corpus:
        """Read data, or make the embedded corpus.

        Raises:
            DataError: with the file's name, what came, what was expected.
        """

    @classmethod
    @returns(faults.none_or(partial(instance, kind=DataReport)))
    def inspect(cls, config: ConfigT, request: DataRequest, show: Show) -> DataReport | None:
        """Look through the data of ``request.path`` for ``gen data inspect``, sample by sample, calling ``show`` as it goes.
        None, the default: the core reads the corpus as for training and reports what it sees of it."""
        return None

    @abstractmethod
    @returns(partial(instance, kind=Generator))
    def generator(self) -> Generator:
        """A freshly initialised generator (from the global random state)."""

    @abstractmethod
    @returns(partial(instance, kind=Discriminator))
    def discriminator(self) -> Discriminator:
        """A freshly initialised discriminator."""

    @abstractmethod
    @returns(faults.noise_fault, "num_samples", once=True)
    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        """(B, ...) noise on the CPU, row by row, from ``generator`` alone."""

    @abstractmethod
    @returns(partial(object_fault, protocol=Judge))
    def judge(self, corpus: Corpus, cache: Path) -> Judge:
        """Train (or load from ``cache``, by content hash) the feature network."""

    @returns(partial(object_fault, protocol=Judge))
    def feature_space(self, name: str, cache: Path, weights: Path | None, device: torch.device) -> Judge:
        """The network of one of ``feature_spaces``, with the weights of that file; None: from ``cache``, or fetched."""
        raise ConfigError(f"the plugin has no features {name!r}; leave --features out")

    @abstractmethod
    @returns(faults.paths_fault)
    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """One file per sample in the modality's own format (text: one line per sample in samples.txt)."""

    @abstractmethod
    @returns(faults.paths_fault)
    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """One picture (or table) of the batch beside ``stem`` (path without suffix)."""

    @returns(faults.paths_fault)
    def comparison(self, generated: Batch, real: Batch, stem: Path) -> list[Path]:
        """``overview`` while training: row by row beside held-out samples of the same classes. The default leaves them out."""
        return self.overview(generated, stem)

    @returns(faults.paths_fault)
    def table(self, batch: Batch, columns: int, stem: Path, *, blank: int = 0) -> list[Path]:
        """As ``overview`` with all samples row by row, after ``blank`` empty places. The default shows them in order."""
        return self.overview(batch, stem)

    @returns(faults.paths_fault)
    def animate(self, frames: Sequence[Batch], stem: Path, kind: str) -> list[Path]:
        """A film in one of ``animations`` beside ``stem``; each of ``frames`` is what is seen at once."""
        raise ConfigError("the plugin makes no animations; leave --format out")

    @returns(faults.sample_read_fault)
    def read_sample(self, path: Path) -> tuple[Batch, list[str]]:
        """One file as a batch of one, as sources give it, and what had to be changed of it; for ``gen project``.

        Raises:
            DataError: where the file is missing, damaged or of another kind.
        """
        raise ConfigError("the plugin reads no single files, so nothing can be projected")

    @returns(partial(instance, kind=PluginConfig))
    def reading_alike(self) -> ConfigT:
        """Options under which other files are read in the form of this data, for ``gen evaluate --samples``."""
        raise ConfigError(
            "the plugin cannot read a folder of samples in the form of other data; evaluate a run instead: gen evaluate RUN"
        )

    @returns(faults.facts_fault)
    def data_summary(self) -> Mapping[str, str | int | float]:
        """Describe a sample of the data for the start block of ``gen train``: size, rate or length, channels or vocabulary.

        Returns:
            Figures by name. A name ends with the unit unless it is a count (``sample_rate_hz``, ``length_seconds``). If empty,
            the default, the core shows the shape of one sample.
        """
        return {}

    @returns(faults.facts_fault)
    def describe(self, generator: Generator) -> dict[str, str | int | float]:
        """Facts of G that its users should know, such as how far it looks, for ``gen runs show``."""
        return {}

    @returns(faults.texts_fault)
    def differences(self, facts: Mapping[str, Any]) -> list[str]:
        """What gives weights of a run with other facts another meaning here, a text each; said where ``--from`` takes them."""
        return []

    @returns(faults.batch_fault, "batch", once=True)
    def prepare(self, batch: Batch) -> Batch:
        """Source values to the networks' scale, on the device. The default changes nothing."""
        return batch

    @returns(lambda batch, sample: faults.batch_fault(batch, sample.values), "sample", once=True)
    def postprocess(self, sample: Sample, condition: Mapping[str, Tensor]) -> Batch:
        """A generated sample as a Batch in the *prepared* scale, for judges and writers."""
        return Batch(sample.values, sample.mask, condition)

    def enter_phase(self, kind: str, generator: Generator, discriminator: Discriminator) -> None:
        """Before the first step of every phase but the first, such as ``adversarial`` after ``likelihood``: change the networks
        in place, alike on every rank (D may start as G). ``critic`` and ``adversarial`` in a row are one: told at the first.
        The default does nothing."""

    def use_sampling(self, options: Any, num_samples: int) -> None:
        """Draw as ``gen sample`` asks from now on, ``num_samples`` in all; ``options`` is of the spec's ``sampling`` model."""
        raise ConfigError("the plugin has no sampling options")

    @returns(faults.sample_fault, "noise", once=True)
    def draw(self, network: nn.Module, noise: Tensor, condition: Mapping[str, Tensor], *, start: int) -> Sample:
        """Samples ``start`` and on of ``gen sample``; sample i may depend on i. The default asks the generator."""
        sample: Sample = network(noise, condition)
        return sample

    @returns(faults.numbers_fault)
    def verify(self, path: Path, options: Any) -> Mapping[str, float | int]:
        """What a file says of the watermark in ``options``: ``z``, ``p`` and whatever explains them, for ``gen verify``."""
        raise ConfigError("the plugin puts no watermark in its samples")

    @returns(faults.conditions_fault, "num_samples", once=True)
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

    @returns(faults.nats_fault, "batch", once=True)
    def likelihood(self, generator: Generator, batch: Batch) -> Tensor:
        """Negative log-likelihood of a prepared batch, (B, *positions) in nats; for likelihood phases and anchors."""
        raise ConfigError("the plugin has no likelihood; remove the likelihood phase and anchor")

    @returns(faults.nats_fault, "batch", once=True)
    def likelihood_of_draws(self, generator: Generator, batch: Batch) -> Tensor:
        """As ``likelihood``, of what the generator itself has drawn, where some of what data hold may never come."""
        return self.likelihood(generator, batch)

    @returns(faults.numbers_fault)
    def generator_metrics(self, generator: Generator) -> Mapping[str, float]:
        """What is known of G itself, beyond samples, for the report beside ``metrics``; the default knows nothing."""
        return {}

    @returns(faults.number_fault)
    def automatic_weight(self, penalty: str, batch_size: int) -> float:
        """The weight of a penalty whose configuration says ``auto``, for the data's size and the global batch."""
        raise ConfigError(f"penalties.{penalty}.weight = auto: the plugin has no rule for it; give a number")

    @returns(faults.text_fault)
    def against_overfitting(self) -> str:
        """What users can do where D knows training samples from held-out ones; empty, the default: D is not watched."""
        return ""

    @returns(faults.costs_fault, once=True)
    def auxiliary(self, real: Batch, fake: Sample) -> Mapping[str, Tensor | Callable[[], Tensor]]:
        """Named extra generator costs, each a scalar or a call that makes one; weights come from the config's ``auxiliary``,
        shares from ``balance``. A call is made only where the config names it."""
        return {}

    @returns(faults.costs_fault, once=True)
    def verdict_auxiliary(self, real: Verdict, fake: Verdict) -> dict[str, Tensor]:
        """Further generator costs, of what D saw inside (feature matching). Computed only where the config's ``auxiliary``
        names a term that ``auxiliary`` lacks, as it costs a pass of D over real samples; those carry no gradient."""
        return {}

    @returns(faults.paths_fault)
    def convert(self, generator: Generator, paths: Sequence[Path], folder: Path) -> list[Path]:
        """Files through G, for ``gen sample --from``: writes one file for each into ``folder``; G is in eval mode."""
        raise ConfigError("the plugin makes samples from noise alone; leave out --from")

    @returns(faults.numbers_fault)
    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """The modality's own metrics (factors read back, validity, BLEU, ...), on prepared-scale batches."""
        return {}

    @returns(partial(faults.entries_fault, kind=MetricNote))
    def metric_notes(self) -> Mapping[str, MetricNote]:
        """How those metrics are measured, by name; a metric without a note is reported all the same."""
        return {}
