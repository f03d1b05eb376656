"""``gen data inspect``: what is told of a data set, with what training would say of the same files."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from advgen import DataRequest, Repeats, Spread
from advgen.cli import main
from advgen.data.report import MOST_NAMED
from advgen_audio.config import AudioConfig
from advgen_audio.data.inspection import BLOCK_FRAMES, clipped_samples, inspect_sounds
from advgen_audio.modality import AudioModality
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality
from advgen_text.config import TextConfig
from advgen_text.inspection import inspect_lines
from advgen_text.modality import TextModality

PLUGIN = """
import torch
from advgen import ArraySource, Corpus, Discriminator, Generator, Modality, PluginConfig, PluginSpec, hookimpl

class Config(PluginConfig):
    pass

class Numbers(Modality):
    @classmethod
    def read(cls, config, request):
        values = torch.tensor([float(line) for line in request.path.read_text().split()])[:, None]
        labels = (values[:, 0] > 0).long()
        part = lambda rows: ArraySource(values[rows], condition={"label": labels[rows]})
        facts = {"classes": ["low", "high"], "class_counts": [1, 1]}
        return Corpus(facts, {"train": part([0, 1, 2]), "validation": part([3]), "test": part([4])}, "x", ("line 9: odd",))
    def generator(self): ...
    def discriminator(self): ...
    def noise(self, num_samples, generator, *, mode="values"): ...
    def judge(self, corpus, cache): ...
    def write(self, batch, folder, *, start=0): ...
    def overview(self, batch, stem): ...

@hookimpl
def advgen_register():
    return PluginSpec(name="numbers", summary="Numbers.", config="__plugin__:Config", modality="__plugin__:Numbers")
"""


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Any:
    """The report as JSON, or for a refusal what was said."""

    def run(*arguments: object) -> Any:
        capsys.readouterr()
        try:
            main(["data", "inspect", *map(str, arguments), "--json"])
        except SystemExit as ended:
            if ended.code:
                return capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return run


def noise(number: int, num: int = 1200) -> np.ndarray:
    return (0.3 * np.random.default_rng(number).uniform(-1, 1, num)).astype(np.float32)


def sound(file: Path, values: np.ndarray, rate_hz: int = 8000, subtype: str = "PCM_16") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, values, rate_hz, subtype=subtype)
    return file


def sounds(folder: Path) -> Path:
    """Every kind of clip: 30 good ones in two classes, and what a real folder has beside them."""
    for number in range(30):
        sound(folder / "ab"[number % 2] / f"{number}.wav", noise(number))
    sound(folder / "a" / "stereo.flac", np.stack([noise(90), noise(91)], 1), 16000, "PCM_24")
    sound(folder / "b" / "again.flac", soundfile.read(folder / "b" / "1.wav", dtype="float32")[0], subtype="PCM_16")
    loud = noise(92) * 4
    sound(folder / "b" / "loud.wav", np.where(np.arange(1200) // 30 % 2, np.clip(loud * 50, -1, 1), loud))
    sound(folder / "b" / "silent.wav", np.zeros(800))
    sound(folder / "b" / "nan.wav", np.full(800, np.nan, np.float32), subtype="FLOAT")
    sound(folder / "b" / "nothing.wav", np.zeros(0))
    (folder / "b" / "empty.wav").write_bytes(b"")
    (folder / "b" / "other.wav").write_bytes(b"%PDF-1.7 something else")
    (folder / "notes.txt").write_text("not a sound")
    return folder


def test_every_kind_of_clip_is_told_and_training_leaves_out_the_same(inspect: Any, tmp_path: Path) -> None:
    folder = sounds(tmp_path / "data")
    found = inspect(folder)
    assert (found["plugin"], found["unit"], found["count"], found["num_bad"]) == ("audio", "clips", 33, 5)
    assert found["chosen"] == "by its files: 38 of 39 are of its kind"
    reasons = dict(reason.split(": ", 1) for reason in found["bad"])
    assert reasons["b/empty.wav"] == "0 bytes" and reasons["b/nothing.wav"] == "holds no samples"
    assert reasons["b/silent.wav"] == "is silent" and reasons["b/nan.wav"] == "holds samples that are not finite"
    assert "not readable as sound" in reasons["b/other.wav"]
    assert found["duplicates"]["count"] == 1 and found["duplicates"]["pairs"] == [["b/again.flac", "b/1.wav"]]
    details = found["details"]
    assert details["rates_hz"] == {"8000": 34, "16000": 1} and details["channels"] == {"1": 34, "2": 1}
    assert details["formats"]["FLAC PCM_24"] == 1
    assert details["clipped"]["clips"] == {"count": 1, "examples": ["b/loud.wav"]}
    assert 0 < details["clipped"]["samples_share"] < 0.05
    assert details["silent"]["examples"] == ["b/silent.wav"] and details["not_finite"]["count"] == 1
    assert details["seconds"]["min"] == 0.075 and details["seconds"]["max"] == 0.15
    assert details["training"] == {"rate_hz": 8000, "length": 2048, "shorter_clips": 33, "longer_clips": 0}
    assert "1 clip would be resampled to 8000 Hz" in found["remarks"][0]
    corpus = AudioModality.read(AudioConfig(), DataRequest(folder))
    assert found["splits"] == {name: len(source) for name, source in corpus.splits.items()}
    assert sorted(found["classes"]) == corpus.facts["classes"] and sum(found["classes"].values()) == 33
    assert sorted(found["bad"]) == sorted(corpus.bad)


def test_options_of_training_hold_for_the_inspection(inspect: Any, tmp_path: Path) -> None:
    for number in range(30):
        sound(tmp_path / "data" / f"{number % 3}_me_{number // 3}.wav", noise(number))
    found = inspect(tmp_path / "data", "--preset", "digits", "--plugin", "audio")
    assert found["classes"] == {"0": 10, "1": 10, "2": 10} and found["chosen"] == "as asked"
    assert found["splits"]["test"] == 15 and found["details"]["training"]["length"] == 6144
    found = inspect(tmp_path / "data", "--plugin", "audio", "--set", "options.sample_rate_hz=4000")
    assert found["details"]["training"]["rate_hz"] == 4000 and found["classes"] == {}


def test_a_list_is_inspected_as_the_files_that_it_names(inspect: Any, tmp_path: Path) -> None:
    rows = ["path,label,split"]
    for number in range(30):
        sound(tmp_path / "clips" / f"{number}.wav", noise(number))
        rows.append(f"clips/{number}.wav,{'xy'[number % 2]},{'test' if number < 6 else 'train'}")
    (tmp_path / "list.csv").write_text("\n".join([*rows, "clips/absent.wav,x,train"]))
    found = inspect(tmp_path / "list.csv")
    assert (found["plugin"], found["count"], found["splits"]["test"]) == ("audio", 30, 6)
    assert found["classes"] == {"x": 15, "y": 15}
    assert found["bad"] == ["list.csv line 32: names clips/absent.wav, which is not there"]


def test_clipped_samples_stand_at_full_scale_three_in_a_row() -> None:
    assert clipped_samples(np.array([1, 1, 1, 0, -1, -1, -1, -1, 0, 1, 1], np.float32)) == 7
    assert clipped_samples(np.array([1, -1, 1, -1, 1], np.float32)) == 0
    assert clipped_samples(np.array([32767 / 32768] * 3, np.float32)) == 3
    assert clipped_samples(np.zeros(0, np.float32)) == 0


def test_a_long_recording_is_read_in_blocks(tmp_path: Path) -> None:
    sound(tmp_path / "warm" / "up.wav", noise(0))
    inspect_sounds(AudioConfig(), DataRequest(tmp_path / "warm"), lambda done, total: None)
    sound(tmp_path / "long" / "long.wav", noise(1, 40 * BLOCK_FRAMES))
    tracemalloc.start()
    report = inspect_sounds(AudioConfig(), DataRequest(tmp_path / "long"), lambda done, total: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.count == 1 and peak < 4 * 10 * BLOCK_FRAMES  # a quarter of the file


def test_progress_counts_to_the_number_of_files(tmp_path: Path) -> None:
    for number in range(12):
        sound(tmp_path / f"{number}.wav", noise(number))
    seen: list[tuple[int, int | None]] = []
    inspect_sounds(AudioConfig(), DataRequest(tmp_path), lambda done, total: seen.append((done, total)))
    assert seen == [(number, 12) for number in range(1, 13)]


def picture(file: Path, number: int, size: tuple[int, ...] = (20, 24, 3)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 255, size, dtype=np.uint8)).save(file)
    return file


def test_every_kind_of_image_is_told(inspect: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for number in range(30):
        picture(folder / "ab"[number % 2] / f"{number}.png", number)
    Image.open(folder / "a" / "0.png").save(folder / "a" / "again.bmp")
    picture(folder / "b" / "tiny.png", 50, (4, 4, 3))
    picture(folder / "b" / "huge.png", 51, (3, 3000, 3))
    picture(folder / "b" / "alpha.png", 52, (20, 24, 4))
    picture(folder / "b" / "grey.png", 53, (20, 24))
    Image.merge("LA", [Image.new("L", (24, 20), 99), Image.new("L", (24, 20), 255)]).save(folder / "b" / "opaque.png")
    deep = np.random.default_rng(54).integers(0, 65535, (20, 24), dtype=np.uint16)
    Image.fromarray(deep).save(folder / "b" / "deep.png", transparency=7)
    Image.open(folder / "b" / "grey.png").convert("RGB").save(folder / "b" / "pale.png")
    frames = [Image.open(picture(tmp_path / "frames" / f"{number}.png", 60 + number)) for number in range(3)]
    frames[0].save(folder / "b" / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    (folder / "b" / "empty.png").write_bytes(b"")
    whole = (folder / "a" / "0.png").read_bytes()
    (folder / "b" / "half.png").write_bytes(whole[: len(whole) // 2])
    found = inspect(folder)
    assert (found["plugin"], found["count"], found["num_bad"]) == ("image", 39, 2)
    assert found["bad"][0] == "b/empty.png: the file is empty (0 bytes)" and found["bad"][1].startswith("b/half.png: ")
    assert found["duplicates"]["pairs"] == [["a/again.bmp", "a/0.png"]]
    assert found["classes"] == {"a": 16, "b": 23}
    details = found["details"]
    assert details["sizes"] == {"20x24": 37, "4x4": 1, "3x3000": 1}
    assert details["bits"] == {"8": 38, "16": 1} and details["modes"]["RGBA"] == 1
    assert details["grey"]["examples"] == ["b/deep.png", "b/grey.png", "b/opaque.png"]
    assert details["grey_in_colour_files"]["examples"] == ["b/pale.png"]
    assert details["animated"]["examples"] == ["b/moving.webp"] and details["transparent"]["examples"] == ["b/alpha.png"]
    assert details["opaque_with_alpha"]["examples"] == ["b/deep.png", "b/opaque.png"] and details["decoded"]["channels"] == 4
    assert details["height"] == {"min": 3, "median": 20, "mean": 19.1538, "max": 20}
    assert details["below_16_pixels"]["count"] == 2 and details["above_2048_pixels"]["examples"] == ["b/huge.png"]
    assert "3 sizes: training wants options.image_height" in " ".join(found["remarks"])
    corpus = ImageModality.read(ImageConfig(image_height=20, image_width=24), DataRequest(folder))
    assert found["splits"] == {name: len(source) for name, source in corpus.splits.items()}
    assert sorted(bad.split(":")[0] for bad in found["bad"]) == sorted(bad.split(":")[0] for bad in corpus.bad)


def test_idx_files_are_told_with_their_own_test_split(inspect: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 6, 6), dtype=np.uint8)
    pixels[7] = pixels[3]
    for name, rows in (("train", slice(0, 50)), ("t10k", slice(50, 60))):
        part = pixels[rows]
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, *part.shape) + part.tobytes())
        labels = np.arange(len(part), dtype=np.uint8) % 5
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, len(part)) + labels.tobytes())
    found = inspect(tmp_path)
    assert (found["plugin"], found["count"], found["splits"]["test"]) == ("image", 60, 10)
    assert found["classes"] == {str(name): 12 for name in range(5)}
    assert found["duplicates"]["pairs"] == [["image 7", "image 3"]]


def test_lines_words_and_what_cannot_be_read_are_told(inspect: Any, tmp_path: Path) -> None:
    lines = [f"the {noun} in row {number} sleeps" for number in range(30) for noun in ("cat", "dog")]
    text = "\n".join([*lines, "", lines[0], "  ", "word " * 40]).encode() + b"\ncaf\xe9 au lait\n"
    (tmp_path / "lines.txt").write_bytes(text)
    found = inspect(tmp_path / "lines.txt")
    assert (found["plugin"], found["unit"], found["count"], found["num_bad"]) == ("text", "lines", 62, 1)
    assert "lines.txt line 65 is not UTF-8 at byte 4 of the line" in found["bad"][0]
    details = found["details"]
    assert details["empty_lines"] == 2 and details["not_utf8_lines"] == 1
    assert details["words"] == {"min": 6, "median": 6, "mean": 6.5484, "max": 40, "total": 406}
    assert details["vocabulary"]["words"] == 37 and details["most_frequent"]["the"] == 61
    assert found["duplicates"]["count"] == 1
    assert found["duplicates"]["pairs"] == [["lines.txt line 62 (the cat in row 0 sleeps)", "lines.txt line 1"]]
    assert found["remarks"] == ["1 line is longer than options.max_length 32 and would be cut"]
    corpus = TextModality.read(TextConfig(), DataRequest(tmp_path / "lines.txt"))
    assert found["splits"] == {name: len(source) for name, source in corpus.splits.items()}


@pytest.mark.parametrize("way", ["cut", "pack"])
def test_lines_are_measured_as_they_are_however_training_would_cut_them(way: str, inspect: Any, tmp_path: Path) -> None:
    lines = [f"line {number} is short" for number in range(38)] + ["word " * 4999 + f"end{number}" for number in range(2)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    found = inspect(tmp_path / "lines.txt", "--set", f"options.long_lines={way}")
    details = found["details"]
    assert details["words"]["max"] == 5000 and details["words"]["mean"] == (38 * 4 + 2 * 5000) / 40
    assert details["characters"]["max"] == 24_999 and details["most_frequent"]["word"] == 2 * 4999
    what = "cut" if way == "cut" else "packed into several samples"
    assert details["long_lines"] == 2
    assert found["remarks"] == [f"2 lines are longer than options.max_length 32 and would be {what}"]
    assert found["duplicates"]["count"] == (1 if way == "cut" else 0)  # what is left of them is the same


def test_a_vocabulary_that_is_too_small_is_told_with_the_share_that_it_lacks(inspect: Any, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("\n".join(f"same word {number}x" for number in range(100)))
    remarks = inspect(tmp_path / "lines.txt", "--set", "options.vocabulary_size=8")["remarks"]
    assert remarks == [
        "options.vocabulary_size 8 holds the most frequent of 102 words alone; 32.7% of the text would be unknown"
    ]


@pytest.mark.parametrize(("kind", "expected"), [("word", ""), ("bpe", ""), ("character", "1 line is"), ("byte", "2 lines are")])
def test_how_long_a_line_is_depends_on_the_tokenizer(kind: str, expected: str, inspect: Any, tmp_path: Path) -> None:
    lines = [f"row {number}" for number in range(40)] + ["a" * 32, "é" * 16]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    given = ["--set", f"options.tokenizer={kind}", "--set", "options.vocabulary_size=300"]
    remarks = [remark for remark in inspect(tmp_path / "lines.txt", *given)["remarks"] if "longer" in remark]
    assert remarks == ([f"{expected} longer than options.max_length 32 and would be cut"] if expected else [])


def test_labels_of_json_lines_are_counted(inspect: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"{number} cats", "kind": "ab"[number % 2]}) for number in range(40)]
    (tmp_path / "lines.jsonl").write_text("\n".join([*rows, '{"text": 3, "kind": "a"}']))
    found = inspect(tmp_path / "lines.jsonl", "--set", "options.label_field=kind")
    assert found["plugin"] == "text" and found["classes"] == {"a": 20, "b": 20} and found["num_bad"] == 1


def test_bad_lines_beyond_the_first_thousand_are_counted_but_not_kept(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"good line\n" * 50 + b"\xff\xfe\n" * 3000)
    report = inspect_lines(TextConfig(), DataRequest(tmp_path / "lines.txt"), lambda done, total: None)
    assert (report.num_bad, len(report.bad), report.details["not_utf8_lines"]) == (3000, MOST_NAMED, 3000)


def test_a_plugin_without_an_inspection_of_its_own_is_reported_from_its_corpus(inspect: Any, tmp_path: Path) -> None:
    (tmp_path / "numbers.py").write_text(PLUGIN)
    (tmp_path / "data.num").write_text("1 2 1 -3 1\n")
    found = inspect(tmp_path / "data.num", "--plugin", tmp_path / "numbers.py")
    assert (found["plugin"], found["count"], found["unit"]) == ("numbers", 5, "samples")
    assert found["splits"] == {"train": 3, "validation": 1, "test": 1} and found["classes"] == {"low": 1, "high": 4}
    assert found["duplicates"]["count"] == 2 and found["bad"] == ["line 9: odd"]


def test_an_unclear_plugin_and_a_missing_path_are_refused(inspect: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.pdf").write_bytes(b"%PDF")
    said = inspect(tmp_path / "other")
    assert "holds 1 file (none of any plugin), so the plugin is not clear; name it with --plugin" in said
    (tmp_path / "nothing").mkdir()
    assert "nothing is empty; expected a folder or an archive with data in it" in inspect(tmp_path / "nothing")
    sound(tmp_path / "mixed" / "a.wav", noise(1))
    picture(tmp_path / "mixed" / "a.png", 1)
    assert "(audio 1, image 1)" in inspect(tmp_path / "mixed")
    assert "absent does not exist" in inspect(tmp_path / "absent")
    assert "holds 1 .pdf; expected .wav" in inspect(tmp_path / "other", "--plugin", "audio")


def test_the_report_for_readers_names_what_is_bad(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = sounds(tmp_path / "data")
    with pytest.raises(SystemExit) as ended:
        main(["data", "inspect", str(folder)])
    assert not ended.value.code
    said = capsys.readouterr().out
    for line in ("clips: 33 in", "bad: 5", "  b/empty.wav: 0 bytes", "duplicates: 1 of 33", "  b/again.flac = b/1.wav"):
        assert line in said
    assert "classes: a 16, b 17" in said and "note: 1 clip would be resampled" in said


def test_the_report_for_readers_counts_the_repeats_that_it_does_not_show(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "lines.txt").write_text("".join(f"line of {number % 50} words\n" for number in range(83)))
    with pytest.raises(SystemExit):
        main(["data", "inspect", str(tmp_path / "lines.txt")])
    said = capsys.readouterr().out.splitlines()
    first = said.index("duplicates: 33 of 83") + 1
    assert said[first] == "  lines.txt line 51 (line of 0 words) = lines.txt line 1"
    assert said[first + 19].startswith("  lines.txt line 70 ")
    assert said[first + 20] == "  ... 13 more; --json names more of them"


def test_spread_and_repeats_by_hand() -> None:
    spread = Spread()
    for value in (4.0, 1.0, 2.0, 8.0, 3.0):
        spread.add(value)
    assert spread.summary() == {"min": 1, "median": 3, "mean": 3.6, "max": 8, "total": 18}
    assert spread.summary(total=False) == {"min": 1, "median": 3, "mean": 3.6, "max": 8}
    assert Spread().summary() == {}
    repeats = Repeats()
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1"), ("d", b"1")):
        repeats.add(name, content)
    assert repeats.summary() == {"count": 2, "pairs": [["c", "a"], ["d", "a"]], "compared": 4}
    words = Repeats(named=False)
    for name in ("a", "b", "a"):
        words.add(name, name.encode())
    assert words.summary() == {"count": 1, "pairs": [["a", "a"]], "compared": 3}
