"""Mel front ends: what exactly a mel spectrogram is, as a record that is saved, compared and refused where it differs.

Legend: B batch, T samples, K bins (n_fft // 2 + 1), M mel bands, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from advgen import ConfigError
from advgen_audio.torchaudio_parts import mel_filter_bank


class MelMismatchError(ConfigError):
    """Two mel front ends that must agree do not."""


class MelSpec(BaseModel):
    """Everything that changes a mel spectrogram's numbers; two equal specs give equal numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: int = Field(ge=1000, le=384_000)
    n_fft: int = Field(ge=16, le=65_536, description="Samples per transform.")
    hop: int = Field(ge=1, description="Samples between frames.")
    window: int | None = Field(None, ge=2, description="Length of the Hann window, centred in n_fft; empty: n_fft.")
    num_mels: int = Field(ge=1, le=2048)
    fmin_hz: float = Field(0.0, ge=0.0)
    fmax_hz: float | None = Field(None, gt=0.0, description="Empty: half the rate.")
    scale: Literal["htk", "slaney"] = "slaney"
    norm: Literal["slaney", "none"] = Field("slaney", description="slaney: triangles of equal area; none: of equal height.")
    power: float = Field(1.0, gt=0.0, description="1: magnitude, 2: power.")
    epsilon: float = Field(1e-9, ge=0.0, description="Added to the squared magnitude, so that its root has a slope at 0.")
    log: Literal["e", "10"] = "e"
    floor: float = Field(1e-5, gt=0.0)
    floor_mode: Literal["clip", "add"] = Field("clip", description="log(max(mel, floor)) or log(mel + floor).")
    padding: Literal["same", "center"] = Field(
        "same", description="same: (n_fft - hop) / 2 each side, T // hop frames; center: n_fft / 2, T // hop + 1 frames."
    )
    pad_mode: Literal["reflect", "zero"] = "reflect"

    @model_validator(mode="after")
    def _fits(self) -> MelSpec:
        if self.hop > self.n_fft:
            raise ValueError(f"hop {self.hop} is longer than n_fft {self.n_fft}, so samples would be skipped")
        if self.window_length > self.n_fft:
            raise ValueError(f"window {self.window} is longer than n_fft {self.n_fft}")
        if not self.fmin_hz < self.highest_hz <= self.rate_hz / 2:
            raise ValueError(f"fmin_hz {self.fmin_hz:g} < fmax_hz {self.highest_hz:g} <= half the rate does not hold")
        if self.power != 2 and self.epsilon <= 0:
            raise ValueError(f"power {self.power:g} needs an epsilon above 0: its slope is infinite on silence")
        return self

    @property
    def window_length(self) -> int:
        """Samples under the window."""
        return self.n_fft if self.window is None else self.window

    @property
    def highest_hz(self) -> float:
        """Upper edge of the last band."""
        return self.rate_hz / 2 if self.fmax_hz is None else self.fmax_hz

    def num_frames(self, num_samples: int) -> int:
        """Frames of a waveform of this many samples, at least 1."""
        return max(1, num_samples // self.hop + (self.padding == "center"))

    def to_facts(self) -> dict[str, Any]:
        """JSON-able, complete, for checkpoints and facts."""
        return self.model_dump(mode="json")

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> MelSpec:
        """The spec that ``to_facts`` wrote.

        Raises:
            ConfigError: naming each field that is missing, unknown or out of range.
        """
        try:
            return MelSpec.model_validate(dict(facts))
        except ValidationError as error:
            raise ConfigError(f"this is no mel front end: {problems(error)}") from error


def problems(error: ValidationError) -> str:
    """What is wrong with a front end: each field, what came, and what was expected."""
    said = list[str]()
    for each in error.errors():
        name = each["loc"][0] if each["loc"] else None
        text = each["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
        plain = {"missing": f"{name} is missing", "extra_forbidden": f"{name} is not known"}
        said.append(plain.get(each["type"]) or (text if name is None else f"{name} = {each['input']!r}: {text}"))
    return "; ".join(said)


# HiFi-GAN: Kong et al. 2020, https://arxiv.org/abs/2010.05646; BigVGAN: Lee et al. 2023, https://arxiv.org/abs/2206.04658
# Vocos: Siuzdak 2023, https://arxiv.org/abs/2306.00814. Vocos has no epsilon; 1e-18 keeps silence at its floor.
SPECS: dict[str, MelSpec] = {
    "hifigan": MelSpec(rate_hz=22050, n_fft=1024, hop=256, num_mels=80, fmax_hz=8000.0),
    "bigvgan": MelSpec(rate_hz=24000, n_fft=1024, hop=256, num_mels=100, fmax_hz=12000.0),
    "vocos": MelSpec(
        rate_hz=24000,
        n_fft=1024,
        hop=256,
        num_mels=100,
        scale="htk",
        norm="none",
        epsilon=1e-18,
        floor=1e-7,
        padding="center",
    ),
}


def named_spec(name: str) -> MelSpec:
    """A published front end.

    Raises:
        ConfigError: listing the known names.
    """
    if name not in SPECS:
        raise ConfigError(f"no mel front end is called {name!r}; known: {', '.join(sorted(SPECS))}")
    return SPECS[name]


def describe_difference(left: MelSpec, right: MelSpec) -> str:
    """One line for each field that differs, ``field: left | right``; empty where the specs give equal numbers."""
    one, other = _effective(left), _effective(right)
    return "\n".join(f"{name}: {one[name]} | {other[name]}" for name in one if one[name] != other[name])


def require_same(expected: MelSpec, found: MelSpec, *, expected_by: str, found_in: str) -> None:
    """Refuse mels of another front end, for whoever feeds mels to a trained network.

    Raises:
        MelMismatchError: with both specs side by side; ``!`` marks what differs.
    """
    if _effective(expected) == _effective(found):
        return
    raise MelMismatchError(
        f"{expected_by} and {found_in} disagree on the mel spectrogram, which would sound like noise:\n"
        + side_by_side(expected, found, expected_by, found_in)
        + f"\nmake the mels again with the left column, or train for the right one ({found_in})"
    )


def side_by_side(left: MelSpec, right: MelSpec, left_name: str, right_name: str) -> str:
    """Every field of both, a line each; ``!`` marks what differs."""
    one, other = _effective(left), _effective(right)
    width = max(len(left_name), *(len(str(value)) for value in one.values()))
    rows = [f"  {'':10} {left_name:<{width}} | {right_name}"]
    rows += [f"{'!' if one[n] != other[n] else ' '} {n:10} {one[n]!s:<{width}} | {other[n]}" for n in one]
    return "\n".join(rows)


def _effective(spec: MelSpec) -> dict[str, Any]:
    """Fields with defaults filled in: window=None and window=n_fft are the same front end."""
    return spec.to_facts() | {"window": spec.window_length, "fmax_hz": spec.highest_hz}


def reflect_pad(values: Tensor, left: int, right: int) -> Tensor:
    """Mirror the last axis at both ends, back and forth where it is shorter than the padding; one sample is repeated."""
    length = values.shape[-1]
    if max(left, right) < length:
        flat = values.reshape(-1, 1, length)
        return F.pad(flat, (left, right), mode="reflect").view(*values.shape[:-1], -1)
    if length == 0:
        raise ConfigError("an empty waveform has no spectrum; leave out clips of 0 samples")
    period = max(1, 2 * (length - 1))
    position = torch.arange(-left, length + right, device=values.device) % period
    return values[..., torch.where(position < length, position, period - position)]


def mel_filters(spec: MelSpec) -> Tensor:
    """Triangular filters (M, K)."""
    norm = None if spec.norm == "none" else spec.norm
    bins = spec.n_fft // 2 + 1
    filters = mel_filter_bank(bins, spec.fmin_hz, spec.highest_hz, spec.num_mels, spec.rate_hz, norm=norm, scale=spec.scale)
    return filters.T.contiguous()


class MelSpectrogram(nn.Module):
    """waveform (B, T) -> log mel (B, M, F), where the waveform is; any T >= 1, differentiable, finite slope on silence.

    It computes in its own precision (float32 unless moved), also under autocast: half precision has no complex type.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("window", torch.hann_window(spec.window_length), persistent=False)
        self.register_buffer("filters", mel_filters(spec), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        if waveform.dim() != 2:
            raise ConfigError(
                f"mel spectrogram got a waveform of shape {tuple(waveform.shape)}, expected (B, T): drop channels"
            )
        with torch.autocast(waveform.device.type, enabled=False):
            return self._log(self.filters @ self._spectrum(self.pad(waveform.to(self.window.dtype))))

    def linear(self, mel: Tensor) -> Tensor:
        """What the logarithm was taken of, with the floor that it has."""
        return mel.exp() if self.spec.log == "e" else 10**mel

    def pad(self, waveform: Tensor) -> Tensor:
        """(B, T) with the margins that the frames reach into."""
        spec = self.spec
        left, right = (spec.n_fft // 2,) * 2
        if spec.padding == "same":
            left = (spec.n_fft - spec.hop) // 2
            # A clip shorter than a hop still fills one frame.
            right = spec.n_fft - spec.hop - left + max(0, spec.hop - waveform.shape[-1])
        return reflect_pad(waveform, left, right) if spec.pad_mode == "reflect" else F.pad(waveform, (left, right))

    def _spectrum(self, padded: Tensor) -> Tensor:
        """(B, K, F): the magnitude to the spec's power."""
        spec = self.spec
        bins = torch.stft(
            padded, spec.n_fft, spec.hop, spec.window_length, self.window, center=False, onesided=True, return_complex=True
        )
        power = bins.real.square() + bins.imag.square()
        return power if spec.power == 2 else (power + spec.epsilon) ** (spec.power / 2)

    def _log(self, mel: Tensor) -> Tensor:
        raised = mel.clamp_min(self.spec.floor) if self.spec.floor_mode == "clip" else mel + self.spec.floor
        return raised.log() if self.spec.log == "e" else raised.log10()
