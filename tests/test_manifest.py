"""Lists of files as data: what each row may say, and what is said of rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from advgen import DataError, DataRequest, ManifestRow, read_manifest, split_indices
from advgen_audio.config import AudioConfig
from advgen_audio.data.loading import load_folder
from advgen_audio.modality import AudioModality
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality


def listed(file: Path) -> tuple[list[ManifestRow], list[str]]:
    bad: list[str] = []
    return list(read_manifest(file, lambda name, reason: bad.append(f"{name}: {reason}"))), bad


def write(file: Path, *rows: dict[str, Any]) -> Path:
    """The rows in the form that the file's name says."""
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if file.suffix == ".jsonl":
        lines = [json.dumps(row) for row in rows]
    else:
        mark = "\t" if file.suffix == ".tsv" else ","
        lines = [mark.join(columns), *(mark.join(str(row.get(name, "")) for name in columns) for row in rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_the_three_forms_say_the_same(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(b"x")
    rows = [
        {"path": "clips/a.wav", "label": "yes", "split": "train", "transcript": "not ours"},
        {"path": "clips/a.wav", "label": "no", "start": 0.5, "duration": 1.25, "split": "val"},
        {"path": "clips/a.wav", "start": 2},
    ]
    found, bad = listed(write(tmp_path / f"list{suffix}", *rows))
    place = tmp_path / "clips" / "a.wav"
    assert not bad
    assert found == [
        ManifestRow("clips/a.wav", place, "yes", split="train"),
        ManifestRow("clips/a.wav@0.5+1.25", place, "no", 0.5, 1.25, "validation"),
        ManifestRow("clips/a.wav@2+", place, None, 2.0),
    ]


def test_a_byte_order_mark_quotes_and_absolute_paths_are_read(tmp_path: Path) -> None:
    (tmp_path / "a, b.wav").write_bytes(b"x")
    text = f'Path, Label\n"a, b.wav",one\n"{tmp_path}/a, b.wav",two\n'
    (tmp_path / "list.csv").write_text("\ufeff" + text, encoding="utf-8")
    found, bad = listed(tmp_path / "list.csv")
    assert not bad and [(row.path.name, row.label) for row in found] == [("a, b.wav", "one"), ("a, b.wav", "two")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"path": "absent.wav"}, "list.csv line 3: names absent.wav, which is not there"),
        ({"path": "."}, "list.csv line 3: names ., which is a folder"),
        ({"path": "", "label": "x"}, "list.csv line 3: has no path"),
        ({"path": "b.wav", "start": "soon"}, "list.csv line 3: has start 'soon', expected seconds"),
        ({"path": "b.wav", "start": "-1"}, "has start '-1', expected seconds"),
        ({"path": "b.wav", "duration": "inf"}, "has duration 'inf', expected seconds"),
        ({"path": "b.wav", "duration": "0"}, "has duration 0"),
        ({"path": "b.wav", "split": "holdout"}, "has split 'holdout', expected train, validation or test"),
        ({"path": "a.wav"}, "list.csv line 3: lists a.wav as line 2 does"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line_and_the_others_are_kept(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).write_bytes(b"x")
    found, bad = listed(write(tmp_path / "list.csv", {"path": "a.wav"}, row, {"path": "c.wav"}))
    assert [each.name for each in found] == ["a.wav", "c.wav"]
    assert len(bad) == 1 and reason in bad[0]


def test_a_list_without_a_path_column_or_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list.csv line 1 has the columns file, text; expected a header with path"):
        listed(write(tmp_path / "list.csv", {"file": "a.wav", "text": "x"}))
    (tmp_path / "list.tsv").write_bytes(b"path\nca\xe9.wav\n")
    with pytest.raises(DataError, match=r"list.tsv cannot be read as a list"):
        listed(tmp_path / "list.tsv")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"has the columns nothing"):
        listed(tmp_path / "empty.csv")
    (tmp_path / "list.jsonl").write_text('{"path": 3\n[1]\n')
    _, bad = listed(tmp_path / "list.jsonl")
    assert "list.jsonl line 1: is no JSON object" in bad[0] and "line 2: is no JSON object (it holds list)" in bad[1]


def test_named_splits_are_kept_and_missing_ones_taken_from_training_by_hash() -> None:
    keys = [f"clip-{index}" for index in range(400)]
    request = DataRequest(None)
    hashed = split_indices(keys, request)
    named: list[str | None] = ["test" if index < 50 else None for index in range(400)]
    splits = split_indices(keys, request, named)
    assert splits["test"].tolist() == list(range(50))
    assert set(splits["validation"].tolist()) == {i for i in hashed["validation"].tolist() if i >= 50}
    assert sorted(torch.cat(list(splits.values())).tolist()) == list(range(400))
    every = split_indices(keys, request, ["validation", "test"] + ["train"] * 398)
    assert (every["validation"].tolist(), every["test"].tolist(), len(every["train"])) == ([0], [1], 398)
    unnamed = split_indices(keys, request, [None] * 400)
    assert all(torch.equal(unnamed[name], hashed[name]) for name in hashed)


def sound(file: Path, values: np.ndarray, rate_hz: int = 8000) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, values.astype(np.float32), rate_hz, subtype="FLOAT")
    return file


def test_parts_of_one_long_recording_become_clips(tmp_path: Path) -> None:
    ramp = np.linspace(0.1, 0.9, 80_000)
    sound(tmp_path / "long.wav", ramp)
    rows = [{"path": "long.wav", "start": index / 10, "duration": 0.2, "label": "ab"[index % 2]} for index in range(98)]
    file = write(tmp_path / "list.csv", *rows)
    loaded = load_folder(AudioConfig(peak_normalise=False), DataRequest(file))
    assert loaded.source.sizes.tolist() == [1600] * 98 and loaded.classes == ("a", "b")
    clip = loaded.source.batch(torch.tensor([30]), torch.Generator()).values[0, 0, :1600].numpy()
    np.testing.assert_allclose(clip, ramp[24_000:25_600], atol=1e-6)


def test_labels_and_splits_of_a_list_reach_an_audio_corpus(tmp_path: Path) -> None:
    rows = []
    for index in range(40):
        sound(tmp_path / "wav" / f"{index}.wav", 0.3 * np.random.default_rng(index).standard_normal(1100))
        split = "test" if index >= 30 else "validation" if index >= 25 else "train"
        rows.append({"path": f"wav/{index}.wav", "label": f"c{index % 3}", "split": split})
    corpus = AudioModality.read(AudioConfig(), DataRequest(write(tmp_path / "list.tsv", *rows)))
    assert corpus.facts["classes"] == ["c0", "c1", "c2"]
    assert {name: len(source) for name, source in corpus.splits.items()} == {"train": 25, "validation": 5, "test": 10}
    other = AudioModality.read(AudioConfig(), DataRequest(write(tmp_path / "again.tsv", *rows)))
    assert other.fingerprint == corpus.fingerprint
    rows[0]["label"] = "c1"
    changed = AudioModality.read(AudioConfig(), DataRequest(write(tmp_path / "again.tsv", *rows)))
    assert changed.fingerprint != corpus.fingerprint


def test_bad_rows_of_an_audio_list_are_skipped_up_to_max_bad(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for index in range(40):
        sound(tmp_path / f"{index}.wav", 0.3 * np.random.default_rng(index).standard_normal(1100))
        rows.append({"path": f"{index}.wav"})
    (tmp_path / "empty.wav").write_bytes(b"")
    sound(tmp_path / "short.wav", 0.3 * np.ones(800))
    rows += [{"path": "absent.wav"}, {"path": "empty.wav"}, {"path": "short.wav", "start": 0.05, "duration": 0.2}]
    rows += [{"path": "short.wav", "start": 3}]
    file = write(tmp_path / "list.jsonl", *rows)
    loaded = load_folder(AudioConfig(), DataRequest(file, max_bad=4))
    assert len(loaded.names) == 40
    assert "list.jsonl line 41: names absent.wav, which is not there" in loaded.bad[0]
    assert loaded.bad[1] == "empty.wav: 0 bytes"
    assert "the list asks for 0.05 to 0.25 s, the file ends at 0.10 s" in loaded.bad[2]
    assert "the list asks for 3 s on" in loaded.bad[3]
    with pytest.raises(DataError, match="more than 3 files that cannot be used"):
        load_folder(AudioConfig(), DataRequest(file, max_bad=3))


def test_a_list_of_images_brings_labels_and_splits(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for index in range(40):
        pixels = np.random.default_rng(index).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        (tmp_path / "any").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "any" / f"{index}.png")
        rows.append({"path": f"any/{index}.png", "label": f"c{index % 2}", "split": "test" if index < 8 else "train"})
    (tmp_path / "any" / "odd.png").write_bytes(b"")
    bad = [{"path": "any/odd.png", "label": "c0"}, {"path": "any/absent.png"}, {"path": "any/39.png", "start": 1}]
    corpus = ImageModality.read(ImageConfig(), DataRequest(write(tmp_path / "list.csv", *rows, *bad)))
    assert corpus.facts["classes"] == ["c0", "c1"] and len(corpus.splits["test"]) == 8
    assert sum(len(source) for source in corpus.splits.values()) == 40
    said = "; ".join(corpus.bad)
    assert "list.csv line 43: names any/absent.png" in said and "any/odd.png: the file is empty" in said
    assert "start and duration are of sounds" in said
    with pytest.raises(DataError, match="at most 2 may be left out"):
        ImageModality.read(ImageConfig(), DataRequest(tmp_path / "list.csv", max_bad=2))
