"""The audio modality: what the core asks of it, answered by the plugin's parts. Legend: B batch, T samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from advgen import (
    Batch,
    ConfigError,
    Corpus,
    DataError,
    DataReport,
    DataRequest,
    Discriminator,
    Generator,
    Judge,
    MetricNote,
    Modality,
    Mode,
    Sample,
    Show,
    Verdict,
    content_hash,
    split_indices,
)
from advgen_audio.config import AudioConfig
from advgen_audio.data import files, notes
from advgen_audio.data.inspection import inspect_sounds
from advgen_audio.data.loading import ClipSource, load_folder, split_clips
from advgen_audio.data.segments import SegmentSource, pack_clips
from advgen_audio.ends import MAX_CLIPS, ends_of_sound, level_of_ends, without_tails
from advgen_audio.measures.judge import make_judge
from advgen_audio.networks.critics import AudioDiscriminator, CriticShape
from advgen_audio.networks.spectral import GeneratorShape, SpectralGenerator
from advgen_audio.networks.wavegan import WaveganDiscriminator, WaveganGenerator, WaveganShape
from advgen_audio.pictures import Clip, describe_scale, draw_clips, save_picture
from advgen_audio.spectra.front_ends import SPECS
from advgen_audio.vocoding.copy_synthesis import copy_files
from advgen_audio.vocoding.task import VocoderGenerator, Vocoding, make_critics, mel_spec, segment_length

NUM_EXAMPLES = 8
NUM_SHOWN = 16
NUM_NAMED = 5


class AudioModality(Modality[AudioConfig]):
    """Waveforms (B, 1, T) in [-1, 1], with an optional class label; where the task is to vocode, made of mels."""

    overview_samples = sample_block = NUM_SHOWN
    formats = MappingProxyType({name: kind.about for name, kind in files.FORMATS.items()})

    def __init__(self, config: AudioConfig, facts: Mapping[str, Any]) -> None:
        super().__init__(config, facts)
        self._vocoding = Vocoding(config, facts) if config.task == "vocode" else None
        self.normal_noise = self._vocoding is None
        if self._vocoding is not None:
            self.paired, self.overview_samples = True, len(self._vocoding.examples)
            self.sample_block = self.overview_samples

    @classmethod
    def read(cls, config: AudioConfig, request: DataRequest) -> Corpus:
        """The notes corpus, or a folder of sound files.

        Raises:
            DataError: where the folder or too many of its files cannot be used.
        """
        config = at_own_rate(config)
        corpus = _read_notes(config, request) if request.path is None else _read_folder(config, request)
        return _segments(config, corpus) if config.task == "vocode" else corpus

    @classmethod
    def inspect(cls, config: AudioConfig, request: DataRequest, show: Show) -> DataReport:
        """Rates, lengths, clipping, and what cannot be read."""
        return inspect_sounds(at_own_rate(config), request, show)

    def generator(self) -> Generator:
        """noise (B, Z) or condition["mel"] -> waveform (B, 1, T)."""
        if self._vocoding is not None:
            return self._vocoding.generator()
        config, (n_fft, hop) = self.config, frames_at(self.config, self._rate_hz)
        if config.networks == "wavegan":
            return WaveganGenerator(self._wavegan)
        return SpectralGenerator(
            GeneratorShape(self._length, n_fft, hop, config.noise_size, config.channels, config.blocks, self._num_classes),
            config.truncation,
        )

    def discriminator(self) -> Discriminator:
        """waveform (B, 1, T) -> a head for each critic."""
        if self._vocoding is not None:
            return make_critics(self.config.critics)
        config, (n_fft, _) = self.config, frames_at(self.config, self._rate_hz)
        if config.networks == "wavegan":
            return WaveganDiscriminator(self._wavegan)
        return AudioDiscriminator(
            CriticShape(
                self._length,
                config.critic_windows or (n_fft,),
                config.wave_critic_channels,
                config.spectral_critic_channels,
                config.phase_shuffle,
                self._num_classes,
            )
        )

    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        """(B, Z) normal noise; one draw per row, so that row i is the same whatever B. A vocoder has none: (B, 0)."""
        if self._vocoding is not None:
            return torch.zeros(num_samples, 0)
        rows = [torch.randn(self.config.noise_size, generator=generator) for _ in range(num_samples)]
        return torch.stack(rows) if rows else torch.zeros(0, self.config.noise_size)

    def postprocess(self, sample: Sample, condition: Mapping[str, Tensor]) -> Batch:
        """With silence behind its end, and condition["length"] (B,), where the data's clips are padded."""
        level = self.facts.get("end_level")
        if self._vocoding is not None or level is None:
            return super().postprocess(sample, condition)
        ends = ends_of_sound(sample.values, self._rate_hz, level)
        return Batch(without_tails(sample.values, ends), sample.mask, {**condition, "length": ends})

    def judge(self, corpus: Corpus, cache: Path) -> Judge:
        """A log-mel classifier of the train split; random features where there are no labels."""
        heard = corpus.splits.get("reference", corpus.splits["train"])
        return make_judge(replace(corpus, splits={**corpus.splits, "train": heard}), self.facts, cache)

    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """One sound file per sample, as long as its sound where the data's clips are of many lengths."""
        ends = batch.condition.get("length") if self._vocoding is None else None
        clips = list(batch.values) if ends is None else [clip[:, :end] for clip, end in zip(batch.values, ends, strict=True)]
        return files.write_clips(clips, self._rate_hz, folder, start, self.file_format or files.DEFAULT_FORMAT)

    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """One WAV with all clips and one picture of waveforms and spectrograms; a vocoder's beside what they are copies of."""
        if self._vocoding is not None:
            return self._show(self._vocoding.beside_real(batch), stem)
        return self.table(batch.slice(0, NUM_SHOWN), 1, stem)

    def table(self, batch: Batch, columns: int, stem: Path, *, blank: int = 0) -> list[Path]:
        """All clips in order: a strip to hear and a picture to see."""
        clips = zip(batch.values, self._titles(batch), strict=True)
        return self._show([(Clip(values[0], title),) for values, title in clips], stem)

    def comparison(self, generated: Batch, real: Batch, stem: Path) -> list[Path]:
        """The same, each beside a held-out clip."""
        rows = zip(generated.values[:NUM_SHOWN], self._titles(generated), real.values, self._titles(real), strict=False)
        pairs = [
            (Clip(one[0], f"real {its_title}", real=True), Clip(other[0], f"generated {title}"))
            for other, title, one, its_title in rows
        ]
        return self._show(pairs, stem)

    def describe(self, generator: Generator) -> dict[str, str | int | float]:
        """How far a vocoder looks."""
        known = self._vocoding is not None and isinstance(generator, VocoderGenerator)
        return dict(self._vocoding.describe(generator)) if known else {}

    def reading_alike(self) -> AudioConfig:
        """The rate and the length of the data, labels by folder."""
        if self._vocoding is not None:
            return super().reading_alike()
        form = {"sample_rate_hz": self._rate_hz, "length": self._length, "label_pattern": None, "test_pattern": None}
        return self.config.model_copy(update=form)

    def differences(self, facts: Mapping[str, Any]) -> list[str]:
        """Another rate, other classes, another mel front end."""
        found = self._vocoding.differences(facts) if self._vocoding is not None else []
        own, theirs = (f"{each.get('sample_rate_hz')} Hz" for each in (self.facts, facts))
        if own != theirs:
            found.append(f"the rates differ: {theirs} there, {own} here")
        if self._vocoding is None and list(self.facts.get("classes") or ()) != list(facts.get("classes") or ()):
            found.append(
                f"the classes differ: {len(facts.get('classes') or ())} there, {self._num_classes} here, in this order"
            )
        return found

    def prepare(self, batch: Batch) -> Batch:
        """For a vocoder, with mels made where the batch is."""
        return batch if self._vocoding is None else self._vocoding.prepare(batch)

    def condition(self, num_samples: int, generator: torch.Generator, *, label: int | None = None) -> dict[str, Tensor]:
        """Labels as in the data; for a vocoder the mels of held-out examples."""
        if self._vocoding is not None:
            return self._vocoding.condition(num_samples, label)
        return super().condition(num_samples, generator, label=label)

    def auxiliary(self, real: Batch, fake: Sample) -> Mapping[str, Callable[[], Tensor]]:
        """A vocoder's ``mel`` and ``stft``."""
        return {} if self._vocoding is None else self._vocoding.auxiliary(real, fake)

    def likelihood(self, generator: Generator, batch: Batch) -> Tensor:
        """Of magnitudes, where the vocoder gives them one; (B, F, K) in nats."""
        return super().likelihood(generator, batch) if self._vocoding is None else self._vocoding.likelihood(generator, batch)

    def verdict_auxiliary(self, real: Verdict, fake: Verdict) -> dict[str, Tensor]:
        """A vocoder's ``feature_matching``."""
        return {} if self._vocoding is None else self._vocoding.verdict_auxiliary(real, fake)

    def convert(self, generator: Generator, paths: Sequence[Path], folder: Path) -> list[Path]:
        """A vocoder's copies of sound files and of saved mels, one file each, of exactly their length.

        Raises:
            ConfigError: where the run makes sound of noise.
        """
        if self._vocoding is None or not isinstance(generator, VocoderGenerator):
            raise ConfigError(
                "this run makes sound of noise, not of files; leave out --from, or train with options.task=vocode"
            )
        return copy_files(generator.vocoder, self._vocoding.spec, paths, folder, self.file_format or files.DEFAULT_FORMAT)

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """For a vocoder distances from the copied clips; for notes the share that is one note, and each factor's total
        variation from the corpus, among those."""
        if self._vocoding is not None:
            return self._vocoding.metrics(generated, held_out)
        if self.facts.get("corpus") != "notes":
            return {}
        reading = notes.read_notes(generated.values[:, 0].detach().float().cpu().clamp(-1, 1))
        found = {"valid_share": float(reading.valid.double().mean())}
        for name, size in notes.FACTOR_SIZES.items():
            found[f"factor_tv/{name}"] = notes.total_variation(reading.factors[name][reading.valid], size)
        found["between_levels"] = float(reading.between[reading.valid].double().mean()) if reading.valid.any() else 1.0
        return found

    def metric_notes(self) -> Mapping[str, MetricNote]:
        """How a vocoder's metrics are measured."""
        return {} if self._vocoding is None else self._vocoding.metric_notes()

    def _titles(self, batch: Batch) -> list[str]:
        """The class where there is one, else the place."""
        label, names = batch.condition.get("label"), self.facts.get("classes") or ()
        if label is None or not names:
            return [str(row + 1) for row in range(len(batch))]
        return [str(names[index]) for index in label.tolist()]

    def _show(self, groups: Sequence[tuple[Clip, ...]], stem: Path) -> list[Path]:
        """A strip to hear and a picture to see."""
        clips = [clip.waveform for group in groups for clip in group]
        sound = files.write_strip(clips, self._rate_hz, stem.with_name(stem.name + ".wav"))
        image = draw_clips(groups, self._rate_hz, describe_scale(self._rate_hz))
        return [sound, save_picture(image, stem.with_name(stem.name + ".png"))]

    @property
    def _rate_hz(self) -> int:
        return int(self.facts["sample_rate_hz"])

    @property
    def _length(self) -> int:
        return int(self.facts["length"])

    @property
    def _wavegan(self) -> WaveganShape:
        config = self.config
        return WaveganShape(self._length, config.channels, config.noise_size, self._num_classes, config.phase_shuffle)

    @property
    def _num_classes(self) -> int:
        return len(self.facts.get("classes") or ())


def at_own_rate(config: AudioConfig) -> AudioConfig:
    """The options with the rate that a published front end brings."""
    if config.task == "vocode" and config.mel is not None and config.sample_rate_hz is None:
        return config.model_copy(update={"sample_rate_hz": SPECS[config.mel].rate_hz})
    return config


def frames_at(config: AudioConfig, rate_hz: int) -> tuple[int, int]:
    """Window and hop: as asked, or 32 ms or so, whatever the rate."""
    if config.n_fft is not None:
        return config.n_fft, config.hop or config.n_fft // 4
    n_fft = 256
    while n_fft * 8000 * 1.5 < 256 * rate_hz:
        n_fft *= 2
    return n_fft, config.hop or n_fft // 4


def _segments(config: AudioConfig, corpus: Corpus) -> Corpus:
    """The corpus as a vocoder needs it: random segments to train on, whole clips of whole hops to measure."""
    rate_hz = int(corpus.facts["sample_rate_hz"])
    spec = mel_spec(config, rate_hz, frames_at(config, rate_hz))
    segment, whole = segment_length(config, spec), -(-int(corpus.facts["length"]) // spec.hop) * spec.hop
    clips: dict[str, Any] = dict(corpus.splits)
    splits = {name: SegmentSource(source, whole) for name, source in clips.items()}
    splits["reference"], splits["train"] = splits["train"], SegmentSource(clips["train"], segment, config.gain_db)
    held = clips["validation"] if len(clips["validation"]) else clips["train"]
    spread = torch.linspace(0, len(held) - 1, min(NUM_EXAMPLES, len(held))).long()  # neighbours are often of one class
    examples = SegmentSource(held, segment).batch(spread, torch.Generator().manual_seed(0))
    facts = {**corpus.facts, "length": whole, "mel": spec.to_facts(), "examples": pack_clips(examples.values[:, 0])}
    return replace(corpus, facts=facts, splits=splits)


def _facts(source: ClipSource, classes: tuple[str, ...], train: Tensor, rate_hz: int, corpus: str) -> Mapping[str, Any]:
    facts: dict[str, Any] = {"corpus": corpus, "sample_rate_hz": rate_hz, "length": source.length, "classes": list(classes)}
    if classes and source.labels is not None:
        facts["class_counts"] = torch.bincount(source.labels[train], minlength=len(classes)).tolist()
    return facts


def _read_folder(config: AudioConfig, request: DataRequest) -> Corpus:
    loaded = load_folder(config, request)
    try:
        splits = split_clips(loaded.names, config, request, loaded.named_splits)
    except DataError as error:
        if not loaded.bad:
            raise
        raise DataError(f"{error}; {len(loaded.bad)} files were left out: {'; '.join(loaded.bad[:NUM_NAMED])}") from error
    facts = dict(_facts(loaded.source, loaded.classes, splits["train"], loaded.rate_hz, "folder"))
    parts = {name: loaded.source.part(indices) for name, indices in splits.items()}
    if padded := parts["train"].shorter_clips(MAX_CLIPS):
        facts["end_level"] = level_of_ends(padded, loaded.rate_hz)
    return Corpus(facts, parts, loaded.fingerprint, loaded.bad)


def _read_notes(config: AudioConfig, request: DataRequest) -> Corpus:
    """The embedded corpus at its own rate and length; the class is pitch and timbre. Loudness is a factor: no normalisation."""
    waveforms, factors = notes.make_notes()
    num = len(waveforms)
    labels = notes.class_of(factors) if config.conditional else None
    sizes = torch.full((num,), notes.LENGTH)
    source = ClipSource(waveforms.flatten().numpy(), torch.arange(num) * notes.LENGTH, sizes, labels, notes.LENGTH)
    splits = split_indices([f"note-{index:05d}" for index in range(num)], request)
    classes = notes.CLASS_NAMES if config.conditional else ()
    facts = _facts(source, classes, splits["train"], notes.RATE_HZ, "notes")
    parts = {name: source.part(indices) for name, indices in splits.items()}
    return Corpus(facts, parts, content_hash([notes.DESCRIPTION.encode()]))
