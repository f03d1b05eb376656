"""PESQ and STOI, where their packages are installed: what listeners would say of copies, as standards predict it.

Legend: B clips, T samples.
"""

from __future__ import annotations

import math
import warnings
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from advgen import try_import
from advgen_audio.torchaudio_parts import resample

Pairs = list[tuple[np.ndarray, np.ndarray]]

MAX_CLIPS = 300
MAX_SECONDS, STRETCH_SECONDS = 15.0, 30.0
NARROW_HZ, WIDE_HZ = 8_000, 16_000
WORST = 1.0
PACKAGES = {"pesq": ("pesq_nb", "pesq_wb"), "pystoi": ("stoi",)}


def installed(package: str) -> ModuleType | None:
    """Return an optional package, or None if it is missing or does not load."""
    return try_import(package).module


def missing(rate_hz: int) -> dict[str, str]:
    """The measures that cannot be made here, each with the package to install."""
    absent = {name: package for package, names in PACKAGES.items() if installed(package) is None for name in names}
    wanted = {name: package for name, package in absent.items() if name != "pesq_wb" or rate_hz >= WIDE_HZ}
    return {
        name: f"package {package} is not installed or does not load: pip install {package}" for name, package in wanted.items()
    }


def listen(real: Tensor, copies: Tensor, lengths: Tensor, rate_hz: int) -> dict[str, float]:
    """Predicted quality and intelligibility of (B, T) copies of (B, T) clips, up to each one's length, of the first 300.

    Of a clip the first 15 seconds are heard: PESQ's code has room for 50 utterances.

    Returns:
        ``pesq_nb`` (and ``pesq_wb`` from 16 kHz on), mean opinion score in about [1, 4.6], and ``pesq_clips``, how many it is
        a mean of: PESQ takes none below a quarter of a second or without an utterance. ``stoi`` in about [0, 1], of clips
        joined to stretches of 30 seconds: it correlates 384 ms, which many a clip alone does not have.
        A measure without its package, or with nothing to hear, is absent.

    Source: ITU-T P.862 and P.862.2; Taal et al. 2011 (STOI), https://doi.org/10.1109/TASL.2011.2114881
    """
    first = slice(0, MAX_CLIPS)
    sizes = lengths[first].clamp(max=round(MAX_SECONDS * rate_hz)).tolist()
    clips = zip(real[first], copies[first], sizes, strict=True)
    pairs = [(_array(one[:size]), _array(other[:size])) for one, other, size in clips if bool(one[:size].any())]
    return _pesq(pairs, rate_hz) | _stoi(pairs, rate_hz)


def _array(waveform: Tensor) -> np.ndarray:
    values: np.ndarray = waveform.detach().float().cpu().numpy()
    return values


def _pesq(pairs: Pairs, rate_hz: int) -> dict[str, float]:
    package = installed("pesq")
    if package is None:
        return {}
    found: dict[str, float] = {}
    for name, mode, at_hz in (("pesq_wb", "wb", WIDE_HZ), ("pesq_nb", "nb", NARROW_HZ)):
        scores = _scores(package, pairs, rate_hz, mode, at_hz) if rate_hz >= at_hz or mode == "nb" else []
        if scores:
            found |= {name: sum(scores) / len(scores), "pesq_clips": float(len(scores))}
    return found


def _scores(package: ModuleType, pairs: Pairs, rate_hz: int, mode: str, at_hz: int) -> list[float]:
    """One for each pair that PESQ takes. A silent copy, which it answers with NaN, has the worst score."""
    scores = list[float]()
    for one, other in ((_resampled(pair[0], rate_hz, at_hz), _resampled(pair[1], rate_hz, at_hz)) for pair in pairs):
        score = package.pesq(at_hz, one, other, mode, on_error=package.PesqError.RETURN_VALUES)
        if math.isnan(score) or score >= 0:
            scores.append(WORST if math.isnan(score) else float(score))
    return scores


def _resampled(values: np.ndarray, rate_hz: int, at_hz: int) -> np.ndarray:
    return resample(torch.from_numpy(values), rate_hz, at_hz).numpy()


def _stoi(pairs: Pairs, rate_hz: int) -> dict[str, float]:
    package = installed("pystoi")
    if package is None:
        return {}
    scores, weights = list[float](), list[int]()
    for one, other in _stretches(pairs, round(STRETCH_SECONDS * rate_hz)):
        score = _intelligibility(package, one, other, rate_hz)
        if score is not None:
            scores.append(score)
            weights.append(len(one))
    return {"stoi": float(np.average(scores, weights=weights))} if scores else {}


def _stretches(pairs: Pairs, least: int) -> Pairs:
    """Clips end to end, ``least`` samples or more in each; what is left goes to the last."""
    groups, size = list[Pairs](), least
    for pair in pairs:
        if size >= least:
            groups.append([])
            size = 0
        groups[-1].append(pair)
        size += len(pair[0])
    if len(groups) > 1 and size < least:
        groups[-2] += groups.pop()
    return [(np.concatenate([one for one, _ in group]), np.concatenate([other for _, other in group])) for group in groups]


def _intelligibility(package: ModuleType, one: np.ndarray, other: np.ndarray, rate_hz: int) -> float | None:
    """None where nothing is left without the pauses, which the package says by a warning, or fails at."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            score = float(package.stoi(one, other, rate_hz))
        except (RuntimeWarning, ValueError, IndexError):
            return None
    return score if math.isfinite(score) else None
