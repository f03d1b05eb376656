"""Clips of many lengths: where a generated one ends, what is written of it, and how far samples lie from the mean."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import advgen
from advgen import ConfigError, DataRequest, Sample
from advgen.evaluation import evaluate_run
from advgen_audio.config import AudioConfig
from advgen_audio.ends import ends_of_sound, level_of_ends, without_tails
from advgen_audio.modality import AudioModality

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

RATE_HZ, LEVEL = 8000, 0.01
FACTS = {"corpus": "folder", "sample_rate_hz": RATE_HZ, "length": 4096, "classes": [], "end_level": LEVEL}


def clip(sound: int, tail: float, length: int = 4096) -> torch.Tensor:
    """(1, 1, T): a tone of amplitude 0.5 for ``sound`` samples, then noise of that size."""
    generator = torch.Generator().manual_seed(0)
    waveform = tail * (2 * torch.rand(length, generator=generator) - 1)
    waveform[:sound] = 0.5 * torch.sin(torch.arange(sound) * 0.3)
    return waveform[None, None]


def fill(folder: Path, sizes: list[int]) -> Path:
    folder.mkdir()
    for index, size in enumerate(sizes):
        soundfile.write(folder / f"{index}.wav", 0.5 * np.sin(np.arange(size) * (0.2 + 0.01 * index)), RATE_HZ)
    return folder


@pytest.mark.parametrize("tail", [0.0, 0.001, 0.004])
def test_a_clip_ends_eight_milliseconds_behind_its_last_loud_sample(tail: float) -> None:
    (end,) = ends_of_sound(clip(2000, tail), RATE_HZ, LEVEL).tolist()
    assert 2000 <= end <= 2000 + 64


def test_what_is_louder_than_a_hundredth_of_the_peak_belongs_to_the_clip() -> None:
    assert ends_of_sound(clip(2000, 0.02), RATE_HZ, LEVEL).tolist() == [4096]


def test_a_silent_clip_is_left_whole() -> None:
    assert ends_of_sound(torch.zeros(1, 1, 4096), RATE_HZ, LEVEL).tolist() == [4096]


def test_ends_of_a_batch_are_those_of_its_clips() -> None:
    clips = [clip(size, 0.002) for size in (300, 1000, 4096)]
    together = ends_of_sound(torch.cat(clips), RATE_HZ, LEVEL)
    assert together.tolist() == [ends_of_sound(each, RATE_HZ, LEVEL).item() for each in clips]


def test_only_what_is_behind_the_end_becomes_silence() -> None:
    noisy = clip(2000, 0.002)
    (end,) = ends_of_sound(noisy, RATE_HZ, LEVEL).tolist()
    cut = without_tails(noisy, torch.tensor([end]))
    assert torch.equal(cut[..., :end], noisy[..., :end]) and not cut[..., end:].any()


@pytest.mark.parametrize(("sizes", "padded"), [([1500] * 39 + [900], True), ([2048] * 40, False)])
def test_data_say_how_loud_their_clips_end_where_some_are_padded(sizes: list[int], padded: bool, tmp_path: Path) -> None:
    corpus = AudioModality.read(AudioConfig(length=2048 if not padded else None), DataRequest(fill(tmp_path / "clips", sizes)))
    assert ("end_level" in corpus.facts) is padded
    assert not padded or corpus.facts["end_level"] == pytest.approx(1, abs=0.01), "these tones end as loud as they are"


def test_the_level_of_ends_is_the_median_of_clips() -> None:
    clips = [torch.cat([torch.ones(500), torch.full((128,), tail)]) for tail in (0.5, 0.02, 0.03)]
    assert level_of_ends(clips, RATE_HZ) == pytest.approx(0.03)


def test_samples_are_written_as_long_as_their_sound_where_data_are_padded(tmp_path: Path) -> None:
    batch = AudioModality(AudioConfig(), FACTS).postprocess(Sample(clip(1000, 0.001)), {})
    (path,) = AudioModality(AudioConfig(), FACTS).write(batch, tmp_path)
    assert 1000 <= soundfile.info(path).frames <= 1064
    whole = AudioModality(AudioConfig(), {name: fact for name, fact in FACTS.items() if name != "end_level"})
    (path,) = whole.write(whole.postprocess(Sample(clip(1000, 0.001)), {}), tmp_path)
    assert soundfile.info(path).frames == 4096


def test_a_run_draws_its_samples_at_the_truncation_of_its_options(tmp_path: Path) -> None:
    folder = fill(tmp_path / "clips", [1500 + 10 * index for index in range(60)])
    overrides = [*tiny("audio"), "options.truncation=0.0"]
    advgen.train("audio", data=folder, out=tmp_path / "run", overrides=overrides, steps=1, progress=False, device="cpu")
    run = advgen.load_generator(tmp_path / "run")
    mean = run.draw(3)
    assert torch.equal(mean.values[0], mean.values[1]), "at 0 every sample is the mean"
    assert not torch.equal(run.draw(3, truncation=1.0).values[0], run.draw(3, truncation=1.0).values[1])
    assert evaluate_run(tmp_path / "run")["protocol"]["truncation"] == 0.0
    assert "truncation" not in evaluate_run(tmp_path / "run", truncation=1.0)["protocol"]


def test_evaluation_at_a_truncation_refuses_what_has_no_mean(tmp_path: Path) -> None:
    advgen.train("text", out=tmp_path / "run", overrides=tiny("text"), steps=1, progress=False, device="cpu")
    with pytest.raises(ConfigError, match=r"--truncation 0.5: these samples have no mean latent"):
        evaluate_run(tmp_path / "run", truncation=0.5)
