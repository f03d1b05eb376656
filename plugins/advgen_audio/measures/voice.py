"""How far copies of voices differ from their originals in pitch, voicing and periodicity, for evaluations of vocoders.

Legend: B clips, T samples, F frames.
"""

from __future__ import annotations

from torch import Tensor

from advgen_audio.measures.pitch import Pitch, track_pitch


def voice_errors(real: Tensor, copies: Tensor, lengths: Tensor, rate_hz: int) -> dict[str, float]:
    """Errors of (B, T) copies against the (B, T) clips that they copy, up to each clip's length; see ``compare_pitch``."""
    return compare_pitch(*(track_pitch(waveforms, rate_hz, lengths) for waveforms in (real, copies)))


def compare_pitch(real: Pitch, copy: Pitch) -> dict[str, float]:
    """The protocol of CARGAN on two tracks of the same frames.

    Returns:
        ``pitch_rmse_cents``: root mean square error of the logarithm of f0, over all frames voiced in both; an octave is 1,200.
        ``voicing_f1``: of the voiced frames, over all clips, in [0, 1].
        ``periodicity_rmse``: of each clip's frames, averaged over clips, in [0, 1].
        What has no frames to be measured on is absent: no pitch where nothing is voiced in both.

    Source: Morrison et al. 2022 (CARGAN), https://arxiv.org/abs/2110.10139, which reads f0 with a network (CREPE): numbers
    made with another tracker do not compare.
    """
    both, either = real.voiced & copy.voiced, real.voiced.sum() + copy.voiced.sum()
    found = {"periodicity_rmse": float(_per_clip(real, copy).mean())}
    if int(either):
        found["voicing_f1"] = float(2 * both.sum() / either)
    if bool(both.any()):
        cents = 1200 * (copy.f0_hz[both].double() / real.f0_hz[both].double()).log2()
        found["pitch_rmse_cents"] = float(cents.square().mean().sqrt())
    return found


def _per_clip(real: Pitch, copy: Pitch) -> Tensor:
    """(B,) root mean square difference of periodicity."""
    squares = (real.periodicity - copy.periodicity).double().square() * real.inside
    return (squares.sum(1) / real.inside.sum(1).clamp_min(1)).sqrt()
