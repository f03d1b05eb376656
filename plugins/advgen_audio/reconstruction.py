"""Distances between a generated and a real waveform for vocoders: of critics' features, mels and short-time spectra.

Legend: B batch, T samples, K bins, F frames. All are 0 at equality (but for the roots' epsilon), and finite with a
finite slope on silence. The real side needs no gradient and gets none.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from advgen import ConfigError, Head, Verdict
from advgen_audio.discriminators.spectral import Resolution, Spectrum
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram

STFT_RESOLUTIONS: tuple[Resolution, ...] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))  # n_fft, hop, window
# Least squared magnitude; it also keeps the logarithm and the relative error of silence finite.
LEAST_POWER = 1e-7
# Inside the root of a norm, where the slope would be infinite at equality.
EPSILON = 1e-12


def feature_matching(*, real: Verdict, fake: Verdict, include_scores: bool = True) -> Tensor:
    """Mean absolute difference of what critics see inside, summed over layers and, by weight, over heads; a scalar.

    Args:
        real: verdict of the real waveforms; only its values are used.
        fake: verdict of the generated waveforms, from the same critics.
        include_scores: the scores count as the last layer, as published vocoders have it.

    Raises:
        ConfigError: where the verdicts have different heads, or no features.

    Source: Larsen et al. 2016, https://arxiv.org/abs/1512.09300; in vocoders, Kumar et al. 2019, https://arxiv.org/abs/1910.06711
    """
    if len(real.heads) != len(fake.heads):
        raise ConfigError(f"feature matching got {len(real.heads)} real and {len(fake.heads)} fake heads, expected the same")
    costs = list[Tensor]()
    for on_real, on_fake in zip(real.heads, fake.heads, strict=True):
        layers = list(zip(_layers(on_real, include_scores), _layers(on_fake, include_scores), strict=True))
        costs += [on_fake.weight * (one.detach() - other).abs().mean() for one, other in layers]
    if not costs:
        raise ConfigError("feature matching got heads without features; use critics that return them")
    return torch.stack(costs).sum()


def _layers(head: Head, include_scores: bool) -> tuple[Tensor, ...]:
    return (*head.features, head.scores) if include_scores else head.features


class MelDistance(nn.Module):
    """real, fake (B, T) -> mean absolute difference of log mels, a scalar, summed over the specs; in their logs' unit.

    Source: Kong et al. 2020 (one spec), https://arxiv.org/abs/2010.05646; Kumar et al. 2023 (many),
    https://arxiv.org/abs/2306.06546
    """

    def __init__(self, *specs: MelSpec) -> None:
        super().__init__()
        if not specs:
            raise ConfigError("a mel distance needs at least one mel front end")
        self.mels = nn.ModuleList(MelSpectrogram(spec) for spec in specs)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        return torch.stack([(mel(real).detach() - mel(fake)).abs().mean() for mel in self.mels]).sum()


def loss_spec(spec: MelSpec) -> MelSpec:
    """The front end that a vocoder of ``spec`` is trained with: up to half the rate, also where its input is not."""
    return spec.model_copy(update={"fmax_hz": None})


def multi_scale_specs(rate_hz: int) -> tuple[MelSpec, ...]:
    """Seven front ends, windows 32 to 2048, log base 10: short ones see clicks, long ones pitch.

    Source: Kumar et al. 2023 (DAC), https://arxiv.org/abs/2306.06546
    """
    return tuple(
        MelSpec(rate_hz=rate_hz, n_fft=32 * 2**octave, hop=8 * 2**octave, num_mels=5 * 2**octave, log="10", padding="center")
        for octave in range(7)
    )


class SpectralDistance(nn.Module):
    """real, fake (B, T) -> (spectral convergence, log-magnitude distance in nats), scalars, means over resolutions.

    Convergence is ||R - F|| / ||R|| of the magnitudes R and F, over the whole batch or, with ``over="clip"``, each clip's
    own, averaged: then a loud clip does not hide a quiet one. Fake = 2 * real gives (1, log 2).

    Source: Yamamoto et al. 2020 (Parallel WaveGAN), https://arxiv.org/abs/1910.11480
    """

    def __init__(
        self, resolutions: tuple[Resolution, ...] = STFT_RESOLUTIONS, *, over: Literal["batch", "clip"] = "batch"
    ) -> None:
        super().__init__()
        self.spectra = nn.ModuleList(Spectrum(*resolution, centred=True) for resolution in resolutions)
        self.over = over

    def forward(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [(self._magnitude(spectrum, real).detach(), self._magnitude(spectrum, fake)) for spectrum in self.spectra]
        convergence = torch.stack([self._convergence(one, other) for one, other in pairs])
        logarithm = torch.stack([(one.log() - other.log()).abs().mean() for one, other in pairs])
        return convergence.mean(), logarithm.mean()

    def _magnitude(self, spectrum: nn.Module, waveform: Tensor) -> Tensor:
        with torch.autocast(waveform.device.type, enabled=False):
            bins = spectrum(waveform)
            magnitude: Tensor = (bins.real.square() + bins.imag.square()).clamp_min(LEAST_POWER).sqrt()
        return magnitude

    def _convergence(self, real: Tensor, fake: Tensor) -> Tensor:
        first = 0 if self.over == "batch" else 1
        return (_norm(real - fake, first) / _norm(real, first)).mean()


def _norm(values: Tensor, first: int) -> Tensor:
    return (values.square().flatten(first).sum(-1) + EPSILON).sqrt()
