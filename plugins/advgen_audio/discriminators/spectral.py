"""Critics of short-time spectra: magnitudes at several resolutions, and complex spectra band by band.

Legend: B batch, T samples, K bins (n_fft // 2 + 1), F frames, C channels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import ConfigError, Head
from advgen_audio.discriminators.base import SLOPE, WaveformCritic, judge_layers
from advgen_audio.spectra.front_ends import reflect_pad
from advgen_audio.vocoders.base import weight_normed

Resolution = tuple[int, int, int]

RESOLUTIONS: tuple[Resolution, ...] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop, window
WINDOWS = (2048, 1024, 512)
BAND_EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
# Squared magnitude under which a root's slope no longer grows.
EPSILON = 1e-9
PEAK = 0.8
# Far below any sound's peak; on silence it bounds the slope of the normalisation.
SILENT_PEAK = 1e-5


class Spectrum(nn.Module):
    """waveform (B, T) -> complex spectrum (B, K, F), in float32 also under autocast, mirrored at the edges.

    With ``centred`` frames stand on every hop-th sample (T // hop + 1 of them), otherwise on the middle of each hop.
    """

    window: Tensor

    def __init__(self, n_fft: int, hop: int, window: int | None = None, *, centred: bool, rectangular: bool = False) -> None:
        super().__init__()
        self.n_fft, self.hop, self.length, self.centred = n_fft, hop, window or n_fft, centred
        if not self.hop <= n_fft or not self.length <= n_fft:
            raise ConfigError(f"n_fft {n_fft} is shorter than its hop {hop} or window {self.length}")
        shape = torch.ones(self.length) if rectangular else torch.hann_window(self.length)
        self.register_buffer("window", shape, persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        left = right = self.n_fft // 2
        if not self.centred:
            left = (self.n_fft - self.hop) // 2
            # A clip shorter than a hop still fills one frame.
            right = self.n_fft - self.hop - left + max(0, self.hop - waveform.shape[-1])
        padded = reflect_pad(waveform.to(self.window.dtype), left, right)
        return torch.stft(padded, self.n_fft, self.hop, self.length, self.window, center=False, return_complex=True)


class ResolutionCritic(WaveformCritic):
    """waveform (B, 1, T) -> a head (B, K, F / 8): convolutions over the magnitudes, strided in time.

    Args:
        rectangular: no window's slopes, as BigVGAN published it, which smears strong tones over all bins.

    Source: Jang et al. 2021 (UnivNet), https://arxiv.org/abs/2106.07889
    """

    def __init__(self, resolution: Resolution, channels: int = 32, *, rectangular: bool = False) -> None:
        super().__init__()
        self.spectrum = Spectrum(*resolution, centred=False, rectangular=rectangular)
        self.convs = nn.ModuleList(spectral_layers(1, channels))
        self.conv_post = weight_normed(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        with torch.autocast(waveform.device.type, enabled=False):
            bins = self.spectrum(waveform[:, 0])
            magnitude = (bins.real.square() + bins.imag.square() + EPSILON).sqrt()
        return (judge_layers(self.convs, self.conv_post, magnitude[:, None]),)


class MultiResolutionCritic(WaveformCritic):
    """waveform (B, 1, T) -> a head for each resolution (n_fft, hop, window).

    Source: Jang et al. 2021 (UnivNet), https://arxiv.org/abs/2106.07889; sizes as in Lee et al. 2023 (BigVGAN)
    """

    def __init__(
        self, channels: int = 32, resolutions: tuple[Resolution, ...] = RESOLUTIONS, *, rectangular: bool = False
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            ResolutionCritic(resolution, channels, rectangular=rectangular) for resolution in resolutions
        )

    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        return tuple(head for critic in self.discriminators for head in critic(waveform))


class BandCritic(WaveformCritic):
    """waveform (B, 1, T) -> a head (B, F, K / 8): real and imaginary parts, each band through its own convolutions.

    The mean is removed and the peak brought to 0.8, so that quiet clips are judged as strictly as loud ones.

    Args:
        edges: of the bands, as shares of half the rate.
        skip_first: the first layer of each band is no feature to match (Vocos).

    Source: Kumar et al. 2023 (DAC), https://arxiv.org/abs/2306.06546
    """

    def __init__(
        self, window: int, channels: int = 32, edges: tuple[float, ...] = BAND_EDGES, *, skip_first: bool = False
    ) -> None:
        super().__init__()
        self.skip_first = skip_first
        self.spectrum = Spectrum(window, window // 4, centred=True)
        bins = [int(edge * (window // 2 + 1)) for edge in edges]
        self.bands = [(low, high) for low, high in pairwise(bins) if high > low]
        self.band_convs = nn.ModuleList(nn.ModuleList(spectral_layers(2, channels)) for _ in self.bands)
        self.conv_post = weight_normed(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        with torch.autocast(waveform.device.type, enabled=False):
            bins = self.spectrum(normalise(waveform[:, 0].to(self.spectrum.window.dtype)))
            parts = torch.view_as_real(bins).permute(0, 3, 2, 1)
        features, judged = list[Tensor](), list[Tensor]()
        for (low, high), layers in zip(self.bands, self.band_convs, strict=True):
            hidden, found = parts[..., low:high], list[Tensor]()
            for layer in layers.children():
                hidden = F.leaky_relu(layer(hidden), SLOPE)
                found.append(hidden)
            features += found[int(self.skip_first) :]
            judged.append(hidden)
        return (Head(self.conv_post(torch.cat(judged, dim=-1)).squeeze(1), features=tuple(features)),)


class MultiBandCritic(WaveformCritic):
    """waveform (B, 1, T) -> a head for each window.

    Source: Kumar et al. 2023 (DAC), https://arxiv.org/abs/2306.06546
    """

    def __init__(
        self,
        channels: int = 32,
        windows: tuple[int, ...] = WINDOWS,
        edges: tuple[float, ...] = BAND_EDGES,
        *,
        skip_first: bool = False,
    ) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(BandCritic(window, channels, edges, skip_first=skip_first) for window in windows)

    def forward(self, waveform: Tensor) -> tuple[Head, ...]:
        return tuple(head for critic in self.discriminators for head in critic(waveform))


def normalise(waveform: Tensor) -> Tensor:
    """(B, T) without its mean and with a peak of 0.8; silence stays silence."""
    centred = waveform - waveform.mean(dim=-1, keepdim=True)
    return PEAK * centred / (centred.abs().amax(dim=-1, keepdim=True) + SILENT_PEAK)


def spectral_layers(before: int, channels: int) -> list[nn.Conv2d]:
    """(B, before, A, N) -> (B, C, A, N / 8) in five convolutions, each wider along the last axis."""
    return [
        weight_normed(nn.Conv2d(before, channels, (3, 9), padding=(1, 4))),
        *(weight_normed(nn.Conv2d(channels, channels, (3, 9), (1, 2), (1, 4))) for _ in range(3)),
        weight_normed(nn.Conv2d(channels, channels, 3, padding=1)),
    ]
