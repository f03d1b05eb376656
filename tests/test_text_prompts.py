"""Prompts that come with the data: read, learned from, and answered, by every estimator."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from advgen import Batch, ConfigError, DataError, DataRequest
from advgen.api import resume, train
from advgen.cli import app
from advgen.evaluation import evaluate_run
from advgen.metrics.judging import compare
from advgen.sampling import load_run
from advgen_text import data
from advgen_text.config import TextConfig, TextSampling
from advgen_text.modality import TextModality
from advgen_text.origins import TableSet
from advgen_text.reading import Notes
from advgen_text.tokenizer import EOS, PAD

NUMBERS = {"one": "uno", "two": "dos", "three": "tres", "four": "cuatro", "five": "cinco", "six": "seis"}
SMALL = {
    "generator_embedding": 16,
    "generator_hidden": 24,
    "critic_embedding": 8,
    "critic_hidden": 8,
    "prompt_field": "question",
}


def lines() -> list[dict[str, str]]:
    pairs = [(a, b) for a in NUMBERS for b in NUMBERS]
    return [
        {"question": f"{a} and {b} in {place} :", "text": f"{NUMBERS[a]} y {NUMBERS[b]} en {place}"}
        for place in ("rome", "oslo", "lima", "bonn", "york", "cork")
        for a, b in pairs
    ]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "answers.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines()))
    return path


def read(file: Path, **more: Any) -> tuple[TextModality, Any]:
    config = TextConfig(**(SMALL | more))
    corpus = TextModality.read(config, DataRequest(file))
    return TextModality(config, json.loads(json.dumps(dict(corpus.facts)))), corpus


def first(corpus: Any, count: int = 8) -> Batch:
    found: Batch = corpus.splits["train"].batch(torch.arange(count), torch.Generator())
    return found


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_sample_is_prompt_and_text_and_only_the_text_counts(
    file: Path, in_memory: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_memory:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(data, "MOST_IN_MEMORY", 0)
        read(file)  # writes what the next reading maps
    text, corpus = read(file)
    batch, whole = first(corpus), {f"{line['question']} {line['text']}" for line in lines()}
    assert {" ".join(words) for words in text.tokenizer.words(batch.values)} <= whole
    given = batch.condition["prompt"] != PAD
    assert batch.mask is not None and given.all() and given.shape == (8, 6)
    assert torch.equal(batch.values[:, :6], batch.condition["prompt"])
    assert not batch.mask[:, :6].any() and batch.mask[:, 6:].all()  # five words and the end mark
    assert text.paired and len(text.facts["prompts"]) > 50


def test_a_long_prompt_keeps_its_end_and_half_of_the_room(tmp_path: Path) -> None:
    rows = [json.dumps({"question": f"far away from here {n} and {n}", "text": f"a b c d e {n}"}) for n in range(99)]
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    text, corpus = read(tmp_path / "x.jsonl", max_length=7)
    words = text.tokenizer.words(first(corpus).values)
    assert all(row[1] == "and" and row[0] == row[2] and row[3:] == ["a", "b", "c", "d"] for row in words)


@pytest.mark.parametrize("kind", ["word", "bpe", "character", "byte"])
def test_a_prompt_and_its_text_are_the_tokens_of_the_whole_line(kind: str, file: Path) -> None:
    text, corpus = read(file, tokenizer=kind, max_length=120)
    batch, spaced = first(corpus, 20), {f"{line['question']} {line['text']}".replace(" :", ":") for line in lines()}
    assert {line.replace(" :", ":") for line in text.tokenizer.decode(batch.values)} <= spaced
    prompts = [line.replace(" :", ":") for line in text.tokenizer.decode(batch.condition["prompt"])]
    assert set(prompts) <= {line["question"].replace(" :", ":") for line in lines()}


def test_lines_without_prompts_have_none_and_an_empty_prompt_is_one(tmp_path: Path) -> None:
    rows = [json.dumps({"question": "" if number % 2 else "so :", "text": f"a {number}"}) for number in range(80)]
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    _, corpus = read(tmp_path / "x.jsonl")
    sizes = (first(corpus, 40).condition["prompt"] != PAD).sum(1)
    assert set(sizes.tolist()) == {0, 2}
    plain, corpus = read(tmp_path / "x.jsonl", prompt_field=None)
    assert "prompt" not in first(corpus).condition and not plain.paired


def test_what_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"prompts need \.jsonl"):
        read(tmp_path / "x.txt")
    (tmp_path / "x.jsonl").write_text(json.dumps({"question": 3, "text": "a"}))
    with pytest.raises(DataError, match="has int in field 'question', expected text"):
        read(tmp_path / "x.jsonl")
    with pytest.raises(ValueError, match="long_lines=pack would cut off"):
        TextConfig(prompt_field="question", long_lines="pack")


def test_metrics_count_what_was_written_alone(file: Path) -> None:
    text, corpus = read(file)
    batch = first(corpus, 20)
    assert text.metrics(batch, batch)["bleu_2"] == pytest.approx(1.0)
    other = Batch(batch.values.clone(), batch.mask, batch.condition)
    other.values[:, 6:11] = batch.values[:, 0:1]
    assert text.metrics(other, batch)["bleu_2"] < 0.1  # all six words of the prompt agree


def test_features_are_of_what_was_written_alone(tmp_path: Path) -> None:
    draw, rows = random.Random(0), []
    for number in range(900):
        answer = " ".join(draw.choice("abcdefgh") for _ in range(6))
        rows.append(json.dumps({"question": f"what follows {number} {number} {number}", "text": answer}))
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    text, corpus = read(tmp_path / "x.jsonl")
    real, others = first(corpus, 600).slice(0, 300), first(corpus, 600).slice(300, 600)
    given = int((real.condition["prompt"][0] != PAD).sum())
    perfect = torch.cat([real.values[:, :given], others.values[:, given:]], 1)  # other answers, as likely as the real ones
    found = compare(text.judge(corpus, tmp_path), Batch(perfect, real.mask, real.condition), real)
    assert 0.4 < found["two_sample_accuracy"] < 0.6


@pytest.mark.parametrize("kind", ["word", "bpe", "character", "byte"])
def test_copies_are_told_by_what_was_written_alone(kind: str, tmp_path: Path) -> None:
    rows = [json.dumps({"question": f"say {n % 7} :", "text": f"{'abcdefg'[n % 7] * 5} {n} {n}"}) for n in range(200)]
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    text, corpus = read(tmp_path / "x.jsonl", tokenizer=kind, max_length=64)
    text.judge(corpus, tmp_path)
    batch = first(corpus, 20)
    given = int((batch.condition["prompt"][0] != PAD).sum())
    swapped = Batch(batch.values.clone(), batch.mask, {"prompt": batch.condition["prompt"].roll(1, 0)})
    swapped.values[:, :given] = batch.values.roll(1, 0)[:, :given]
    found = text.metrics(swapped, batch)  # training answers under other training prompts
    sizes = [(row[given:] > EOS).sum().item() for row in swapped.values]
    assert found["novel_share"] == 0 and found["longest_copy"] == pytest.approx(sum(sizes) / 20)
    parrot = Batch(batch.values.clone(), batch.mask, batch.condition)
    parrot.values[:, given : 2 * given] = batch.values[:, :given]  # answers with the question, which is no answer of the data
    parrot.values[:, 2 * given] = EOS
    parrot.values[:, 2 * given + 1 :] = PAD
    found = text.metrics(parrot, batch)
    assert found["novel_share"] == 1 and found["longest_copy"] < given - 1


def few_answers(count: int = 400) -> list[dict[str, str]]:
    return [{"question": f"question {number} :", "text": f"answer {number % 8}"} for number in range(count)]


def test_rows_are_split_by_prompt_and_text_so_that_few_answers_reach_every_split(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, [*few_answers(), *few_answers(40)])))
    text, corpus = read(tmp_path / "x.jsonl")
    sides = dict[str, set[str]]()
    for name, source in corpus.splits.items():
        lines = text.tokenizer.words(source.batch(torch.arange(len(source)), torch.Generator()).values)
        assert {line[-1] for line in lines} == set("01234567") and len(source) > 20
        sides[name] = {" ".join(line) for line in lines if "<unk>" not in line}
    assert not sides["train"] & (sides["validation"] | sides["test"])  # equal rows share a split


def test_inspection_counts_rows_as_repeated_where_prompt_and_text_are(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, [*few_answers(), *few_answers(3)])))
    report = TextModality.inspect(TextConfig(prompt_field="question"), DataRequest(tmp_path / "x.jsonl"), lambda *_: None)
    assert report.duplicates["count"] == 3 and report.splits["test"] > 20


def test_an_answer_of_a_held_out_row_stays_in_training_under_other_prompts() -> None:
    table = pytest.importorskip("datasets").Dataset.from_list
    every, notes = few_answers(), Notes()
    tables = TableSet("set", {"train": table(every[:300]), "test": table(every[290:])})
    found = list(tables.lines(TextConfig(prompt_field="question"), DataRequest(None), notes))
    assert sum(line.split is None for line in found) == 290 and sum(line.split == "test" for line in found) == 110
    assert notes.num_shared == 10


def test_completions_keep_the_prompt_of_their_sample(file: Path) -> None:
    text, corpus = read(file)
    batch, writer = first(corpus), text.generator()
    kept = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8])
    found = writer.continue_from(batch.values, torch.rand(8, text.length), batch.condition, kept=kept)
    for row, count in enumerate(kept.clamp(min=6).tolist()):
        assert torch.equal(found.values[row, :count], batch.values[row, :count])
        assert found.mask is not None and not found.mask[row, :count].any()


@pytest.fixture(scope="module")
def run(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    given = [f"options.{name}={value}" for name, value in SMALL.items()]
    given += ["phases=[{kind='likelihood'}]", "generator.learning_rate=0.02", "average.half_life_steps=5"]
    given += ["options.dropout=0.0"]
    train("text", overrides=given, data=file, steps=500, device="cpu", out=folder, progress=False)
    return folder


def test_held_out_prompts_are_answered(run: Path) -> None:
    loaded = load_run(run, "cpu")
    held_out = loaded.modality.prepare(loaded.corpus().splits["test"].batch(torch.arange(20), torch.Generator()))
    right = sum(
        own == real
        for own, real in zip(
            *(loaded.modality.tokenizer.decode(batch.values) for batch in (loaded.answer(held_out), held_out)), strict=True
        )
    )
    assert right >= 17
    report = evaluate_run(run, 20, device="cpu")
    assert report["modality"]["bleu_2"] > 0.8 and report["modality"]["nll_test"] < 0.5


def test_samples_continue_prompts_of_the_data_or_those_asked_for(run: Path, tmp_path: Path) -> None:
    def sampled(*given: str) -> list[str]:
        out = tmp_path / str(len(given))
        found = CliRunner().invoke(app, ["sample", str(run), "-n", "6", "--out", str(out), *given])
        assert found.exit_code == 0, found.output
        return (out / "samples.txt").read_text().splitlines()

    asked = [line["question"].replace(" :", ":") for line in lines()]
    assert all(line.partition(":")[0] + ":" in asked for line in sampled())
    assert all(
        line.startswith("two and six in oslo: dos y seis en oslo") for line in sampled("--prompt", "two and six in oslo :")
    )


def test_prompts_come_in_turn_however_many_samples_there_are(run: Path, tmp_path: Path) -> None:
    loaded = load_run(run, "cpu")
    kept = loaded.modality.facts["prompts"]
    assert 128 < len(kept) < 256  # no whole number of rounds in a block of 256
    given = loaded.draw(600).condition["prompt"].tolist()
    assert [row[: len(kept[number % len(kept)])] for number, row in enumerate(given)] == (kept * 6)[:600]
    typed = [f"{first} and {second}" for first in [*NUMBERS, "in", "rome", "oslo"] * 7 for second in NUMBERS][:300]
    (tmp_path / "prompts.txt").write_text("\n".join(typed))
    loaded.modality.use_sampling(TextSampling(prompts=str(tmp_path / "prompts.txt")), 700)
    lines = loaded.modality.rows(loaded.draw(700))
    assert all(row["text"].startswith(typed[number % 300]) for number, row in enumerate(lines))


def test_beams_of_prompts_of_the_data_come_best_first_for_each_prompt(run: Path) -> None:
    loaded = load_run(run, "cpu")
    loaded.modality.use_sampling(TextSampling(beam=2), 200)  # the prompts of the data are fewer, so some come twice
    drawn = loaded.draw(200)
    scores, given = drawn.condition["log_prob"].tolist(), drawn.condition["prompt"].tolist()
    by_prompt: dict[tuple[int, ...], list[float]] = {}
    for prompt, score in zip(given, scores, strict=True):
        by_prompt.setdefault(tuple(prompt), []).append(score)
    twice = [rows for rows in by_prompt.values() if len(rows) > 1]
    assert len(twice) >= 10 and all(rows[0] > rows[1] for rows in twice)


ESTIMATORS = {
    "dense": [],
    "rollout": ["estimator={name='score_function', rewards='rollout', rollouts=2}"],
    "importance": ["estimator={name='score_function', rewards='importance'}", "loss=nonsaturating"],
    "straight_through": ["estimator={name='straight_through', temperature=1.0}"],
    "ppo": ["estimator={name='ppo', rewards='terminal', reference_weight=0.1, real_share=0.2}"],
    "mediator": ["options.critic=mediator", "loss=cooperative", "penalties=none", "estimator={name='expectation'}"],
    "cnn": ["options.critic=cnn", "options.critic_filters=0.02"],
}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_every_estimator_trains_on_prompts_and_resumes_to_the_bit(kind: str, file: Path, tmp_path: Path) -> None:
    given = [f"options.{name}={value}" for name, value in SMALL.items()]
    given += [
        "phases=[{kind='likelihood', share=0.5}, {kind='adversarial', share=0.5}]",
        "train.batch_size=8",
        "train.log_every=1",
        *ESTIMATORS[kind],
    ]
    folders = [tmp_path / name for name in ("whole", "parts")]
    train("text", overrides=given, data=file, steps=4, device="cpu", out=folders[0], progress=False)
    train("text", overrides=given, data=file, steps=4, stop_after=3, device="cpu", out=folders[1], progress=False)
    resume(folders[1], device="cpu", progress=False)
    one, other = (load_run(folder, "cpu").weights for folder in folders)
    assert one == other
    rows = [json.loads(row) for row in (folders[0] / "metrics.jsonl").read_text().splitlines()]
    assert all(value == value for row in rows for value in row.values() if isinstance(value, float))


def test_a_class_beside_the_prompt_reaches_the_same_model(tmp_path: Path) -> None:
    rows = [json.dumps(line | {"kind": ("low", "high")["six" in line["question"]]}) for line in lines()]
    (tmp_path / "x.jsonl").write_text("\n".join(rows))
    text, corpus = read(tmp_path / "x.jsonl", label_field="kind")
    condition = text.condition(5, torch.Generator(), label=1)
    assert condition["label"].tolist() == [1] * 5 and condition["prompt"].shape == (5, 6)
    batch = first(corpus)
    assert torch.isfinite(text.likelihood(text.generator(), batch)).all() and set(batch.condition) == {"label", "prompt"}
    with pytest.raises(ConfigError, match="class 2 does not exist"):
        text.condition(5, torch.Generator(), label=2)
