"""Vocos: ConvNeXt blocks at the frame rate and an inverse Fourier transform instead of upsampling.

Legend: B batch, M mel bands, F frames, C channels, K bins (n_fft // 2 + 1), T samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen_audio.spectra.inverse import Alignment, ConvolutionalInverse, InverseFourier
from advgen_audio.vocoders.base import Vocoder

KERNEL = 7
NORM_EPSILON = 1e-6
DEVIATION = 0.02
MAX_LOG_MAGNITUDE = math.log(100.0)


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


class ConvNextVocoder(Vocoder):
    """Blocks at the frame rate, for a subclass to read waveforms from.

    Args:
        context_frames: frames on each side that what comes after the blocks depends on.
    """

    def __init__(self, num_mels: int, hop: int, channels: int, widened: int, blocks: int, context_frames: int) -> None:
        super().__init__(num_mels, hop, (1 + blocks) * (KERNEL // 2) + context_frames)
        self.embed = nn.Conv1d(num_mels, channels, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(channels, eps=NORM_EPSILON)
        self.convnext = nn.ModuleList(ConvNextBlock(channels, widened, 1 / max(1, blocks)) for _ in range(blocks))
        self.final_layer_norm = nn.LayerNorm(channels, eps=NORM_EPSILON)

    def see(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) -> (B, F, C)."""
        hidden = self.norm(self.embed(mel).transpose(1, 2)).transpose(1, 2)
        for block in self.convnext:
            hidden = block(hidden)
        seen: Tensor = self.final_layer_norm(hidden.transpose(1, 2))
        return seen


class Vocos(ConvNextVocoder):
    """mel (B, M, F) -> waveform (B, 1, F * hop), about [-1, 1] (writers clip).

    Source: Siuzdak 2023, https://arxiv.org/abs/2306.00814
    """

    def __init__(self, shape: VocosShape) -> None:
        inverse = InverseFourier(shape.n_fft, shape.hop, shape.alignment)
        super().__init__(shape.num_mels, shape.hop, shape.channels, shape.widened, shape.blocks, inverse.context_frames)
        self.shape = shape
        self.out = nn.Linear(shape.channels, shape.n_fft + 2)
        self.inverse: nn.Module = inverse
        self.apply(initialise)

    def for_export(self) -> Vocos:
        """``for_inference`` without complex numbers, for formats that have none."""
        fixed = self.for_inference()
        if isinstance(fixed.inverse, InverseFourier):
            fixed.inverse = ConvolutionalInverse(fixed.inverse)
        return fixed

    def synthesise(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) -> waveform (B, 1, F * hop)."""
        log_magnitude, phase = self.out(self.see(mel)).transpose(1, 2).chunk(2, dim=1)
        # Half precision has no complex type, and the transform cancels in it; so too in a network cast to it.
        with torch.autocast(mel.device.type, enabled=False):
            dtype = torch.promote_types(log_magnitude.dtype, torch.float32)
            # Clamped before the exponential: infinity times a slope of 0 is no number.
            magnitude = log_magnitude.to(dtype).clamp(max=MAX_LOG_MAGNITUDE).exp()
            angle = phase.to(dtype)
            waveform: Tensor = self.inverse(magnitude * angle.cos(), magnitude * angle.sin())
            return waveform[:, None]


def initialise(module: nn.Module) -> None:
    """Weights as published, for ``apply``."""
    if isinstance(module, nn.Conv1d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=DEVIATION)
        assert module.bias is not None
        nn.init.zeros_(module.bias)
