"""Text from Hugging Face data sets: saved, in parquet files, or fetched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from advgen import ConfigError, DataError, DataRequest
from advgen.api import resume, train
from advgen.cli import app
from advgen_text import data
from advgen_text.config import TextConfig
from advgen_text.modality import TextModality

SMALL = {"generator_embedding": 8, "generator_hidden": 8, "critic_embedding": 8, "critic_hidden": 8}


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return pytest.importorskip("datasets")


def rows(count: int, first: int = 0) -> dict[str, list[Any]]:
    numbers = range(first, first + count)
    return {
        "text": [f"row {number} says hello ." for number in numbers],
        "mood": [number % 2 for number in numbers],
        "start": [f"in {number} :" for number in numbers],
        "number": list(numbers),
    }


def make_set(datasets: Any, count: int, first: int = 0) -> Any:
    made = datasets.Dataset.from_dict(rows(count, first))
    return made.cast_column("mood", datasets.ClassLabel(names=["glum", "glad"]))


def read(place: Path | str, max_bad: int = 10, **more: Any) -> tuple[TextModality, Any]:
    config = TextConfig(**(SMALL | {"tokenizer": "character", "max_length": 48} | more))
    request = DataRequest(None, max_bad, address=place) if isinstance(place, str) else DataRequest(place, max_bad)
    corpus = TextModality.read(config, request)
    return TextModality(config, json.loads(json.dumps(dict(corpus.facts)))), corpus


def texts(found: tuple[TextModality, Any], split: str) -> set[str]:
    source = found[1].splits[split]
    batch = source.batch(torch.arange(len(source)), torch.Generator())
    return set(found[0].tokenizer.decode(batch.values))


@pytest.mark.parametrize("kind", ["saved", "parquet", "folder", "address"])
def test_every_form_gives_the_lines_labels_and_prompts_of_its_columns(
    kind: str, datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, place = make_set(datasets, 60), tmp_path / "set"
    if kind == "saved":
        made.save_to_disk(place)
    elif kind == "address":
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": made})
    else:
        place.mkdir()
        made.to_parquet(place / "train.parquet")
    given = {"saved": place, "parquet": place / "train.parquet", "folder": place, "address": "hub:owner/name@v1"}[kind]
    found = read(given, label_field="mood", prompt_field="start")
    assert set().union(*(texts(found, split) for split in ("train", "validation", "test"))) == {
        f"in {number} : row {number} says hello ." for number in range(60)
    }
    assert found[0].facts["classes"] == ["glad", "glum"] and found[0].paired and not found[0].facts["grammar"]
    batch = found[1].splits["train"].batch(torch.arange(20), torch.Generator())
    for label, line in zip(batch.condition["label"], found[0].tokenizer.decode(batch.values), strict=True):
        assert found[0].facts["classes"][label] == ("glum", "glad")[int(line.split()[1]) % 2]


def test_the_set_s_own_splits_are_kept_and_training_loses_what_they_hold(datasets: Any, tmp_path: Path) -> None:
    parts = {"train": make_set(datasets, 60), "validation": make_set(datasets, 20, 100), "test": make_set(datasets, 20, 50)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "set")
    found = read(tmp_path / "set")
    assert texts(found, "test") == {f"row {number} says hello ." for number in range(50, 70)}
    assert texts(found, "validation") == {f"row {number} says hello ." for number in range(100, 120)}
    assert texts(found, "train") == {f"row {number} says hello ." for number in range(50)}
    assert any("10 training lines that held-out ones equal" in note for note in found[1].bad)


def test_a_large_set_goes_through_the_cache_and_comes_out_alike(
    datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_set(datasets, 60).save_to_disk(tmp_path / "set")
    small = read(tmp_path / "set", label_field="mood")
    monkeypatch.setattr(data, "MOST_IN_MEMORY", 0)
    for _ in range(2):
        large = read(tmp_path / "set", label_field="mood")
        assert large[1].fingerprint == small[1].fingerprint and large[1].facts == small[1].facts
        assert texts(large, "train") == texts(small, "train")


def test_what_a_row_lacks_is_named_and_counts_as_bad(datasets: Any, tmp_path: Path) -> None:
    content = {"text": [f"line {n}" for n in range(60)] + [None, "  ", "no mood"], "mood": ["glad"] * 62 + [None]}
    datasets.Dataset.from_dict(content).save_to_disk(tmp_path / "set")
    _, corpus = read(tmp_path / "set", label_field="mood")
    assert [note.rsplit("/", 1)[1] for note in corpus.bad[:2]] == ["60 has no text", "62 has no mood"]
    assert corpus.bad[2] == "1 empty line"
    with pytest.raises(DataError, match=r"more than 1 bad line, data\.max_bad allows 1; the first: .*60 has no text"):
        read(tmp_path / "set", 1, label_field="mood")


def test_columns_that_are_not_there_or_hold_no_text_are_refused_with_those_there_are(datasets: Any, tmp_path: Path) -> None:
    make_set(datasets, 20).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"has no column 'caption'; it has text \(string\), mood .*: set options\.field"):
        read(tmp_path / "set", field="caption")
    with pytest.raises(DataError, match="column number holds int64, expected text"):
        read(tmp_path / "set", prompt_field="number")


def test_a_run_trains_resumes_and_is_sampled_from_a_saved_set(datasets: Any, tmp_path: Path) -> None:
    make_set(datasets, 60).save_to_disk(tmp_path / "set")
    given = [f"options.{name}={value}" for name, value in SMALL.items()] + ["train.batch_size=8"]
    run = tmp_path / "run"
    train("text", data=tmp_path / "set", overrides=given, steps=3, stop_after=2, device="cpu", out=run, progress=False)
    resume(run, device="cpu", progress=False)
    assert CliRunner().invoke(app, ["sample", str(run), "-n", "3", "--out", str(tmp_path / "out")]).exit_code == 0
    assert len((tmp_path / "out" / "samples.txt").read_text().splitlines()) == 3


def test_inspection_counts_rows_by_split(datasets: Any, tmp_path: Path) -> None:
    from advgen.data.survey import inspect_data

    datasets.DatasetDict({"train": make_set(datasets, 60), "test": make_set(datasets, 20, 100)}).save_to_disk(tmp_path / "set")
    report = inspect_data(str(tmp_path / "set"), "text", progress=False).report
    assert report.count == 80 and report.splits["test"] == 20 and set(report.details["files"]) == {"train", "test"}


def test_an_address_without_a_plugin_asks_which(datasets: Any) -> None:
    from advgen.data.survey import inspect_data

    with pytest.raises(ConfigError, match="is read by image, text; choose one with --plugin"):
        inspect_data("hub:owner/name", progress=False)
