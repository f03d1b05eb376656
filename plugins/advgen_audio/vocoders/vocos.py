"""Vocos: ConvNeXt blocks at the frame rate and an inverse Fourier transform instead of upsampling.

Legend: B batch, M mel bands, F frames, C channels, K bins (n_fft // 2 + 1), T samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import ConfigError
from advgen_audio.vocoders.base import Vocoder

KERNEL = 7
NORM_EPSILON = 1e-6
DEVIATION = 0.02
MAX_LOG_MAGNITUDE = math.log(100.0)

Alignment = Literal["same", "center"]


@dataclass(frozen=True)
class VocosShape:
    """Sizes of the generator; the defaults are the published ones (13.5M parameters).

    Args:
        widened: channels between a block's two linear layers.
        alignment: what a frame stands on, as in the mel's ``padding``: "center" of its first sample, "same" the middle of
            its hop.
    """

    num_mels: int = 100
    n_fft: int = 1024
    hop: int = 256
    channels: int = 512
    widened: int = 1536
    blocks: int = 8
    alignment: Alignment = "center"


class ConvNextBlock(nn.Module):
    """(B, C, F) -> (B, C, F): a convolution for each channel, then a perceptron for each frame.

    Source: Liu et al. 2022, https://arxiv.org/abs/2201.03545; for audio, Siuzdak 2023, https://arxiv.org/abs/2306.00814
    """

    def __init__(self, channels: int, widened: int, scale: float) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.pwconv1 = nn.Linear(channels, widened)
        self.pwconv2 = nn.Linear(widened, channels)
        self.gamma = nn.Parameter(torch.full((channels,), scale))

    def forward(self, hidden: Tensor) -> Tensor:
        update: Tensor = self.norm(self.dwconv(hidden).transpose(1, 2))
        update = self.gamma * self.pwconv2(F.gelu(self.pwconv1(update)))
        return hidden + update.transpose(1, 2)


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
        frames = torch.fft.irfft(torch.complex(real, imaginary), self.n_fft, dim=1)
        window = self.window.to(frames.dtype)
        frames = frames * window[:, None]
        envelope = window.square()[None, :, None].expand(1, -1, frames.shape[-1])
        return self._overlap_add(frames) / self._overlap_add(envelope)

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """(B, n_fft, F) -> (B, F * hop)."""
        num_frames = frames.shape[-1]
        total = (num_frames - 1) * self.hop + self.n_fft
        summed = F.fold(frames, (1, total), (1, self.n_fft), stride=(1, self.hop))
        return summed[:, 0, 0, self.cut : self.cut + num_frames * self.hop]


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


class Vocos(Vocoder):
    """mel (B, M, F) -> waveform (B, 1, F * hop), about [-1, 1] (writers clip).

    Source: Siuzdak 2023, https://arxiv.org/abs/2306.00814
    """

    def __init__(self, shape: VocosShape) -> None:
        inverse = InverseFourier(shape.n_fft, shape.hop, shape.alignment)
        super().__init__(shape.num_mels, shape.hop, (1 + shape.blocks) * (KERNEL // 2) + inverse.context_frames)
        self.shape = shape
        self.embed = nn.Conv1d(shape.num_mels, shape.channels, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(shape.channels, eps=NORM_EPSILON)
        scale = 1 / max(1, shape.blocks)
        self.convnext = nn.ModuleList(ConvNextBlock(shape.channels, shape.widened, scale) for _ in range(shape.blocks))
        self.final_layer_norm = nn.LayerNorm(shape.channels, eps=NORM_EPSILON)
        self.out = nn.Linear(shape.channels, shape.n_fft + 2)
        self.inverse: nn.Module = inverse
        self.apply(_initialise)

    def for_export(self) -> Vocos:
        """``for_inference`` without complex numbers, for formats that have none."""
        fixed = self.for_inference()
        if isinstance(fixed.inverse, InverseFourier):
            fixed.inverse = ConvolutionalInverse(fixed.inverse)
        return fixed

    def synthesise(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) -> waveform (B, 1, F * hop)."""
        hidden = self.norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            hidden = block(hidden)
        log_magnitude, phase = self.out(self.final_layer_norm(hidden.transpose(1, 2))).transpose(1, 2).chunk(2, dim=1)
        # Half precision has no complex type, and the transform cancels in it; so too in a network cast to it.
        with torch.autocast(mel.device.type, enabled=False):
            dtype = torch.promote_types(log_magnitude.dtype, torch.float32)
            # Clamped before the exponential: infinity times a slope of 0 is no number.
            magnitude = log_magnitude.to(dtype).clamp(max=MAX_LOG_MAGNITUDE).exp()
            angle = phase.to(dtype)
            waveform: Tensor = self.inverse(magnitude * angle.cos(), magnitude * angle.sin())
            return waveform[:, None]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=DEVIATION)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
