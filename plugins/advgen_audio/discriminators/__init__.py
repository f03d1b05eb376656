"""Critics of waveforms, alone or in any set; the published sets by name."""

from advgen_audio.discriminators.base import CriticSet, WaveformCritic, split_verdict
from advgen_audio.discriminators.samples import MultiPeriodCritic, MultiScaleCritic, PeriodCritic, ScaleCritic
from advgen_audio.discriminators.spectral import BandCritic, MultiBandCritic, MultiResolutionCritic, ResolutionCritic

__all__ = [
    "BandCritic",
    "CriticSet",
    "MultiBandCritic",
    "MultiPeriodCritic",
    "MultiResolutionCritic",
    "MultiScaleCritic",
    "PeriodCritic",
    "ResolutionCritic",
    "ScaleCritic",
    "WaveformCritic",
    "bigvgan_critics",
    "hifigan_critics",
    "split_verdict",
    "vocos_critics",
]


def hifigan_critics() -> CriticSet:
    """Periods and scales. Source: Kong et al. 2020, https://arxiv.org/abs/2010.05646"""
    return CriticSet({"period": MultiPeriodCritic(), "scale": MultiScaleCritic()})


def bigvgan_critics() -> CriticSet:
    """Periods and magnitudes, under a Hann window. Source: Lee et al. 2023, https://arxiv.org/abs/2206.04658"""
    return CriticSet({"period": MultiPeriodCritic(), "resolution": MultiResolutionCritic()})


def vocos_critics() -> CriticSet:
    """Periods and complex bands, the latter at a tenth. Source: Siuzdak 2023, https://arxiv.org/abs/2306.00814"""
    critics = {"period": MultiPeriodCritic(skip_first=True), "band": MultiBandCritic(skip_first=True)}
    return CriticSet(critics, {"band": 0.1}, share="mean")
