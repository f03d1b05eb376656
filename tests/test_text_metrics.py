"""The text plugin's metrics: what counts as a match, and against how much."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen import Batch, DataRequest
from advgen.metrics.report import better_direction
from advgen_text.config import TextConfig
from advgen_text.modality import TextModality, distinct
from advgen_text.tokenizer import UNKNOWN, Tokenizer, told_apart


def modality(file: Path, **more: Any) -> tuple[TextModality, Any]:
    config = TextConfig(**more)
    corpus = TextModality.read(config, DataRequest(file))
    return TextModality(config, json.loads(json.dumps(dict(corpus.facts)))), corpus


def real(corpus: Any, split: str, count: int = 100) -> Batch:
    source = corpus.splits[split]
    found: Batch = source.batch(torch.arange(min(count, len(source))), torch.Generator())
    return found


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines of few frequent words between many rare ones."""
    draw = random.Random(0)
    rows = [
        " ".join(draw.choice(("the", "of", "and", *(f"rare{draw.randrange(400)}" for _ in range(5)))) for _ in range(9))
        for _ in range(900)
    ]
    path = tmp_path_factory.mktemp("data") / "rare.txt"
    path.write_text("\n".join(rows))
    return path


def test_a_small_vocabulary_makes_real_text_no_better_than_a_large_one(rare: Path) -> None:
    found = {}
    for size in (12, 5000):
        text, corpus = modality(rare, vocabulary_size=size)
        text.judge(corpus, Path())
        found[size] = text.metrics(real(corpus, "train"), real(corpus, "test"))
        assert (real(corpus, "train").values == UNKNOWN).any() == (size == 12)
    for name in ("bleu_2", "bleu_5", "self_bleu_2", "self_bleu_5"):
        assert found[12][name] <= found[5000][name] + 0.01, name
    assert found[12]["distinct_2"] >= found[5000]["distinct_2"]
    assert found[12]["longest_copy_held_out"] <= found[5000]["longest_copy_held_out"]
    assert found[12]["novel_share"] == 0  # training lines are no new ones, whatever of them is unknown
    assert found[5000]["novel_share_held_out"] == 1


def test_distinct_n_counts_different_runs_of_words_over_all_of_them() -> None:
    rows = [["a", "b", "a", "b", "c"], ["a", "b", "c"], ["a"]]
    # words a b c of 9; pairs ab ba bc of 6; triples aba bab abc of 4; quadruples abab babc of 2
    assert [distinct(rows, order) for order in (1, 2, 3, 4)] == pytest.approx([3 / 9, 3 / 6, 3 / 4, 1.0])


def test_reports_have_every_distinct_n_and_know_which_way_metrics_are_better(rare: Path) -> None:
    text, corpus = modality(rare)
    found = text.metrics(real(corpus, "train"), real(corpus, "test"))
    assert 0 < found["distinct_1"] < found["distinct_2"] < found["distinct_3"] <= found["distinct_4"] <= 1
    assert set(found) <= set(text.metric_notes())
    higher = ("bleu_5", "distinct_1", "distinct_4", "unique_share", "valid_share")
    assert {better_direction(name, text) for name in higher} == {"higher"}
    assert {better_direction(name, text) for name in ("self_bleu_2", "nll_test", "grammar_kl", "factor_tv/class")} == {"lower"}


def test_samples_of_unknown_words_look_varied_and_their_share_says_why(rare: Path) -> None:
    text, corpus = modality(rare, vocabulary_size=12)
    text.judge(corpus, Path())
    lines = ["the zebra quux", "of quux", "zebra quux quux", "quux"] * 10
    strange = Batch(text.tokenizer.encode(lines, text.length), None, {})
    found, own = (text.metrics(batch, real(corpus, "test")) for batch in (strange, real(corpus, "train")))
    assert found["self_bleu_2"] < own["self_bleu_2"] and found["distinct_2"] == 1 and found["novel_share"] == 1
    assert found["unknown_share"] == pytest.approx(7 / 9)
    words = text.tokenizer.words(real(corpus, "train").values)
    assert own["unknown_share"] == pytest.approx(sum(row.count("<unk>") for row in words) / sum(map(len, words)))


def test_an_unknown_word_matches_no_other_unknown_word() -> None:
    apart = told_apart([["<unk>", "a", "<unk>"], ["<unk>", "b"]], itertools.count())
    words = [word for row in apart for word in row]
    assert len(set(words)) == 5 and [row[1] for row in apart] == ["a", "b"]


@pytest.mark.parametrize(("kind", "size"), [("bpe", 40), ("character", 30)])
def test_a_word_with_an_unknown_character_is_unknown_and_nothing_else_is(kind: str, size: int) -> None:
    lines = ["the dog sat on it", "a cat ran by"] * 9
    tokenizer = Tokenizer.learn(lines, kind=kind, vocabulary_size=size, lower_case=True)
    tokens = tokenizer.encode(["the \u72ac sat , d\u00f6g on it"], 40)
    assert tokenizer.words(tokens) == [["the", "<unk>", "sat", "<unk>", "<unk>", "on", "it"]]
    assert tokenizer.rows(tokenizer.with_holes(tokens), 40) == tokenizer.rows(["the \u72ac sat , d\u00f6g on it"], 40)
