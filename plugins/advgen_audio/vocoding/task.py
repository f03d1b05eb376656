"""The vocoder's front end and networks, from options and facts.

Legend: B batch, M mel bands, F frames, T samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from advgen import ConfigError, Generator, Mode, Sample
from advgen_audio import discriminators
from advgen_audio.config import AudioConfig, CriticName
from advgen_audio.discriminators import (
    CriticSet,
    MultiBandCritic,
    MultiPeriodCritic,
    MultiResolutionCritic,
    MultiScaleCritic,
    WaveformCritic,
)
from advgen_audio.spectra.front_ends import MelSpec, named_spec, problems
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
            raise ConfigError(f"the options ask for a mel front end that is not possible: {problems(error)}") from error
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


def make_critics(asked: str | Mapping[CriticName, float]) -> CriticSet:
    """A published set of critics, one that two processor cores can train, or those of a published width by weight."""
    if not isinstance(asked, str):
        return CriticSet({name: CRITICS[name]() for name in asked}, {str(name): weight for name, weight in asked.items()})
    if asked == "small":
        bands = MultiBandCritic(4, (512, 256), (0.0, 0.25, 0.5, 1.0), skip_first=True)
        return CriticSet({"period": MultiPeriodCritic(2, skip_first=True), "band": bands}, {"band": 0.1}, share="mean")
    made: CriticSet = getattr(discriminators, f"{asked}_critics")()
    return made
