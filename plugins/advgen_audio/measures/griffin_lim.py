"""Griffin and Lim's algorithm on log mels: what a vocoder must beat.

Legend: B batch, M mel bands, K bins, F frames, T samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advgen import ConfigError
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram
from advgen_audio.vocoders.vocos import InverseFourier

ITERATIONS = 32
MOMENTUM = 0.99
EPSILON = 1e-12
SEED = 11


class GriffinLim(nn.Module):
    """log mel (B, M, F) -> waveform (B, T): magnitudes by the filters' pseudo-inverse, phases by 32 rounds.

    Random initial phases come from a fixed seed, so equal mels give equal sound.

    Source: Griffin and Lim 1984, https://doi.org/10.1109/TASSP.1984.1164317; momentum, Perraudin et al. 2013,
    https://doi.org/10.1109/WASPAA.2013.6701851
    """

    unmix: Tensor

    def __init__(self, spec: MelSpec) -> None:
        super().__init__()
        if spec.window_length != spec.n_fft:
            raise ConfigError(f"Griffin-Lim needs a window as long as n_fft, got {spec.window_length} of {spec.n_fft}")
        self.mel = MelSpectrogram(spec)
        self.inverse = InverseFourier(spec.n_fft, spec.hop, spec.padding)
        self.register_buffer("unmix", torch.linalg.pinv(self.mel.filters), persistent=False)

    @torch.no_grad()
    def forward(self, mel: Tensor) -> Tensor:
        spec = self.mel.spec
        magnitude = (self.unmix @ self._linear(mel)).clamp_min(0) ** (1 / spec.power)
        phase = 2 * torch.pi * torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(SEED)).to(magnitude)
        direction, before = torch.polar(torch.ones_like(phase), phase), torch.zeros((), device=mel.device)
        for _ in range(ITERATIONS):
            rebuilt = self._analyse(self._synthesise(magnitude * direction))
            direction = rebuilt - MOMENTUM / (1 + MOMENTUM) * before
            direction, before = direction / (direction.abs() + EPSILON), rebuilt
        return self._synthesise(magnitude * direction)

    def _linear(self, mel: Tensor) -> Tensor:
        return mel.exp() if self.mel.spec.log == "e" else 10**mel

    def _synthesise(self, bins: Tensor) -> Tensor:
        spec, frames = self.mel.spec, bins.shape[-1]
        waveform: Tensor = self.inverse(bins.real, bins.imag)
        return waveform[:, : max(1, frames - (spec.padding == "center")) * spec.hop]

    def _analyse(self, waveform: Tensor) -> Tensor:
        spec, padded = self.mel.spec, self.mel.pad(waveform)
        return torch.stft(padded, spec.n_fft, spec.hop, window=self.mel.window, center=False, return_complex=True)
