"""The audio modality where sound is made of noise and a class. Legend: B batch, T samples, Z noise numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgen import Batch, ConfigError, Discriminator, Generator, Mode, Sample
from advgen_audio.config import AudioConfig
from advgen_audio.data import files, notes
from advgen_audio.ends import ends_of_sound, without_tails
from advgen_audio.modality import NUM_SHOWN, AudioModality, frames_at
from advgen_audio.networks.critics import AudioDiscriminator, CriticShape
from advgen_audio.networks.spectral import GeneratorShape, SpectralGenerator
from advgen_audio.networks.wavegan import WaveganDiscriminator, WaveganGenerator, WaveganShape


class GeneratingModality(AudioModality):
    """Waveforms (B, 1, T) from noise and an optional class."""

    normal_noise = True

    def generator(self) -> Generator:
        """noise (B, Z) -> waveform (B, 1, T)."""
        config, (n_fft, hop) = self.config, frames_at(self.config, self._rate_hz)
        if config.networks == "wavegan":
            return WaveganGenerator(self._wavegan)
        return SpectralGenerator(
            GeneratorShape(self._length, n_fft, hop, config.noise_size, config.channels, config.blocks, self._num_classes),
            config.truncation,
        )

    def discriminator(self) -> Discriminator:
        """waveform (B, 1, T) -> a head for each critic."""
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
        """(B, Z) normal noise; one draw per row, so that row i is the same whatever B."""
        rows = [torch.randn(self.config.noise_size, generator=generator) for _ in range(num_samples)]
        return torch.stack(rows) if rows else torch.zeros(0, self.config.noise_size)

    def postprocess(self, sample: Sample, condition: Mapping[str, Tensor]) -> Batch:
        """With silence behind its end, and condition["length"] (B,), where the data's clips are padded."""
        level = self.facts.get("end_level")
        if level is None:
            return super().postprocess(sample, condition)
        ends = ends_of_sound(sample.values, self._rate_hz, level)
        return Batch(without_tails(sample.values, ends), sample.mask, {**condition, "length": ends})

    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """One sound file per sample, as long as its sound where the data's clips are of many lengths."""
        ends = batch.condition.get("length")
        clips = list(batch.values) if ends is None else [clip[:, :end] for clip, end in zip(batch.values, ends, strict=True)]
        return files.write_clips(clips, self._rate_hz, folder, start, self.file_format or files.DEFAULT_FORMAT)

    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """One WAV with all clips and one picture of waveforms and spectrograms."""
        return self.table(batch.slice(0, NUM_SHOWN), 1, stem)

    def reading_alike(self) -> AudioConfig:
        """The rate and the length of the data, labels by folder."""
        form = {"sample_rate_hz": self._rate_hz, "length": self._length, "label_pattern": None, "test_pattern": None}
        return self.config.model_copy(update=form)

    def differences(self, facts: Mapping[str, Any]) -> list[str]:
        """Another rate, other classes."""
        found = self._other_rate(facts)
        if list(self.facts.get("classes") or ()) != list(facts.get("classes") or ()):
            found.append(
                f"the classes differ: {len(facts.get('classes') or ())} there, {self._num_classes} here, in this order"
            )
        return found

    def convert(self, generator: Generator, paths: Sequence[Path], folder: Path) -> list[Path]:
        """Refused: sound is made of noise here.

        Raises:
            ConfigError: saying what would make it of files.
        """
        raise ConfigError("this run makes sound of noise, not of files; leave out --from, or train with options.task=vocode")

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """For notes the share that is one note, and each factor's total variation from the corpus, among those."""
        if self.facts.get("corpus") != "notes":
            return {}
        reading = notes.read_notes(generated.values[:, 0].detach().float().cpu().clamp(-1, 1))
        found = {"valid_share": float(reading.valid.double().mean())}
        for name, size in notes.FACTOR_SIZES.items():
            found[f"factor_tv/{name}"] = notes.total_variation(reading.factors[name][reading.valid], size)
        found["between_levels"] = float(reading.between[reading.valid].double().mean()) if reading.valid.any() else 1.0
        return found

    @property
    def _wavegan(self) -> WaveganShape:
        config = self.config
        return WaveganShape(self._length, config.channels, config.noise_size, self._num_classes, config.phase_shuffle)
