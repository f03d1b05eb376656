"""What is written: sound in every format without wrap-around, pictures of real beside generated, and only what is shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

import advgen
from advgen import Batch, ConfigError, Corpus
from advgen.cli import main
from advgen.data.memory import ArraySource
from advgen.drawing import draw_samples
from advgen.sampling import load_run, sample_run
from advgen.showing import held_out_like
from advgen_audio.data.files import FORMATS, write_clips
from advgen_audio.pictures import MEL_HEIGHT, TITLE, WAVE_HEIGHT, WIDTH, Clip, draw_clips

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny
from test_vocoding import SMALL

EXTREME = torch.tensor([-3.0, -1.0001, -1.0, -0.5, 0.0, 0.5, 1.0, 1.0001, 3.0, torch.nan, torch.inf, -torch.inf])
CLIPPED = np.array([-1, -1, -1, -0.5, 0, 0.5, 1, 1, 1, 0, 1, -1], np.float32)
STORED = {"wav16": ("WAV", "PCM_16"), "wav24": ("WAV", "PCM_24"), "float": ("WAV", "FLOAT"), "flac": ("FLAC", "PCM_16")}


@pytest.mark.parametrize("name", FORMATS)
def test_no_peak_wraps_around_in_any_format(name: str, tmp_path: Path) -> None:
    (path,) = write_clips(EXTREME.expand(1, 1, -1), 8000, tmp_path, 7, name)
    info = soundfile.info(path)
    assert (info.format, info.subtype, info.samplerate, info.frames) == (*STORED[name], 8000, len(EXTREME))
    assert path.name == ("00007.flac" if name == "flac" else "00007.wav")
    found = soundfile.read(path, dtype="float32")[0]
    step = {"wav16": 2**-15, "flac": 2**-15, "wav24": 2**-23}.get(name, 0.0)
    assert np.abs(found.clip(-1, 1) - CLIPPED).max() <= 1.01 * step
    assert (found.max() > 1) == (name == "float")  # only floats keep what is beyond full scale


def test_24_bits_hold_what_16_cannot(tmp_path: Path) -> None:
    quiet = torch.full((1, 1, 100), 2**-20)
    for name, heard in (("wav16", False), ("wav24", True), ("float", True), ("flac", False)):
        (path,) = write_clips(quiet, 8000, tmp_path / name, 0, name)
        assert soundfile.read(path)[0].any() == heard, name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for plugin in ("audio", "image", "text"):
        advgen.train(plugin, out=folder / plugin, overrides=tiny(plugin), steps=1, progress=False, device="cpu")
    advgen.train("audio", preset="vocos-small", out=folder / "vocoder", overrides=SMALL, steps=1, progress=False, device="cpu")
    return {name: folder / name for name in ("audio", "image", "text", "vocoder")}


@pytest.mark.parametrize("kind", ["audio", "vocoder"])
@pytest.mark.parametrize("name", FORMATS)
def test_gen_sample_writes_the_format_that_is_asked_for(
    kind: str, name: str, runs: dict[str, Path], tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sample", str(runs[kind]), "-n", "2", "--format", name, "--out", str(tmp_path), "--device", "cpu", "--json"])
    assert ended.value.code in (0, None)
    files = json.loads(capsys.readouterr().out)["files"]
    assert len(files) == 2
    assert all((soundfile.info(file).format, soundfile.info(file).subtype) == STORED[name] for file in files)


def test_copies_are_written_in_the_format_that_is_asked_for(runs: dict[str, Path], tmp_path: Path, capsys: Any) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(999, np.float32), 8000)
    with pytest.raises(SystemExit) as ended:
        main(["sample", str(runs["vocoder"]), "--from", str(tmp_path / "a.wav"), "--format", "flac", "--out", str(tmp_path)])
    assert ended.value.code in (0, None), capsys.readouterr().err
    assert (soundfile.info(tmp_path / "a.flac").format, soundfile.info(tmp_path / "a.flac").frames) == ("FLAC", 999)


@pytest.mark.parametrize(("kind", "listed"), [("audio", "wav24.*flac"), ("image", "png"), ("text", "txt")])
def test_an_unknown_format_is_refused_with_the_known_ones(
    kind: str, listed: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"--format ogg: plugin {kind} does not write it; known: .*{listed}"):
        sample_run(runs[kind], 1, out=tmp_path / "out", device="cpu", file_format="ogg")
    assert not (tmp_path / "out").exists()


def test_a_plugin_with_one_format_says_so(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advgen_text.modality import TextModality

    monkeypatch.setattr(TextModality, "formats", {})
    with pytest.raises(ConfigError, match="one format of its own; leave --format out"):
        sample_run(runs["text"], 1, out=tmp_path / "out", device="cpu", file_format="txt")


@pytest.mark.parametrize(("kind", "shown"), [("vocoder", 8), ("audio", 16)])
def test_an_overview_generates_what_it_shows_and_no_more(kind: str, shown: int, runs: dict[str, Path]) -> None:
    rows = list[int]()
    loaded = load_run(runs[kind], "cpu")
    loaded.generator.register_forward_hook(lambda _, inputs, output: rows.append(len(output.values)))
    assert loaded.modality.overview_samples == shown
    draw_samples(loaded.generator, loaded.modality, shown, seed=0, device=torch.device("cpu"))
    assert rows == [shown]


@pytest.mark.parametrize(("kind", "pairs", "length"), [("vocoder", 8, 1024), ("audio", 16, 2048)])
def test_pictures_while_training_show_real_beside_generated(kind: str, pairs: int, length: int, runs: dict[str, Path]) -> None:
    (picture,) = (runs[kind] / "samples").glob("*.png")
    with Image.open(picture) as image:
        width, height = image.size
    assert height > pairs / 2 * (TITLE + WAVE_HEIGHT + MEL_HEIGHT) and width > 4 * WIDTH
    (strip,) = (runs[kind] / "samples").glob("*.wav")
    assert soundfile.info(strip).frames == 2 * pairs * (length + 800)


def test_a_panel_has_its_waveform_above_its_spectrogram_at_one_scale() -> None:
    loud, quiet = torch.ones(4000), torch.zeros(4000)
    loud[::2] = -1  # the highest frequency, at full scale
    picture = np.asarray(draw_clips([(Clip(loud, "one", real=True), Clip(quiet, "other"))], 8000, "header")).astype(int)
    dark = picture.sum(2) < 600
    top = 26 + TITLE
    one, other = dark[top : top + WAVE_HEIGHT, 48 : 48 + WIDTH], dark[top : top + WAVE_HEIGHT, 48 + WIDTH + 8 : 48 + 2 * WIDTH]
    assert one.mean() > 0.8 and other.mean() < 0.1
    mel = picture[top + WAVE_HEIGHT : top + WAVE_HEIGHT + MEL_HEIGHT]
    assert mel[:4, 48 + 20 : 48 + WIDTH - 20].sum() > 3 * mel[-8:-4, 48 + 20 : 48 + WIDTH - 20].sum()  # high ones are above
    assert mel[:, 48 + WIDTH + 8 : 48 + 2 * WIDTH].max() < 40


def test_broken_and_tiny_clips_are_drawn() -> None:
    for waveform in (torch.full((500,), torch.nan), torch.zeros(1), torch.full((3,), torch.inf)):
        assert draw_clips([(Clip(waveform, "x"),)], 16000, "h").size[1] > 100


def test_held_out_samples_are_of_the_classes_that_stand_beside_them() -> None:
    labels = torch.tensor([0, 1, 1, 2])
    source = ArraySource(torch.arange(4.0)[:, None], condition={"label": labels})
    corpus = Corpus({}, {"validation": source}, "x")

    class Plain:
        def prepare(self, batch: Batch) -> Batch:
            return batch

    def beside(asked: list[int] | None) -> Batch | None:
        condition = {} if asked is None else {"label": torch.tensor(asked)}
        return held_out_like(Plain(), corpus, Batch(torch.zeros(5, 1), condition=condition))  # type: ignore[arg-type]

    found = beside([1, 1, 1, 2, 3])
    assert found is not None and found.condition["label"][:4].tolist() == [1, 1, 1, 2]
    assert found.values[0] != found.values[1] and found.values[0] == found.values[2]
    plain = beside(None)
    assert plain is not None and len(set(plain.values[:4, 0].tolist())) == 4
    empty = Corpus({}, {"validation": ArraySource(torch.zeros(0, 1))}, "x")
    assert held_out_like(Plain(), empty, Batch(torch.zeros(2, 1))) is None  # type: ignore[arg-type]
