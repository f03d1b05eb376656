"""Measures of vocoders: each against numbers worked out by hand, silence, and what must not change it."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from torch import Tensor

from advgen import Batch
from advgen_audio.config import AudioConfig
from advgen_audio.measures import (
    CopyMeasures,
    Pitch,
    compare_pitch,
    listen,
    listening,
    mel_cepstral_distortion,
    track_pitch,
    voice_errors,
)
from advgen_audio.measures.cepstra import DECIBELS, ORDER, cepstral_spec, mel_cepstra
from advgen_audio.modality import AudioModality
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram

RATE = 8000
SPEC = MelSpec(rate_hz=RATE, n_fft=256, hop=64, num_mels=64)
WHOLE = torch.tensor([RATE])
needs_packages = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("pesq", "pystoi")), reason="needs the extra metrics"
)


def voice(frequency_hz: float | Tensor, rate_hz: int = RATE, seconds: float = 1.0, fundamental: float = 1.0) -> Tensor:
    """(1, T) harmonics with amplitudes 1/k up to half the rate; the frequency may change from sample to sample."""
    samples = torch.arange(round(seconds * rate_hz), dtype=torch.float64)
    frequencies = torch.as_tensor(frequency_hz, dtype=torch.float64).expand(len(samples))
    phase = 2 * math.pi * frequencies.cumsum(0) / rate_hz
    count = int(0.45 * rate_hz / float(frequencies.max()))
    parts = [(fundamental if k == 1 else 1.0) / k * (k * phase + k).sin() for k in range(1, count + 1)]
    return 0.1 * torch.stack(parts).sum(0).float()[None]


def noise(num_samples: int = RATE, clips: int = 1) -> Tensor:
    return 0.1 * torch.randn(clips, num_samples, generator=torch.Generator().manual_seed(0))


def cents(found: Tensor, expected: Tensor | float) -> Tensor:
    return 1200 * (found / expected).log2().abs()


@pytest.mark.parametrize("rate_hz", [8000, 22050, 44100])
@pytest.mark.parametrize("frequency_hz", [60.0, 101.3, 220.0, 333.3, 545.0])
def test_the_pitch_of_a_steady_voice_is_right_within_a_cent(frequency_hz: float, rate_hz: int) -> None:
    for fundamental in (1.0, 0.05):
        found = track_pitch(voice(frequency_hz, rate_hz, fundamental=fundamental), rate_hz).f0_hz[0, 5:-5]
        assert cents(found, frequency_hz).max() < 1


def test_the_pitch_of_a_glide_is_followed_within_ten_cents() -> None:
    frequency = 100 * 2 ** torch.linspace(0, 1, RATE)
    found = track_pitch(voice(frequency), RATE)
    centres = torch.arange(100) * 80
    assert found.voiced[0, 5:-5].all()
    assert cents(found.f0_hz[0], frequency[centres])[5:-5].max() < 10


def test_noise_and_silence_are_unvoiced() -> None:
    assert track_pitch(noise(clips=20), RATE).voiced.double().mean() < 0.01
    silent = track_pitch(torch.zeros(2, RATE), RATE)
    assert not silent.voiced.any() and not silent.periodicity.any()


def test_gain_changes_neither_pitch_nor_periodicity_above_the_silent_level() -> None:
    loud, soft, inaudible = (track_pitch(gain * voice(150.0), RATE) for gain in (1.0, 0.02, 0.001))
    assert loud.voiced.all() and torch.equal(loud.voiced, soft.voiced)
    assert torch.allclose(loud.f0_hz, soft.f0_hz, rtol=1e-4) and torch.allclose(loud.periodicity, soft.periodicity, atol=1e-4)
    assert not inaudible.voiced.any() and not inaudible.periodicity.any()


def test_periodicity_falls_with_noise_from_one() -> None:
    steps = [track_pitch(voice(150.0) + gain * noise(), RATE).periodicity[0, 5:-5].mean() for gain in (0.0, 0.3, 1.0, 10.0)]
    assert steps[0] > 0.999 and steps == sorted(steps, reverse=True) and steps[-1] < 0.35


def test_a_voice_that_stops_is_voiced_just_as_long() -> None:
    found = track_pitch(torch.cat([voice(150.0, seconds=0.5), noise(RATE // 2)], 1), RATE)
    assert found.voiced[0, 2:48].all() and not found.voiced[0, 53:].any()


@pytest.mark.parametrize("num_samples", [1, 79, 81, 480])
def test_any_length_has_a_frame_every_ten_milliseconds(num_samples: int) -> None:
    found = track_pitch(noise(num_samples), RATE)
    assert found.f0_hz.shape == (1, -(-num_samples // 80)) and torch.isfinite(found.periodicity).all()


def test_a_clip_is_tracked_as_if_it_stood_alone() -> None:
    short = voice(180.0, seconds=0.3)
    padded = torch.cat([short, noise(RATE - short.shape[1])], 1)
    alone = track_pitch(short, RATE)
    among = track_pitch(torch.cat([padded, voice(120.0)]), RATE, torch.tensor([short.shape[1], RATE]))
    assert among.inside.sum(1).tolist() == [30, 100]
    assert torch.allclose(among.f0_hz[0, :30], alone.f0_hz[0], rtol=1e-5) and not among.f0_hz[0, 30:].any()


def track(f0_hz: list[float], periodicity: float = 1.0) -> Pitch:
    values = torch.tensor([f0_hz])
    return Pitch(values, torch.full_like(values, periodicity), torch.ones_like(values, dtype=torch.bool))


def test_errors_of_pitch_and_voicing_by_hand() -> None:
    found = compare_pitch(track([100.0, 100.0, 100.0, 0.0], 1.0), track([200.0, 100.0, 0.0, 100.0], 0.75))
    assert found["pitch_rmse_cents"] == pytest.approx(1200 / math.sqrt(2))
    assert found["voicing_f1"] == pytest.approx(2 / 3)
    assert found["periodicity_rmse"] == pytest.approx(0.25)


def test_what_has_no_frames_to_be_measured_on_is_absent() -> None:
    assert set(compare_pitch(track([0.0, 0.0]), track([0.0, 0.0]))) == {"periodicity_rmse"}
    assert compare_pitch(track([100.0, 0.0]), track([0.0, 100.0])) == {"periodicity_rmse": 0.0, "voicing_f1": 0.0}


def test_a_copy_a_semitone_higher_is_a_hundred_cents_off() -> None:
    found = voice_errors(voice(150.0), voice(150.0 * 2 ** (1 / 12)), WHOLE, RATE)
    assert found["pitch_rmse_cents"] == pytest.approx(100, abs=0.5) and found["voicing_f1"] == 1.0


def test_a_ripple_over_the_bands_is_one_coefficient() -> None:
    bands, frames = 40, 3
    for k in (1, 5, ORDER):
        ripple = 0.7 * (math.pi * k * (torch.arange(bands) + 0.5) / bands).cos()
        found = mel_cepstra((2.0 + ripple)[:, None].expand(bands, frames))
        expected = torch.zeros(ORDER, frames)
        expected[k - 1] = 0.7
        assert torch.allclose(found, expected, atol=1e-5)


def test_distortion_is_the_root_mean_square_of_the_smooth_spectra_in_decibels() -> None:
    one, other = torch.randn(2, 40, 1, generator=torch.Generator().manual_seed(1)).unbind()
    angles = torch.arange(1, ORDER + 1) * (torch.arange(40)[:, None] + 0.5) * math.pi / 40
    difference = mel_cepstra(one - other)[:, 0]
    smooth_db = 20 / math.log(10) * angles.cos() @ difference
    assert float(DECIBELS * difference.norm()) == pytest.approx(float(smooth_db.square().mean().sqrt()), rel=1e-5)


def test_distortion_hears_colour_but_not_level() -> None:
    clip = noise()
    softer = clip.clone()
    softer[:, 1:] = 0.5 * (clip[:, 1:] + clip[:, :-1])
    assert mel_cepstral_distortion(clip, clip, WHOLE, RATE) == 0
    assert mel_cepstral_distortion(clip, 0.5 * clip, WHOLE, RATE) < 1e-3
    assert mel_cepstral_distortion(clip, softer, WHOLE, RATE) > 2
    assert mel_cepstral_distortion(0 * clip, 0 * clip, WHOLE, RATE) == 0


@pytest.mark.parametrize("rate_hz", [8000, 24000])
def test_the_floor_is_about_ninety_decibels_below_a_full_scale_sine(rate_hz: int) -> None:
    spec = cepstral_spec(rate_hz)
    sine = (2 * math.pi * 1000 * torch.arange(rate_hz) / rate_hz).sin()[None]
    peak = MelSpectrogram(spec)(sine)[0, :, 50].max()
    assert float(peak - math.log(spec.floor)) / math.log(10) * 20 == pytest.approx(90, abs=5)


def test_padding_changes_no_measure() -> None:
    length, measures = 5000, CopyMeasures(SPEC)
    real, copy = voice(150.0)[:, :length], voice(151.0)[:, :length] + 0.1 * noise(length)
    padded = [torch.cat([clip, noise(3000)], 1) for clip in (copy, real)]
    alone = measures.measure(copy, real, torch.tensor([length]))
    among = measures.measure(*padded, torch.tensor([length]))
    assert set(alone) == set(among)
    assert all(among[name] == pytest.approx(value, rel=1e-3, abs=1e-5) for name, value in alone.items())


def test_every_measure_of_silence_is_finite() -> None:
    clips, silence, lengths = torch.cat([voice(150.0), noise()]), torch.zeros(2, RATE), torch.tensor([RATE, RATE])
    for real, copy in ((silence, silence), (silence, clips), (clips, silence)):
        found = CopyMeasures(SPEC).measure(copy, real, lengths)
        assert {"stft_distance", "mel_l1", "mcd_db", "periodicity_rmse"} <= set(found)
        assert all(math.isfinite(value) for value in found.values())


def held_out(clips: Tensor) -> Batch:
    lengths = torch.full((len(clips),), clips.shape[1])
    return Batch(clips[:, None], condition={"mel": MelSpectrogram(SPEC)(clips), "length": lengths})


def test_griffin_lims_copies_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measures, batch = CopyMeasures(SPEC), held_out(voice(150.0, seconds=0.4))
    first = measures(batch.values[:, 0], batch)
    monkeypatch.setattr(measures, "griffin_lim", lambda mels: pytest.fail("rebuilt"))
    monkeypatch.setattr(measures.griffin_lim, "to", lambda device: measures.griffin_lim, raising=False)
    assert measures(batch.values[:, 0], batch) == first
    assert first["mel_l1"] == 0 < first["griffin_lim/mel_l1"]


@needs_packages
def test_pesq_and_stoi_of_a_copy_are_at_their_best_and_fall_with_noise() -> None:
    clip = voice(100 + 60 * (torch.arange(2 * RATE) / 900).sin(), seconds=2.0) * (torch.arange(2 * RATE) / 700).sin().abs()
    lengths = torch.tensor([2 * RATE])
    same, noisy = (listen(clip, clip + gain * noise(2 * RATE), lengths, RATE) for gain in (0.0, 1.0))
    assert same["pesq_nb"] > 4.5 and same["stoi"] == pytest.approx(1, abs=1e-3)
    assert noisy["pesq_nb"] < same["pesq_nb"] - 0.5 and noisy["stoi"] < 0.9
    assert set(same) == {"pesq_nb", "pesq_clips", "stoi"}


@needs_packages
def test_wide_band_is_heard_from_sixteen_kilohertz_on() -> None:
    found = listen(*[voice(150.0, 24_000)] * 2, torch.tensor([24_000]), 24_000)
    assert found["pesq_wb"] > 4.5 and found["pesq_nb"] > 4.4


@needs_packages
def test_a_silent_copy_has_the_worst_score_and_short_clips_are_left_out() -> None:
    clips = voice(150.0).expand(2, RATE)
    found = listen(clips, torch.zeros(2, RATE), torch.tensor([RATE, 1000]), RATE)
    assert (found["pesq_nb"], found["pesq_clips"]) == (listening.WORST, 1.0)
    assert found["stoi"] == pytest.approx(0, abs=1e-3)
    assert listen(clips[:, :1000], clips[:, :1000], torch.tensor([1000, 1000]), RATE) == {}


def test_without_the_packages_rows_are_absent_and_a_line_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "installed", lambda package: None)
    assert listen(voice(150.0), voice(150.0), WHOLE, RATE) == {}
    notes = CopyMeasures(SPEC).notes()
    assert {name for name, note in notes.items() if note.missing} == {"pesq_nb", "stoi"}
    assert "pip install pystoi" in notes["stoi"].missing
    wide = CopyMeasures(SPEC.model_copy(update={"rate_hz": 16000})).notes()
    assert "pip install pesq" in wide["pesq_wb"].missing


def test_the_modality_says_how_each_of_its_metrics_is_measured() -> None:
    from advgen_audio.data.segments import pack_clips

    facts = {"sample_rate_hz": RATE, "length": RATE, "mel": SPEC.to_facts(), "examples": pack_clips(voice(150.0))}
    modality = AudioModality(AudioConfig(task="vocode"), facts)
    batch = held_out(voice(150.0))
    own = {name for name in modality.metrics(batch, batch) if "/" not in name}
    notes = modality.metric_notes()
    assert own - {"pesq_clips"} == {name for name, note in notes.items() if not note.missing}
    assert {name for name, note in notes.items() if note.better == "higher"} == {"voicing_f1", "pesq_nb", "stoi"}
    assert AudioModality(AudioConfig(), {"sample_rate_hz": RATE, "length": RATE}).metric_notes() == {}
