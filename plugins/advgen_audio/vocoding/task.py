"""The vocoder's side of the audio modality: its front end, networks, costs and measures, from options and facts.

Legend: B batch, M mel bands, F frames, T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from advgen import Batch, ConfigError, Generator, MetricNote, Mode, Sample, Verdict
from advgen_audio import discriminators
from advgen_audio.config import AudioConfig
from advgen_audio.data.segments import unpack_clips
from advgen_audio.discriminators import (
    CriticSet,
    MultiBandCritic,
    MultiPeriodCritic,
    MultiResolutionCritic,
    MultiScaleCritic,
    WaveformCritic,
)
from advgen_audio.measures import CopyMeasures
from advgen_audio.pictures import Clip
from advgen_audio.reconstruction import MelDistance, SpectralDistance, feature_matching, loss_spec, multi_scale_specs
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram, describe_difference, named_spec, side_by_side
from advgen_audio.vocoders import (
    Bigvgan,
    Hifigan,
    RetrievalShape,
    RetrievalVocoder,
    Vocoder,
    Vocos,
    VocosShape,
    bigvgan_shape,
    hifigan_shape,
)

LONGEST_SEGMENT = 8192
CRITICS: dict[str, Callable[[], WaveformCritic]] = {
    "period": MultiPeriodCritic,
    "scale": MultiScaleCritic,
    "resolution": MultiResolutionCritic,
    "band": MultiBandCritic,
}


class VocoderGenerator(Generator):
    """condition["mel"] (B, M, F) -> waveform (B, 1, T), T the samples that have those frames; it has no use for noise."""

    def __init__(self, vocoder: Vocoder, spec: MelSpec) -> None:
        super().__init__()
        self.vocoder, self.spec = vocoder, spec

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        mel = condition["mel"]
        waveform = self.vocoder(mel.to(next(self.vocoder.parameters()).dtype))
        return Sample(waveform[..., : num_samples(self.spec, mel.shape[-1])])


def num_samples(spec: MelSpec, num_frames: int) -> int:
    """Samples of a waveform of whole hops that has these frames."""
    return max(1, num_frames - (spec.padding == "center")) * spec.hop


def mel_spec(config: AudioConfig, rate_hz: int, frames: tuple[int, int]) -> MelSpec:
    """The front end that the options ask for, at this rate; ``frames`` are window and hop of a free one.

    Raises:
        ConfigError: where a published one has another rate.
    """
    if config.mel is None:
        n_fft, hop = frames
        low, high = config.mel_range_hz or (0.0, None)
        more: dict[str, Any] = config.mel_fields
        try:
            return MelSpec(
                rate_hz=rate_hz,
                n_fft=n_fft,
                hop=hop,
                window=config.mel_window,
                num_mels=config.num_mels or n_fft // 4,
                fmin_hz=low,
                fmax_hz=high,
                **more,
            )
        except ValidationError as error:
            problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'together'}: {e['msg']}" for e in error.errors())
            raise ConfigError(f"the options ask for a mel front end that is not possible: {problems}") from error
    spec = named_spec(config.mel)
    if spec.rate_hz != rate_hz:
        raise ConfigError(
            f"options.mel {config.mel} is of {spec.rate_hz} Hz, the data are of {rate_hz} Hz; leave it empty there"
        )
    return spec


def segment_length(config: AudioConfig, spec: MelSpec) -> int:
    """Samples per training segment: as asked, or the power of two of a third of a second or more, 8,192 at most.

    Raises:
        ConfigError: where it is no multiple of the hop.
    """
    asked = config.segment
    if asked is None:
        length = 1024
        while length < min(spec.rate_hz / 3, LONGEST_SEGMENT):
            length *= 2
        return max(1, length // spec.hop) * spec.hop
    if asked % spec.hop:
        nearest = max(1, round(asked / spec.hop)) * spec.hop
        raise ConfigError(f"options.segment {asked} is not a multiple of the hop {spec.hop}; nearest: {nearest}")
    return asked


def make_vocoder(config: AudioConfig, spec: MelSpec) -> Vocoder:
    """A freshly initialised vocoder for a front end, of the published size or as wide as the options say."""
    kind, width = config.vocoder, config.vocoder_channels
    if kind == "vocos":
        channels, blocks = width or 512, config.vocoder_blocks or 8
        shape = VocosShape(spec.num_mels, spec.n_fft, spec.hop, channels, 3 * channels, blocks, spec.padding)
        return Vocos(shape)
    if kind == "retrieval":
        channels, blocks = width or 192, config.vocoder_blocks or 6
        return RetrievalVocoder(spec, RetrievalShape(channels, 3 * channels, blocks, config.vocoder_rounds))
    asked: dict[str, Any] = {} if width is None else {"channels": width}
    asked |= {} if config.vocoder_strides is None else {"strides": config.vocoder_strides}
    if kind.startswith("hifigan"):
        return Hifigan(replace(hifigan_shape(int(kind[-1]), num_mels=spec.num_mels, hop=spec.hop), **asked))
    size: Any = "base" if kind == "bigvgan-base" else "large"
    return Bigvgan(replace(bigvgan_shape(size, num_mels=spec.num_mels, hop=spec.hop), **asked))


def make_critics(asked: str | Mapping[str, float]) -> CriticSet:
    """A published set of critics, one that two processor cores can train, or those of a published width by weight."""
    if not isinstance(asked, str):
        return CriticSet({name: CRITICS[name]() for name in asked}, asked)
    if asked == "small":
        bands = MultiBandCritic(4, (512, 256), (0.0, 0.25, 0.5, 1.0), skip_first=True)
        return CriticSet({"period": MultiPeriodCritic(2, skip_first=True), "band": bands}, {"band": 0.1}, share="mean")
    made: CriticSet = getattr(discriminators, f"{asked}_critics")()
    return made


class Vocoding:
    """What ``AudioModality`` asks where the task is to vocode."""

    def __init__(self, config: AudioConfig, facts: Mapping[str, Any]) -> None:
        self.config, self.facts = config, facts
        self.spec = MelSpec.from_facts(facts["mel"])
        self._modules: dict[str, Any] = {}
        self.examples = unpack_clips(facts["examples"])

    def generator(self) -> Generator:
        """mel -> waveform."""
        return VocoderGenerator(make_vocoder(self.config, self.spec), self.spec)

    def mel(self, waveform: Tensor) -> Tensor:
        """waveform (B, T) -> log mel (B, M, F), where the waveform is."""
        found: Tensor = self._on(waveform, "mel", lambda: MelSpectrogram(self.spec))(waveform)
        return found

    def prepare(self, batch: Batch) -> Batch:
        """The same waveforms, with their mels as a condition."""
        return Batch(batch.values, batch.mask, {**batch.condition, "mel": self.mel(batch.values[:, 0])})

    def condition(self, count: int, label: int | None) -> dict[str, Tensor]:
        """Mels of the held-out examples, again and again, and which one each is of.

        Raises:
            ConfigError: where a class is asked for.
        """
        if label is not None:
            raise ConfigError(
                "a vocoder draws no classes: it makes sound of mels; leave out --class, or give files with --from"
            )
        example = torch.arange(count) % len(self.examples)
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

    def describe(self, generator: VocoderGenerator) -> dict[str, str]:
        """How far a sample looks, and at what: what streams and whole files need to know."""
        spec, vocoder = self.spec, generator.vocoder
        frames, samples = vocoder.receptive_field, vocoder.receptive_field * spec.hop
        reach = f"{vocoder.context_frames} before and after a sample's own"
        return {
            "mel": f"{spec.num_mels} bands of {spec.n_fft} samples every {spec.hop}, {spec.rate_hz} Hz",
            "receptive_field": f"{frames} frames ({samples} samples, {1000 * samples / spec.rate_hz:.0f} ms): {reach}",
        }

    def differences(self, facts: Mapping[str, Any]) -> list[str]:
        """The front ends side by side, where another vocoder's is another."""
        if "mel" not in facts:
            return ["that run makes sound of noise, this one of mels"]
        theirs = MelSpec.from_facts(facts["mel"])
        if not describe_difference(self.spec, theirs):
            return []
        table = side_by_side(self.spec, theirs, "this run", "that run")
        return [f"the mel front ends differ, so what is taken must learn to read this one:\n{table}"]

    def beside_real(self, batch: Batch) -> list[tuple[Clip, ...]]:
        """Each held-out example beside its copy, for pictures; batches that are not of the examples stand alone."""
        shown, known = batch.slice(0, len(self.examples)), batch.condition.get("example")
        if known is None:
            return [(Clip(values[0], f"{row + 1}"),) for row, values in enumerate(shown.values)]
        return [
            (Clip(self.examples[example], f"clip {example + 1}", real=True), Clip(values[0], "its copy"))
            for example, values in zip(known.tolist(), shown.values, strict=False)
        ]

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
