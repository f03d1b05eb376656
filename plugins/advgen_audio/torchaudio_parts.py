"""torchaudio, loaded when it is needed, and refused with a way out where its build does not fit torch's. Legend: T samples."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import Tensor

from advgen import PluginError


def torchaudio_part(name: str) -> ModuleType:
    """Import ``torchaudio.<name>``; a build that does not match torch fails here, and says which pair does.

    Raises:
        PluginError: naming the pair of versions to install.
    """
    try:
        return importlib.import_module(f"torchaudio.{name}")
    except (ImportError, OSError, RuntimeError) as error:
        raise PluginError(
            f"torchaudio does not load with torch {torch.__version__} ({error}); install the pair torch>=2.11,<2.13 and "
            "torchaudio>=2.11,<2.12 from one index, so that both are built for the same CUDA or both for the CPU"
        ) from error


def resample(waveform: Tensor, rate_hz: int, to_hz: int) -> Tensor:
    """(..., T) at one rate to the other; as it is where they are equal."""
    if rate_hz == to_hz:
        return waveform
    resampled: Tensor = torchaudio_part("functional").resample(waveform, rate_hz, to_hz)
    return resampled
