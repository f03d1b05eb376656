"""The audio modality where the task is to vocode: waveforms of mels. Legend: B batch, M mel bands, F frames, T samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgen import Batch, ConfigError, Discriminator, Generator, MetricNote, Mode, Sample, Verdict
from advgen_audio.config import AudioConfig
from advgen_audio.data import files
from advgen_audio.data.segments import unpack_clips
from advgen_audio.measures import CopyMeasures
from advgen_audio.modality import AudioModality
from advgen_audio.pictures import Clip
from advgen_audio.reconstruction import MelDistance, SpectralDistance, feature_matching, loss_spec, multi_scale_specs
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram, describe_difference, side_by_side
from advgen_audio.vocoders import RetrievalVocoder
from advgen_audio.vocoding.copy_synthesis import copy_files
from advgen_audio.vocoding.task import VocoderGenerator, make_critics, make_vocoder


class VocodingModality(AudioModality):
    """Waveforms (B, 1, T) made of their mels."""

    paired = True

    def __init__(self, config: AudioConfig, facts: Mapping[str, Any]) -> None:
        super().__init__(config, facts)
        self.spec = MelSpec.from_facts(facts["mel"])
        self._modules: dict[str, Any] = {}
        self.examples = unpack_clips(facts["examples"])
        self.overview_samples = self.sample_block = len(self.examples)

    def generator(self) -> Generator:
        """mel -> waveform."""
        return VocoderGenerator(make_vocoder(self.config, self.spec), self.spec)

    def discriminator(self) -> Discriminator:
        """waveform (B, 1, T) -> the heads of every critic."""
        return make_critics(self.config.critics)

    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        """None: (B, 0)."""
        return torch.zeros(num_samples, 0)

    def mel(self, waveform: Tensor) -> Tensor:
        """waveform (B, T) -> log mel (B, M, F), where the waveform is."""
        found: Tensor = self._on(waveform, "mel", lambda: MelSpectrogram(self.spec))(waveform)
        return found

    def prepare(self, batch: Batch) -> Batch:
        """The same waveforms, with their mels as a condition."""
        return Batch(batch.values, batch.mask, {**batch.condition, "mel": self.mel(batch.values[:, 0])})

    def condition(self, num_samples: int, generator: torch.Generator, *, label: int | None = None) -> dict[str, Tensor]:
        """Mels of the held-out examples, again and again, and which one each is of.

        Raises:
            ConfigError: where a class is asked for.
        """
        if label is not None:
            raise ConfigError(
                "a vocoder draws no classes: it makes sound of mels; leave out --class, or give files with --from"
            )
        example = torch.arange(num_samples) % len(self.examples)
        return {"mel": self.mel(self.examples)[example], "example": example}

    def likelihood(self, generator: Generator, batch: Batch) -> Tensor:
        """Of the waveforms' magnitudes, (B, F, K) in nats.

        Raises:
            ConfigError: where the vocoder has none.
        """
        vocoder = generator.vocoder if isinstance(generator, VocoderGenerator) else generator
        if not isinstance(vocoder, RetrievalVocoder):
            raise ConfigError(
                f"options.vocoder {self.config.vocoder} has no likelihood: take retrieval, or remove the phase and the anchor"
            )
        return vocoder.nats(batch.condition["mel"], batch.values[:, 0])

    def auxiliary(self, real: Batch, fake: Sample) -> dict[str, Callable[[], Tensor]]:
        """``mel``: mean absolute difference of log mels up to half the rate, of one front end or of many; ``stft``: spectral
        convergence plus log-magnitude distance, means over three resolutions."""
        one, other = real.values[:, 0], fake.values[:, 0]
        return {
            "mel": lambda: self._on(other, "distance", self._mel_distance)(one, other),
            # Each clip by itself, so that cutting a batch into parts changes nothing.
            "stft": lambda: sum(self._on(other, "stft_cost", lambda: SpectralDistance(over="clip"))(one, other)),
        }

    def _mel_distance(self) -> MelDistance:
        many = self.config.mel_scales == "many"
        return MelDistance(*(multi_scale_specs(self.spec.rate_hz) if many else [loss_spec(self.spec)]))

    def verdict_auxiliary(self, real: Verdict, fake: Verdict) -> dict[str, Tensor]:
        """``feature_matching``: mean absolute difference of the critics' layers."""
        return {"feature_matching": feature_matching(real=real, fake=fake)}

    def data_summary(self) -> dict[str, str | int | float]:
        """Return rate, length of a training segment, and the mels that the generator gets."""
        rate_hz, length = self.spec.rate_hz, int(self.facts["length"])
        return {
            "sample_rate_hz": rate_hz,
            "segment_seconds": length / rate_hz,
            "segment_samples": length,
            "channels": 1,
            "mel_bands": self.spec.num_mels,
            "mel_hop_samples": self.spec.hop,
        }

    def describe(self, generator: Generator) -> dict[str, str | int | float]:
        """How far a sample looks, and at what: what streams and whole files need to know."""
        if not isinstance(generator, VocoderGenerator):
            return {}
        spec, vocoder = self.spec, generator.vocoder
        frames, samples = vocoder.receptive_field, vocoder.receptive_field * spec.hop
        reach = f"{vocoder.context_frames} before and after a sample's own"
        return {
            "mel": f"{spec.num_mels} bands of {spec.n_fft} samples every {spec.hop}, {spec.rate_hz} Hz",
            "receptive_field": f"{frames} frames ({samples} samples, {1000 * samples / spec.rate_hz:.0f} ms): {reach}",
        }

    def differences(self, facts: Mapping[str, Any]) -> list[str]:
        """The front ends side by side, where another vocoder's is another, and the rates."""
        return [*self._other_front_end(facts), *self._other_rate(facts)]

    def _other_front_end(self, facts: Mapping[str, Any]) -> list[str]:
        if "mel" not in facts:
            return ["that run makes sound of noise, this one of mels"]
        theirs = MelSpec.from_facts(facts["mel"])
        if not describe_difference(self.spec, theirs):
            return []
        table = side_by_side(self.spec, theirs, "this run", "that run")
        return [f"the mel front ends differ, so what is taken must learn to read this one:\n{table}"]

    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """One sound file per sample, whole."""
        return files.write_clips(list(batch.values), self._rate_hz, folder, start, self.file_format or files.DEFAULT_FORMAT)

    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """One WAV with all copies and one picture of them, beside what they are copies of where that is known."""
        shown, known = batch.slice(0, len(self.examples)), batch.condition.get("example")
        if known is None:
            return self._show([(Clip(values[0], f"{row + 1}"),) for row, values in enumerate(shown.values)], stem)
        pairs = [
            (Clip(self.examples[example], f"clip {example + 1}", real=True), Clip(values[0], "its copy"))
            for example, values in zip(known.tolist(), shown.values, strict=False)
        ]
        return self._show(pairs, stem)

    def convert(self, generator: Generator, paths: Sequence[Path], folder: Path) -> list[Path]:
        """Copies of sound files and of saved mels, one file each, of exactly their length.

        Raises:
            ConfigError: where the generator is no vocoder.
        """
        if not isinstance(generator, VocoderGenerator):
            raise ConfigError("the run's generator is no vocoder and makes no copies; name a run with options.task=vocode")
        return copy_files(generator.vocoder, self.spec, paths, folder, self.file_format or files.DEFAULT_FORMAT)

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """Measures of copies beside the clips they copy, without padding, and of Griffin-Lim's on the same mels."""
        if len(generated) != len(held_out) or "example" in generated.condition:
            return {}
        return self._measures(generated.values[:, 0], held_out)

    def metric_notes(self) -> Mapping[str, MetricNote]:
        """How each metric is measured."""
        return self._measures.notes()

    @cached_property
    def _measures(self) -> CopyMeasures:
        return CopyMeasures(self.spec)

    def _on(self, like: Tensor, name: str, make: Any) -> Any:
        """A fixed module, made once and moved to where a tensor is; in double precision where that is."""
        if name not in self._modules:
            self._modules[name] = make()
        return self._modules[name].to(like.device, torch.float64 if like.dtype is torch.float64 else torch.float32)
