"""The audio plugin's own options."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, PositiveFloat, field_validator, model_validator

from advgen import PluginConfig

MEL_FIELDS = ("scale", "norm", "power", "epsilon", "log", "floor", "floor_mode", "padding", "pad_mode")
CriticName = Literal["period", "scale", "resolution", "band"]


class AudioConfig(PluginConfig):
    """Data, generator and critics of the audio plugin."""

    sample_rate_hz: int | None = Field(None, ge=1000, le=192_000, description="Empty: the most common rate of the data.")
    length: int | None = Field(
        None, ge=1024, description="Samples per clip; empty: the power of two that holds 99 % of the clips, 16384 at most."
    )
    conditional: bool = Field(True, description="Use the labels, where the data has any.")
    label_pattern: str | None = Field(
        None, description="Regular expression on the file name with a group named label; empty: sub-folders are labels."
    )
    test_pattern: str | None = Field(None, description="File names that match are the test split; empty: split by hash.")
    peak_normalise: bool = Field(True, description="Scale each clip of a folder to a peak of 0.95.")
    networks: Literal["spectral", "wavegan"] = Field(
        "spectral", description="wavegan: transposed convolutions and one critic of the waveform, as published."
    )
    noise_size: int = Field(16, ge=1)
    truncation: float = Field(
        1.0, ge=0, le=2, description="Samples' distance from the mean noise; 1: as trained; above: more variety, less quality."
    )
    channels: int = Field(
        64, ge=2, description="Width of the generator's blocks; of both WaveGAN players' layers next to the waveform."
    )
    blocks: int = Field(3, ge=1)
    n_fft: int | None = Field(None, ge=32, description="Generator's window; empty: 256 at 8 kHz, doubled with the rate.")
    hop: int | None = Field(None, ge=8, description="Samples between frames; empty: a quarter of n_fft.")
    wave_critic_channels: int = Field(
        4, ge=0, description="First layer of the waveform critic, doubled at each layer; 0: no such critic."
    )
    spectral_critic_channels: int = Field(16, ge=1, description="First layer of the spectral critics.")
    critic_windows: tuple[int, ...] | None = Field(
        None, min_length=1, description="Window of each spectral critic; empty: one, as long as the generator's."
    )
    phase_shuffle: int = Field(2, ge=0, description="Largest shift, in samples, between layers of waveform critics.")

    task: Literal["generate", "vocode"] = Field("generate", description="vocode: from mel spectrograms to sound.")
    vocoder: Literal["vocos", "retrieval", "hifigan-v1", "hifigan-v2", "hifigan-v3", "bigvgan-base", "bigvgan"] = "vocos"
    vocoder_channels: int | None = Field(None, ge=8, description="Width of the vocoder; empty: as published.")
    vocoder_blocks: int | None = Field(None, ge=1, description="Blocks; empty: 8 of a Vocos, as published, 6 of retrieval.")
    vocoder_rounds: int = Field(256, ge=1, description="Rounds in which retrieval finds phases; more are better and slower.")
    mel: Literal["hifigan", "bigvgan", "vocos"] | None = Field(
        None, description="A published mel front end; empty: magnitudes of n_fft and hop in num_mels bands."
    )
    num_mels: int | None = Field(None, ge=1, description="Bands of a free front end; empty: a quarter of n_fft.")
    mel_window: int | None = Field(None, ge=2, description="Window of a free front end; empty: n_fft.")
    mel_range_hz: tuple[float, float] | None = Field(
        None, description="Lowest and highest frequency of a free front end; empty: 0 to half the rate."
    )
    mel_fields: dict[str, str | float] = Field(
        {}, description=f"What else a free front end is, by name: {', '.join(MEL_FIELDS)}; empty: as HiFi-GAN's."
    )
    vocoder_strides: tuple[int, ...] | None = Field(
        None, description="Upsampling factors of HiFi-GAN and BigVGAN, the hop as their product; empty: from the hop."
    )
    segment: int | None = Field(
        None, ge=256, description="Samples per training segment, a multiple of the hop; empty: half a second or so."
    )
    mel_scales: Literal["one", "many"] = Field(
        "one", description="The cost mel: of the run's front end, or of seven with windows of 32 to 2048 samples, summed."
    )
    gain_db: tuple[float, float] = Field((0.0, 0.0), description="Random gain of training segments, least and most.")
    critics: Literal["small", "hifigan", "bigvgan", "vocos"] | dict[CriticName, PositiveFloat] = Field(
        "vocos", description="Critics of a vocoder: a published set, or any of period, scale, resolution, band by weight."
    )

    @field_validator("critics")
    @classmethod
    def _is_a_set(cls, critics: str | dict[CriticName, float]) -> str | dict[CriticName, float]:
        if not critics:
            raise ValueError("no critics; name one of period, scale, resolution and band with a weight, or a published set")
        return critics

    @field_validator("label_pattern", "test_pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        return pattern

    @field_validator("label_pattern")
    @classmethod
    def _has_label(cls, pattern: str | None) -> str | None:
        if pattern is not None and "label" not in re.compile(pattern).groupindex:
            raise ValueError(f"{pattern!r} has no group (?P<label>...), so no label can be read with it")
        return pattern

    @field_validator("mel_fields")
    @classmethod
    def _is_of_a_front_end(cls, fields: dict[str, str | float]) -> dict[str, str | float]:
        if unknown := sorted(set(fields) - set(MEL_FIELDS)):
            raise ValueError(f"{', '.join(unknown)} is not among {', '.join(MEL_FIELDS)}; the others are options of their own")
        return fields

    @model_validator(mode="after")
    def _front_end_is_named_or_free(self) -> AudioConfig:
        if self.mel is not None and self.mel_fields:
            raise ValueError(f"mel {self.mel} is a whole front end; leave out mel_fields, or mel")
        return self

    @model_validator(mode="after")
    def _one_kind_of_networks(self) -> AudioConfig:
        if self.task == "vocode" and self.networks != "spectral":
            raise ValueError(f"task vocode takes its networks from vocoder and critics; leave out networks={self.networks}")
        return self
