"""Mel front ends: their numbers against torchaudio's and librosa's formula, their frames, their refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from advgen import ConfigError, try_import
from advgen_audio.spectra.front_ends import (
    SPECS,
    MelMismatchError,
    MelSpec,
    MelSpectrogram,
    describe_difference,
    mel_filters,
    named_spec,
    reflect_pad,
    require_same,
)

torchaudio = try_import("torchaudio").module
needs_torchaudio = pytest.mark.skipif(torchaudio is None, reason="torchaudio does not load here (gen env says why)")
SMALL = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=40)


def noise(num_samples: int = 24000, batch: int = 2) -> torch.Tensor:
    return 0.1 * torch.randn(batch, num_samples, generator=torch.Generator().manual_seed(1))


@needs_torchaudio
def test_vocos_mels_equal_torchaudios():
    waveform = noise()
    reference = torchaudio.transforms.MelSpectrogram(24000, 1024, hop_length=256, n_mels=100, center=True, power=1)
    torch.testing.assert_close(MelSpectrogram(SPECS["vocos"])(waveform), reference(waveform).clamp_min(1e-7).log())


@needs_torchaudio
@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", ["slaney", "none"])
def test_power_mels_equal_torchaudios_for_every_scale_and_norm(scale, norm):
    waveform = noise(8000)
    spec = MelSpec(
        rate_hz=16000,
        n_fft=512,
        hop=128,
        window=400,
        num_mels=40,
        fmin_hz=60.0,
        fmax_hz=7000.0,
        scale=scale,
        norm=norm,
        power=2.0,
        log="10",
        floor=1e-10,
        padding="center",
    )
    reference = torchaudio.transforms.MelSpectrogram(
        16000,
        512,
        win_length=400,
        hop_length=128,
        f_min=60.0,
        f_max=7000.0,
        n_mels=40,
        norm=None if norm == "none" else norm,
        mel_scale=scale,
    )
    torch.testing.assert_close(MelSpectrogram(spec)(waveform), reference(waveform).clamp_min(1e-10).log10())


def test_hifigan_mels_equal_the_formula_written_out():
    waveform = noise(22050, batch=1)
    padded = np.pad(waveform[0].double().numpy(), 384, mode="reflect")
    frames = np.stack([padded[start : start + 1024] for start in range(0, len(padded) - 1023, 256)])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    magnitude = np.sqrt(np.abs(np.fft.rfft(frames * window)) ** 2 + 1e-9)
    expected = np.log(np.clip(magnitude @ slaney_filters(22050, 1024, 80, 0.0, 8000.0).T, 1e-5, None)).T
    found = MelSpectrogram(SPECS["hifigan"])(waveform)[0].numpy()
    assert found.shape == expected.shape == (80, 86)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def slaney_filters(rate_hz: int, n_fft: int, num_mels: int, fmin: float, fmax: float) -> np.ndarray:
    """librosa's default filters: linear below 1 kHz (3 mels per 200 Hz), 27 mels per factor 6.4 above; equal areas."""

    def to_mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)

    mels = np.linspace(to_mel(fmin), to_mel(fmax), num_mels + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * math.log(6.4) / 27))
    bins = np.arange(n_fft // 2 + 1) * rate_hz / n_fft
    up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(0, np.minimum(up, down)) * (2 / (edges[2:] - edges[:-2]))[:, None]


@pytest.mark.parametrize("name", ["hifigan", "bigvgan"])
def test_slaney_filters_equal_librosas_formula(name):
    spec = SPECS[name]
    expected = slaney_filters(spec.rate_hz, spec.n_fft, spec.num_mels, spec.fmin_hz, spec.highest_hz)
    np.testing.assert_allclose(mel_filters(spec).numpy(), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("name", sorted(SPECS))
@pytest.mark.parametrize("num_samples", [1, 100, 255, 256, 1000, 8192])
def test_the_number_of_frames_is_as_stated_for_any_length(name, num_samples):
    spec = SPECS[name]
    found = MelSpectrogram(spec)(noise(num_samples))
    assert found.shape == (2, spec.num_mels, spec.num_frames(num_samples))
    assert found.isfinite().all()


@pytest.mark.parametrize("spec", [*SPECS.values(), SMALL.model_copy(update={"floor_mode": "add"})])
def test_silence_is_at_the_floor_and_its_gradient_finite(spec):
    waveform = torch.zeros(1, 4096, requires_grad=True)
    mel = MelSpectrogram(spec)(waveform)
    mel.sum().backward()
    assert waveform.grad is not None and waveform.grad.isfinite().all()
    # The root of HiFi-GAN's 1e-9 lies above its floor.
    assert math.log(spec.floor) <= mel.min() + 1e-6 and mel.max() < math.log(spec.floor) + 6


def test_vocos_silence_is_exactly_its_floor():
    torch.testing.assert_close(MelSpectrogram(SPECS["vocos"])(torch.zeros(1, 4096)), torch.full((1, 100, 17), math.log(1e-7)))


def test_twice_the_amplitude_adds_log_two_and_the_gradient_is_right():
    mel = MelSpectrogram(SMALL.model_copy(update={"epsilon": 1e-12})).double()
    waveform = noise(512, batch=1).double()
    torch.testing.assert_close(
        mel(2 * waveform) - mel(waveform), torch.full((1, 40, 8), math.log(2.0)).double(), atol=1e-5, rtol=0
    )
    assert torch.autograd.gradcheck(lambda x: mel(x).mean(), waveform[:, :128].requires_grad_())


def test_mels_are_the_same_under_autocast():
    waveform = noise(2048)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = MelSpectrogram(SMALL)(waveform)
    torch.testing.assert_close(found, MelSpectrogram(SMALL)(waveform))


@pytest.mark.parametrize(("length", "left", "right"), [(1, 3, 2), (2, 5, 5), (5, 2, 4), (5, 11, 13), (9, 8, 0)])
def test_reflection_equals_numpys_also_where_the_clip_is_shorter_than_the_padding(length, left, right):
    values = torch.arange(float(length))
    np.testing.assert_array_equal(reflect_pad(values, left, right), np.pad(values.numpy(), (left, right), mode="reflect"))


def test_a_spec_survives_json_and_names_what_is_wrong():
    for spec in SPECS.values():
        assert MelSpec.from_facts(json.loads(json.dumps(spec.to_facts()))) == spec
    with pytest.raises(ConfigError, match="hop is missing; hopp is not known"):
        MelSpec.from_facts({"rate_hz": 8000, "n_fft": 256, "num_mels": 40, "hopp": 64})


def test_a_difference_is_told_field_by_field():
    assert describe_difference(SPECS["hifigan"], SPECS["hifigan"]) == ""
    assert describe_difference(SMALL, SMALL.model_copy(update={"window": 256, "fmax_hz": 4000.0})) == ""
    told = describe_difference(SPECS["bigvgan"], SPECS["vocos"])
    assert told.splitlines() == [
        "scale: slaney | htk",
        "norm: slaney | none",
        "epsilon: 1e-09 | 1e-18",
        "floor: 1e-05 | 1e-07",
        "padding: same | center",
    ]


def test_another_front_end_is_refused_with_both_side_by_side():
    require_same(SMALL, SMALL.model_copy(update={"window": 256}), expected_by="the run", found_in="a.npy")
    with pytest.raises(MelMismatchError) as refusal:
        require_same(SPECS["hifigan"], SPECS["bigvgan"], expected_by="the run", found_in="a.npy")
    lines = str(refusal.value).splitlines()
    assert any(line.split() == ["!", "num_mels", "80", "|", "100"] for line in lines)
    assert any(line.split() == ["hop", "256", "|", "256"] for line in lines)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hop": 300}, "skipped"),
        ({"window": 512}, "window 512"),
        ({"fmax_hz": 5000.0}, "half the rate"),
        ({"epsilon": 0.0}, "slope"),
    ],
)
def test_a_spec_that_cannot_work_is_refused(change, told):
    with pytest.raises(ValidationError, match=told):
        MelSpec(**(SMALL.to_facts() | change))


def test_unknown_names_and_shapes_are_refused():
    with pytest.raises(ConfigError, match="known: bigvgan, hifigan, vocos"):
        named_spec("melgan")
    with pytest.raises(ConfigError, match="expected"):
        MelSpectrogram(SMALL)(torch.zeros(1, 1, 512))
    with pytest.raises(ConfigError, match="empty waveform"):
        MelSpectrogram(SMALL)(torch.zeros(1, 0))
