"""From a short-time spectrum to the waveform, for any number of frames.

Legend: B batch, F frames, K bins (n_fft // 2 + 1), T samples.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import ConfigError
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram

Alignment = Literal["same", "center"]


class InverseFourier(nn.Module):
    """real, imaginary (B, K, F) -> waveform (B, F * hop), for any F: windowed overlap-add over the summed squared window.

    The inverse of a Hann short-time transform whose frames stand on the first sample of their hop ("center") or on its
    middle ("same").

    Source: Griffin and Lim 1984, https://doi.org/10.1109/TASSP.1984.1164317
    """

    window: Tensor

    def __init__(self, n_fft: int, hop: int, alignment: Alignment) -> None:
        super().__init__()
        least = 2 if alignment == "same" else 3
        if n_fft < least * hop or n_fft % 2:
            raise ConfigError(
                f"n_fft {n_fft} is odd or less than {least} times hop {hop}: the last samples would have no window"
            )
        self.n_fft, self.hop = n_fft, hop
        self.cut = n_fft // 2 if alignment == "center" else (n_fft - hop) // 2
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    @property
    def context_frames(self) -> int:
        """Frames before and after its own that a sample sums."""
        # A Hann window starts with 0, so a frame's first sample does not count.
        after = (self.hop - 2 + self.cut) // self.hop
        before = (self.n_fft - 1 - self.cut) // self.hop
        return max(before, after)

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        return self.of_frames(torch.complex(real, imaginary).transpose(1, 2))

    def of_frames(self, spectrum: Tensor) -> Tensor:
        """complex (B, F, K) -> waveform (B, F * hop)."""
        frames = torch.fft.irfft(spectrum, self.n_fft)
        window = self.window.to(frames.dtype)
        envelope = window.square().expand(1, frames.shape[1], -1)
        return self._overlap_add(frames * window) / self._overlap_add(envelope)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(B, F, n_fft) -> (B, F * hop): a sum for each hop that a frame spans, which is faster than a fold."""
        spanned, num_frames = -(-self.n_fft // self.hop), frames.shape[1]
        hops = F.pad(frames, (0, spanned * self.hop - self.n_fft)).unflatten(-1, (spanned, self.hop))
        parts = [F.pad(hops[:, :, hop], (0, 0, hop, spanned - 1 - hop)) for hop in range(spanned)]
        return torch.stack(parts).sum(0).flatten(1)[:, self.cut : self.cut + num_frames * self.hop]


class ConvolutionalInverse(nn.Module):
    """``InverseFourier`` as one transposed convolution of real numbers: slower, but formats without complex numbers take it.

    Its output has the same length and values to rounding.
    """

    kernel: Tensor
    weight: Tensor

    def __init__(self, inverse: InverseFourier) -> None:
        super().__init__()
        self.hop, self.cut = inverse.hop, inverse.cut
        n_fft, window = inverse.n_fft, inverse.window.double().cpu()
        unit = torch.eye(n_fft // 2 + 1, dtype=torch.float64)
        waves = torch.fft.irfft(torch.cat([unit + 0j, 1j * unit]), n_fft)
        self.register_buffer("kernel", (waves * window)[:, None].to(inverse.window), persistent=False)
        self.register_buffer("weight", window.square()[None, None].to(inverse.window), persistent=False)

    def forward(self, real: Tensor, imaginary: Tensor) -> Tensor:
        ones = torch.ones_like(real[:1, :1])
        kept = slice(self.cut, self.cut + real.shape[-1] * self.hop)
        summed = F.conv_transpose1d(torch.cat([real, imaginary], dim=1), self.kernel.to(real.dtype), stride=self.hop)
        envelope = F.conv_transpose1d(ones, self.weight.to(real.dtype), stride=self.hop)
        return summed[:, 0, kept] / envelope[:, 0, kept]


class Consistency(nn.Module):
    """complex spectrum (B, F, K) in a mel's frames -> that of the waveform nearest to it, (B, F, K).

    Source: Griffin and Lim 1984, https://doi.org/10.1109/TASSP.1984.1164317
    """

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        if spec.window_length != spec.n_fft:
            raise ConfigError(
                f"phases are found with a window as long as n_fft, got {spec.window_length} of {spec.n_fft}; "
                "leave options.mel_window empty, or take another vocoder"
            )
        self.mel, self.inverse = MelSpectrogram(spec), InverseFourier(spec.n_fft, spec.hop, spec.padding)

    @property
    def context_frames(self) -> int:
        """Frames before and after its own that a frame depends on."""
        return (self.mel.spec.n_fft - 1) // self.mel.spec.hop

    def forward(self, spectrum: Tensor) -> Tensor:
        frames, hop = spectrum.shape[1], self.mel.spec.hop
        # Centred frames stand on the ends of F - 1 hops; a single one has nearly a hop, which needs no second.
        length = frames * hop if self.mel.spec.padding == "same" else max((frames - 1) * hop, hop - 1, 1)
        return self.analyse(self.inverse.of_frames(spectrum)[:, :length])[:, :frames]

    def analyse(self, waveform: Tensor) -> Tensor:
        """waveform (B, T) -> complex spectrum (B, F, K)."""
        spec = self.mel.spec
        frames = self.mel.pad(waveform).unfold(-1, spec.n_fft, spec.hop)
        return torch.fft.rfft(frames * self.mel.window.to(waveform.dtype))
