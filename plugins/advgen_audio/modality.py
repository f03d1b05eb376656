"""The audio modality: what the core asks of it, answered by the plugin's parts. Legend: B batch, T samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from advgen import (
    Batch,
    Corpus,
    DataError,
    DataReport,
    DataRequest,
    Judge,
    Modality,
    Show,
    content_hash,
    split_indices,
)
from advgen_audio.config import AudioConfig
from advgen_audio.data import files, notes
from advgen_audio.data.inspection import inspect_sounds
from advgen_audio.data.loading import ClipSource, load_folder, split_clips
from advgen_audio.data.segments import SegmentSource, pack_clips
from advgen_audio.ends import MAX_CLIPS, level_of_ends
from advgen_audio.facts import check_facts
from advgen_audio.measures.judge import make_judge
from advgen_audio.pictures import Clip, describe_scale, draw_clips, save_picture
from advgen_audio.spectra.front_ends import SPECS
from advgen_audio.vocoding.task import mel_spec, segment_length

NUM_EXAMPLES = 8
NUM_SHOWN = 16
NUM_NAMED = 5


class AudioModality(Modality[AudioConfig]):
    """Waveforms (B, 1, T) in [-1, 1]; made as the class of the options' task, as a ``Path`` is as that of its system."""

    overview_samples = sample_block = NUM_SHOWN
    formats = MappingProxyType({name: kind.about for name, kind in files.FORMATS.items()})

    # Copies of an object are made without arguments.
    def __new__(cls, config: AudioConfig | None = None, facts: Mapping[str, Any] | None = None) -> AudioModality:
        if cls is not AudioModality or config is None:
            return super().__new__(cls)
        if config.task == "vocode":
            from advgen_audio.vocoding.modality import VocodingModality

            return super().__new__(VocodingModality)
        from advgen_audio.generating import GeneratingModality

        return super().__new__(GeneratingModality)

    def __init__(self, config: AudioConfig, facts: Mapping[str, Any]) -> None:
        super().__init__(config, facts)
        check_facts(facts)

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

    def data_summary(self) -> dict[str, str | int | float]:
        """Return rate and length of a sample; every sample has one channel."""
        rate_hz, length = int(self.facts["sample_rate_hz"]), int(self.facts["length"])
        return {"sample_rate_hz": rate_hz, "length_seconds": length / rate_hz, "waveform_samples": length, "channels": 1}

    def judge(self, corpus: Corpus, cache: Path) -> Judge:
        """A log-mel classifier of the train split; random features where there are no labels."""
        heard = corpus.splits.get("reference", corpus.splits["train"])
        return make_judge(replace(corpus, splits={**corpus.splits, "train": heard}), self.facts, cache)

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

    def _other_rate(self, facts: Mapping[str, Any]) -> list[str]:
        own, theirs = (f"{each.get('sample_rate_hz')} Hz" for each in (self.facts, facts))
        return [] if own == theirs else [f"the rates differ: {theirs} there, {own} here"]

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
        files = "1 file was" if len(loaded.bad) == 1 else f"{len(loaded.bad)} files were"
        raise DataError(f"{error}; {files} left out: {'; '.join(loaded.bad[:NUM_NAMED])}") from error
    facts = dict(_facts(loaded.source, loaded.classes, splits["train"], loaded.rate_hz, "folder"))
    parts = {name: loaded.source.part(indices) for name, indices in splits.items()}
    if padded := parts["train"].shorter_clips(MAX_CLIPS):
        facts["end_level"] = level_of_ends(padded, loaded.rate_hz)
    return Corpus(facts, parts, loaded.fingerprint, loaded.bad, loaded.notes)


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
