"""Griffin and Lim's algorithm on log mels: what a vocoder must beat.

Legend: B batch, M mel bands, K bins, F frames, T samples.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advgen_audio.spectra.front_ends import MelSpec
from advgen_audio.spectra.inverse import Consistency

ITERATIONS = 32
MOMENTUM = 0.99
EPSILON = 1e-12
SEED = 11


class GriffinLim(nn.Module):
    """log mel (B, M, F) -> waveform (B, T): magnitudes by the filters' pseudo-inverse, phases by rounds, 32 unless given.

    Random initial phases come from a fixed seed, so equal mels give equal sound.

    Source: Griffin and Lim 1984, https://doi.org/10.1109/TASSP.1984.1164317; momentum, Perraudin et al. 2013,
    https://doi.org/10.1109/WASPAA.2013.6701851
    """

    unmix: Tensor

    def __init__(self, spec: MelSpec, iterations: int = ITERATIONS) -> None:
        super().__init__()
        self.consistency, self.iterations = Consistency(spec), iterations
        self.register_buffer("unmix", torch.linalg.pinv(self.consistency.mel.filters), persistent=False)

    @torch.no_grad()
    def forward(self, mel: Tensor) -> Tensor:
        magnitude = self._magnitude(mel)
        phase = 2 * torch.pi * torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(SEED)).to(magnitude)
        direction, before = torch.polar(torch.ones_like(phase), phase), torch.zeros((), device=mel.device)
        for _ in range(self.iterations):
            rebuilt = self.consistency(magnitude * direction)
            direction = rebuilt - MOMENTUM / (1 + MOMENTUM) * before
            direction, before = direction / (direction.abs() + EPSILON), rebuilt
        spec, waveform = self.consistency.mel.spec, self.consistency.inverse.of_frames(magnitude * direction)
        return waveform[:, : max(1, mel.shape[-1] - (spec.padding == "center")) * spec.hop]

    def _magnitude(self, mel: Tensor) -> Tensor:
        """log mel (B, M, F) -> (B, F, K)."""
        spec = self.consistency.mel.spec
        raised = self.unmix @ self.consistency.mel.linear(mel)
        return raised.clamp_min(0).transpose(1, 2) ** (1 / spec.power)
