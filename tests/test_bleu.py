"""Exact BLEU and Self-BLEU: hand values, NLTK, and scores that were published."""

from __future__ import annotations

import math
import random
import tarfile
from pathlib import Path

import pytest

from advgen_text.bleu import ReferenceIndex, bleu, self_bleu

ARCHIVE = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco_captions.tar.xz"
# BLEU-2 to 5, then Self-BLEU-2 to 5; tables of Zhu et al. 2018 (Texygen), https://arxiv.org/abs/1802.01886
PUBLISHED = {
    "mle": (0.7314, 0.4974, 0.3054, 0.1894, 0.9159, 0.7694, 0.5829, 0.4090),
    "seq": (0.7457, 0.4977, 0.2945, 0.1801, 0.9510, 0.8410, 0.6704, 0.4900),
    "maligan": (0.6730, 0.4322, 0.2567, 0.1587, 0.9182, 0.7814, 0.6069, 0.4374),
    "rank": (0.7431, 0.4674, 0.2641, 0.1562, 0.9596, 0.8827, 0.7630, 0.6189),
    "leakgan": (0.7457, 0.5279, 0.3550, 0.2300, 0.9662, 0.9133, 0.8486, 0.7804),
    "textgan": (0.5934, 0.4632, 0.2773, 0.2067, 0.9422, 0.9323, 0.8050, 0.7467),
}


def random_sentences(count: int, seed: int, longest: int = 9) -> list[list[str]]:
    draw = random.Random(seed)
    return [draw.choices("abcdef", k=draw.randint(1, longest)) for _ in range(count)]


def test_a_copy_of_a_reference_scores_one() -> None:
    references = [["the", "dog", "sat", "on", "it"], ["a", "cat"]]
    assert bleu([references[0]], references) == pytest.approx({2: 1.0, 3: 1.0, 4: 1.0, 5: 1.0})


def test_a_hand_worked_sentence_scores_as_worked_out() -> None:
    # 3 of 4 words and 1 of 3 pairs match; the reference is as long, so no brevity penalty.
    score = bleu([["the", "dog", "ran", "off"]], [["off", "the", "dog", "slept"]], orders=(2,))
    assert score[2] == pytest.approx(math.sqrt(3 / 4 * 1 / 3))


def test_counts_are_clipped_by_the_largest_count_in_one_reference() -> None:
    score = ReferenceIndex([["a", "b"], ["a", "a", "c"]]).scores(["a", "a", "a"])
    assert score[0] == pytest.approx(2 / 3)


def test_short_text_pays_the_brevity_penalty() -> None:
    assert ReferenceIndex([["a", "b", "c", "d"]]).scores(["a", "b"])[0] == pytest.approx(math.exp(-1))


def test_of_two_equally_near_lengths_the_shorter_counts() -> None:
    index = ReferenceIndex([["a"] * 4, ["a"] * 6])
    assert index.closest_length(5, leave_out=False) == 4


def test_text_without_a_known_word_scores_zero_and_so_does_empty_text() -> None:
    assert bleu([["x"], []], [["a", "b"]]) == {2: 0.0, 3: 0.0, 4: 0.0, 5: 0.0}


def test_self_bleu_leaves_the_sample_itself_out() -> None:
    assert self_bleu([["a", "b"], ["c", "d"]]) == {2: 0.0, 3: 0.0, 4: 0.0, 5: 0.0}


def test_self_bleu_of_equal_samples_is_one() -> None:
    assert self_bleu([list("abcdef")] * 3)[5] == pytest.approx(1.0)


def test_self_bleu_equals_bleu_against_the_other_samples() -> None:
    samples = random_sentences(30, seed=3)
    for number, words in enumerate(samples):
        others = samples[:number] + samples[number + 1 :]
        assert ReferenceIndex(samples).scores(words, number) == pytest.approx(ReferenceIndex(others).scores(words), abs=1e-14)


def test_bleu_without_references_and_self_bleu_of_one_sample_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        bleu([["a"]], [])
    with pytest.raises(ValueError, match="at least 2"):
        self_bleu([["a"]])


def test_every_order_equals_nltk_on_random_text() -> None:
    translate = pytest.importorskip("nltk.translate.bleu_score", reason="nltk is not installed")
    smooth = translate.SmoothingFunction().method1
    references, hypotheses = random_sentences(20, seed=1), random_sentences(60, seed=2)
    index = ReferenceIndex(references)
    for words in hypotheses:
        # Weights as a list: NLTK re-weights the tuple (0.25,) * 4 for short text only when asked, and warns otherwise.
        expected = [translate.sentence_bleu(references, words, [1 / n] * n, smooth) for n in range(1, 6)]
        assert index.scores(words) == pytest.approx(expected, abs=1e-14)


def captions(folder: Path) -> Path:
    if not ARCHIVE.exists():
        pytest.skip(f"the captions archive {ARCHIVE.name} is not beside the project")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "coco"


def tokenised(file: Path) -> list[list[str]]:
    destructive = pytest.importorskip("nltk.tokenize.destructive", reason="nltk is not installed")
    tokenizer = destructive.NLTKWordTokenizer()
    lines = file.read_text(encoding="utf-8").lower().splitlines()
    return [tokenizer.tokenize(line) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captions(tmp_path_factory.mktemp("captions"))


@pytest.fixture(scope="module")
def references(folder: Path) -> ReferenceIndex:
    return ReferenceIndex(tokenised(folder / "test.txt"))


def check_published(name: str, folder: Path, references: ReferenceIndex) -> None:
    samples = tokenised(folder / "published_samples" / f"{name}.txt")
    rows = [references.scores(words) for words in samples]
    found = [sum(row[order - 1] for row in rows) / len(rows) for order in (2, 3, 4, 5)]
    found += self_bleu(samples).values()
    assert [round(value, 4) for value in found] == pytest.approx(PUBLISHED[name], abs=5.1e-4)


@pytest.mark.parametrize("name", ["mle", "leakgan"])
def test_published_samples_score_as_published(name: str, folder: Path, references: ReferenceIndex) -> None:
    check_published(name, folder, references)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seq", "maligan", "rank", "textgan"])
def test_all_other_published_samples_score_as_published(name: str, folder: Path, references: ReferenceIndex) -> None:
    check_published(name, folder, references)
