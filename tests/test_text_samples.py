"""``gen evaluate --samples`` for text: files of lines judged without a model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import advgen
from advgen.cli import main
from advgen.errors import DataError
from advgen.metrics.real import real_samples
from advgen.sample_folders import evaluate_samples, open_folder
from advgen.sampling import sample_run
from advgen_text import data, phrases

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny
from test_bleu import PUBLISHED, captions

WORDS = [" ".join(sentence.words) for sentence in phrases.sample(400, torch.Generator().manual_seed(9))]


def write(file: Path, lines: list[str]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def held(tmp_path: Path) -> Path:
    return write(tmp_path / "data.txt", WORDS)


def test_lines_of_the_language_are_nearer_than_shuffled_ones(tmp_path: Path, held: Path) -> None:
    clean = evaluate_samples(write(tmp_path / "clean.txt", WORDS[:60]), "text", held)
    mixed = [" ".join(reversed(line.split())) for line in WORDS[:60]]
    spoilt = evaluate_samples(write(tmp_path / "spoilt.txt", mixed), "text", held)
    assert clean["generated"]["frechet_distance"] < spoilt["generated"]["frechet_distance"]
    assert clean["modality"]["bleu_3"] > spoilt["modality"]["bleu_3"] + 0.2
    assert clean["modality"]["novel_share"] < 0.3 and spoilt["modality"]["novel_share"] == 1
    assert clean["protocol"]["num_samples"] == 60 and clean["protocol"]["samples"].endswith("clean.txt")


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("kind", ["word", "bpe", "character"])
def test_samples_are_read_in_the_tokens_of_the_data_and_cut_like_them(
    kind: str, in_memory: bool, tmp_path: Path, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["The dog sleeps .", "the zebra! sleeps .", "the dog " * 40]
    samples = write(tmp_path / "samples" / "one.txt", [*lines, *WORDS[:6]])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "MOST_IN_MEMORY", 2**26 if in_memory else 0)
    options = [f"options.tokenizer={kind}", "options.max_length=24"]
    opened = open_folder(samples.parent, "text", held, "cpu", None, options)
    drawn = opened.draw(99)
    words = opened.modality.tokenizer.words(drawn.values)
    assert len(words) == 9 and drawn.values.shape[1] <= 24
    assert ["the", "dog", "sleeps", "."] in words
    strange = [word for row in words for word in row if row[0] == "the" and word not in " ".join(WORDS).split()]
    assert set(strange) <= {"<unk>"} and (strange or kind == "bpe")  # pieces of known characters may spell any word


def test_a_folder_of_gen_sample_is_read_without_its_overview_in_both_formats(tmp_path: Path) -> None:
    given = tiny("text", "options.phrase_labels=true")
    run = advgen.train("text", out=tmp_path / "run", overrides=given, steps=1, device="cpu", progress=False).folder
    for file_format in ("txt", "jsonl"):
        folder = tmp_path / file_format
        sample_run(run, 9, out=folder, device="cpu", file_format=file_format)
        lines = (folder / f"samples.{file_format}").read_text().splitlines()
        texts = {line if file_format == "txt" else json.loads(line)["text"] for line in lines}
        opened = open_folder(folder, "text", None, "cpu", None, ["options.phrases=300"])
        assert set(opened.modality.tokenizer.decode(opened.draw(9).values)) == texts and len(opened) == 9


def test_a_folder_with_train_and_test_files_is_one_set_of_samples(tmp_path: Path, held: Path) -> None:
    write(tmp_path / "both" / "train.txt", WORDS[:20])
    write(tmp_path / "both" / "test.txt", WORDS[10:30])
    assert len(open_folder(tmp_path / "both", "text", held, "cpu", None, ())) == 40


def test_samples_that_cannot_be_read_are_refused_by_name(tmp_path: Path, held: Path) -> None:
    with pytest.raises(DataError, match=r"holds no text"):
        evaluate_samples(write(tmp_path / "empty.txt", ["", " "]), "text", held)
    with pytest.raises(DataError, match=r"pages\.html ends in '\.html'"):
        evaluate_samples(write(tmp_path / "pages.html", ["a"]), "text", held)
    with pytest.raises(DataError, match=r"holds 3 samples, the metrics need more than 5"):
        evaluate_samples(write(tmp_path / "few.txt", WORDS[:3]), "text", held)


def test_the_command_scores_a_file(tmp_path: Path, held: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = write(tmp_path / "samples.txt", WORDS[:50])
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--samples", str(samples), "--plugin", "text", "--data", str(held), "-n", "20", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert not ended.value.code and report["protocol"]["num_generated"] == 20 and 0 < report["modality"]["bleu_2"] <= 1


@pytest.mark.slow
def test_published_samples_score_as_published_from_their_file(tmp_path: Path) -> None:
    folder = captions(tmp_path)
    for name in ("train.txt", "test.txt"):
        write(tmp_path / "data" / name, (folder / name).read_text().splitlines())
    opened = open_folder(folder / "published_samples" / "mle.txt", "text", tmp_path / "data", "cpu", None, ())
    held_out = real_samples(opened.modality, opened.data, "test", limit=opened.modality.most_references or 0)
    generated = opened.draw(9984)
    assert (len(generated), len(held_out)) == (9984, 10_000)
    found = opened.modality.metrics(generated, held_out)
    own = [found[f"{name}_{order}"] for name in ("bleu", "self_bleu") for order in (2, 3, 4, 5)]
    assert own == pytest.approx(PUBLISHED["mle"], abs=0.0025)
