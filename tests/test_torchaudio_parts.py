"""Resampling and mel filters: our own against torchaudio's, and the fallback when torchaudio does not load."""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import tiny

from advgen.cli import main
from advgen_audio import torchaudio_parts
from advgen_audio.spectra.mel_scale import hz_to_mel, mel_filter_bank, mel_to_hz
from advgen_audio.spectra.resampling import resample

functional = torchaudio_parts.usable_torchaudio()
needs_torchaudio = pytest.mark.skipif(functional is None, reason="torchaudio does not load here (gen env says why)")
RATES_HZ = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
FAILURES = {
    "OSError": "raise OSError('libcudart.so.13: cannot open shared object file')",
    "RuntimeError": "raise RuntimeError('operator torchaudio::x does not exist')",
    "AttributeError": "import torch; torch.no_such_symbol",
    "ValueError": "raise ValueError('numpy.dtype size changed')",
    "SystemExit": "import sys; sys.exit('goodbye')",
}


@needs_torchaudio
@pytest.mark.parametrize(("rate_hz", "to_hz"), list(itertools.permutations(RATES_HZ, 2)))
def test_resampling_equals_torchaudios(rate_hz: int, to_hz: int) -> None:
    for dtype, shape in ((torch.float32, (2, 3001)), (torch.float64, (777,))):
        waveform = 2 * torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(rate_hz + to_hz)) - 1
        found, expected = resample(waveform, rate_hz, to_hz), functional.resample(waveform, rate_hz, to_hz)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@needs_torchaudio
@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("norm", [None, "slaney"])
def test_mel_filters_equal_torchaudios(rate_hz: int, scale: str, norm: str | None) -> None:
    bands = ((0.0, rate_hz / 2), (60.0, rate_hz / 2 - 200), (20.0, 3800.0))
    for n_fft, num_mels, (low_hz, high_hz) in itertools.product((64, 400, 1024, 2048), (1, 20, 80, 128), bands):
        place = (n_fft // 2 + 1, low_hz, high_hz, num_mels, rate_hz)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchaudio warns of empty bands
            expected = functional.melscale_fbanks(*place, norm=norm, mel_scale=scale)
        torch.testing.assert_close(mel_filter_bank(*place, norm=norm, scale=scale), expected, atol=1e-6, rtol=0)


def test_an_impulse_is_resampled_to_torchaudios_published_numbers() -> None:
    impulse = torch.zeros(1, 12)
    impulse[0, 5] = 1.0
    expected = [-0.02172334, 0.05090379, -0.11895988, 0.54388553, 0.27069178, -0.09356200, 0.04274800, -0.01795492]
    torch.testing.assert_close(resample(impulse, 3, 2), torch.tensor([expected]), atol=1e-6, rtol=0)


def test_filters_have_torchaudios_published_numbers() -> None:
    htk = [
        [0, 0.89345920, 0.16569166, 0, 0, 0, 0, 0, 0],
        [0, 0.10654083, 0.83430833, 0.65082365, 0.19871531, 0, 0, 0, 0],
        [0, 0, 0, 0.34917632, 0.80128467, 0.84258544, 0.56172359, 0.28086171, 0],
    ]
    slaney = [
        [0, 0.00142878, 0.00053487, 0, 0, 0, 0, 0, 0],
        [0, 0, 0.00085101, 0.00086471, 0.00023411, 0, 0, 0, 0],
        [0, 0, 0, 0.00021985, 0.00057935, 0.00058931, 0.00039287, 0.00019644, 0],
    ]
    for expected, norm, scale in ((htk, None, "htk"), (slaney, "slaney", "slaney")):
        found = mel_filter_bank(9, 0.0, 4000.0, 3, 8000, norm=norm, scale=scale).T
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_a_tone_keeps_its_pitch_and_level_when_it_is_resampled() -> None:
    seconds = torch.arange(16000, dtype=torch.float64) / 16000
    tone = torch.sin(2 * math.pi * 440 * seconds)
    found = resample(tone, 16000, 22050)
    expected = torch.sin(2 * math.pi * 440 * torch.arange(22050, dtype=torch.float64) / 22050)
    assert (found - expected)[200:-200].abs().max() < 2e-3
    assert resample(torch.sin(2 * math.pi * 7000 * seconds), 16000, 8000)[200:-200].abs().max() < 2e-2  # above half the rate


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mels_and_hertz_are_inverse(scale: str) -> None:
    frequencies = [0.0, 50.0, 700.0, 999.0, 1000.0, 4000.0, 12000.0]
    mels = torch.tensor([hz_to_mel(each, scale) for each in frequencies], dtype=torch.float64)
    torch.testing.assert_close(mel_to_hz(mels, scale), torch.tensor(frequencies, dtype=torch.float64))
    assert mels.diff().min() > 0 and hz_to_mel(1000.0, scale) == pytest.approx({"htk": 1000.0, "slaney": 15.0}[scale], abs=0.02)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Install a fake torchaudio whose import runs the given code."""

    def put(code: str) -> None:
        (tmp_path / "site" / "torchaudio").mkdir(parents=True)
        (tmp_path / "site" / "torchaudio" / "__init__.py").write_text(code)
        (tmp_path / "site" / "torchaudio" / "functional.py").write_text("")
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
            monkeypatch.delitem(sys.modules, name)
        torchaudio_parts.usable_torchaudio.cache_clear()

    yield put
    monkeypatch.undo()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio" and functional is None]:
        del sys.modules[name]
    torchaudio_parts.usable_torchaudio.cache_clear()


@pytest.mark.parametrize("failure", FAILURES)
def test_a_torchaudio_that_fails_in_any_way_is_answered_by_our_own_code(broken: Callable[[str], None], failure: str) -> None:
    broken(FAILURES[failure])
    assert torchaudio_parts.usable_torchaudio() is None
    assert float(torchaudio_parts.resample(torch.ones(100), 2, 1)[25]) == pytest.approx(1.0, abs=2e-3)
    assert torchaudio_parts.mel_filter_bank(9, 0.0, 8.0, 2, 16, norm=None, scale="htk").shape == (9, 2)


def test_a_torchaudio_whose_interface_has_changed_is_not_used(broken: Callable[[str], None], tmp_path: Path) -> None:
    broken("")
    changed = "def resample(waveform, *, source, target): return waveform\ndef melscale_fbanks(*a, **k): return None\n"
    (tmp_path / "site" / "torchaudio" / "functional.py").write_text(changed)
    assert torchaudio_parts.usable_torchaudio() is None
    assert torchaudio_parts.resample(torch.ones(30), 3, 1).shape == (10,)


def test_a_run_without_torchaudio_says_so_once_and_ends_well(
    broken: Callable[[str], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(FAILURES["OSError"])
    overrides = [word for each in tiny("audio", "train.sample_every=2") for word in ("--set", each)]
    with pytest.raises(SystemExit) as ended:
        main(["train", "--plugin", "audio", "--steps", "4", "--out", str(tmp_path / "run"), *overrides])
    told = capsys.readouterr().err
    assert ended.value.code == 0, told
    assert told.count("torchaudio does not load") == 1 and "libcudart.so.13" in told
    assert (tmp_path / "run" / "samples" / "step-00000004.wav").is_file()
