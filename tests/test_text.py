"""The text plugin: its grammar, readers, tokenizers, networks and metrics."""

from __future__ import annotations

import gc
import itertools
import json
import math
import re
import tracemalloc
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen import Batch, DataError, DataRequest, Discriminator, GenError, Sample, Verdict, split_indices
from advgen.config.load import load_config
from advgen.metrics.likelihood import likelihood_metrics
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.updates.generator import update_generator
from advgen.updates.shared import likelihood_cost, mean_positions
from advgen.world import World
from advgen_text import data, exact, phrases, reading
from advgen_text.config import TextConfig
from advgen_text.data import read_corpus
from advgen_text.exact import distance_to_grammar
from advgen_text.generators import LstmWriter, Sizes, inverse_draw
from advgen_text.modality import TextModality
from advgen_text.reading import Line
from advgen_text.store import RowWriter, TextSource
from advgen_text.tokenizer import BOS, EOS, PAD, UNKNOWN, Tokenizer

SMALL = {"generator_embedding": 8, "generator_hidden": 12, "critic_embedding": 6, "critic_hidden": 10, "phrases": 200}
LINES = [f"the {noun} in row {i // 8} likes seat {i % 8} ." for i in range(40) for noun in ("dog", "cat")]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(**more: Any) -> TextConfig:
    return TextConfig(**(SMALL | more))


def modality(path: Path | None = None, **more: Any) -> tuple[TextModality, Any]:
    settings = config(**more)
    corpus = TextModality.read(settings, DataRequest(path))
    return TextModality(settings, json.loads(json.dumps(dict(corpus.facts)))), corpus


def real(text: TextModality, corpus: Any, count: int = 8) -> Batch:
    return text.prepare(corpus.splits["train"].batch(torch.arange(count), rng()))


def lines_of(text: TextModality, source: Any) -> list[str]:
    return text.tokenizer.decode(source.batch(torch.arange(len(source)), rng()).values)


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


# The grammar


def test_every_sentence_of_the_grammar_parses_to_its_own_derivation() -> None:
    for sentence in phrases.sample(3000, rng()):
        assert phrases.parse(sentence.words) == sentence


@pytest.mark.parametrize(
    "line",
    ["", ".", "the", "the dog", "the dog sleep .", "two dog sleep .", "the dog sings .", "the dog chases .",
     "the red dog sleeps .", "the dog sleeps in a garden .",
     "the dog sleeps . .", "the dog sleeps the ball .", "the dog sleeps in the"],
)  # fmt: skip
def test_a_sentence_outside_the_grammar_has_no_likelihood(line: str) -> None:
    assert phrases.log_probability(line.split()) is None


def test_the_grammar_lists_each_of_its_sentences_once_and_their_probabilities_add_to_one() -> None:
    everything = {tuple(words): (kind, chance) for kind, words, chance in phrases.sentences()}
    assert len(everything) == sum(1 for _ in phrases.sentences()) == 123_552
    assert math.fsum(chance for _, chance in everything.values()) == pytest.approx(1.0)
    for sentence in phrases.sample(500, rng()):
        kind, chance = everything[tuple(sentence.words)]
        assert kind == sentence.kind and math.log(chance) == pytest.approx(sentence.log_probability)


class Parrot:
    """Writes each token as often as sentences have it there, its last mark e^doubt times too seldom. States: what was read."""

    length = 16

    def __init__(self, text: TextModality, sentences: Sequence[tuple[str, list[str], float]], doubt: float) -> None:
        self.num_tokens, self.doubt, self.bias = len(text.tokenizer), doubt, torch.zeros(1)
        self.counts: Counter[tuple[str | None, tuple[int, ...]]] = Counter()
        for (kind, _, chance), row in zip(
            sentences, text.tokenizer.rows_of_words([words for _, words, _ in sentences]), strict=True
        ):
            for name, end in itertools.product((kind, None), range(len(row) + 1)):
                self.counts[name, tuple(row[:end])] += chance  # type: ignore[assignment]
        self.kind: str | None = None

    def start(self, num_samples: int) -> torch.Tensor:
        return torch.zeros(num_samples, 0, dtype=torch.int64)

    def tokens(self, token: torch.Tensor) -> torch.Tensor:
        return token.unsqueeze(1)

    def label(self, condition: Mapping[str, torch.Tensor], num_samples: int) -> torch.Tensor:
        self.kind = sorted(phrases.CLASSES)[int(condition["label"])] if condition else None
        return torch.zeros(num_samples, 1, dtype=torch.int64)

    def step(self, inputs: torch.Tensor, state: torch.Tensor, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        state = torch.cat([state, inputs], 1)
        return state, state

    def keep(self, state: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return state[rows]

    def logits(self, states: torch.Tensor, temperature: float, drawn: bool) -> torch.Tensor:
        rows = torch.zeros(len(states), self.num_tokens, dtype=torch.float64)
        for row, before in zip(rows, states[:, 1:].tolist(), strict=True):
            for token in range(self.num_tokens):
                row[token] = self.counts[self.kind, (*before, token)] / self.counts[self.kind, tuple(before)]
            row[PAD] += row[EOS] * (1 - math.exp(-self.doubt))
            row[EOS] *= math.exp(-self.doubt)
        return (rows + 1e-30).log()


@pytest.mark.parametrize("labelled", [False, True])
def test_the_exact_divergence_is_what_a_writer_doubts_of_the_grammar(labelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [found for number, found in enumerate(phrases.sentences()) if number % 997 == 0]
    total = Counter[str]()
    for kind, _, chance in few:
        total[kind] += chance  # type: ignore[assignment]
    few = [(kind, words, chance * phrases.CLASSES[kind] / total[kind]) for kind, words, chance in few]
    monkeypatch.setattr(exact, "_grammar", lambda: exact._arrays(few))
    text, _ = modality(phrases=2000, phrase_labels=labelled)
    for doubt in (0.0, 0.25):
        classes = text.facts["classes"] if labelled else ()
        found = distance_to_grammar(Parrot(text, few, doubt), text.tokenizer, classes, 1.0)  # type: ignore[arg-type]
        assert found["grammar_kl"] == pytest.approx(doubt, abs=1e-9)
        assert found["grammar_mass"] == pytest.approx(math.exp(-doubt), abs=1e-9)


def test_what_sentences_share_is_read_once_and_they_have_the_likelihoods_of_whole_ones() -> None:
    for labelled in (False, True):
        text, corpus = modality(phrases=2000, phrase_labels=labelled)
        writer, batch = text.generator().eval(), real(text, corpus, 200)
        rows = text.tokenizer.whole_rows(text.tokenizer.decode(batch.values))
        for label in range(3) if labelled else [0]:
            condition = {"label": torch.full((200,), label)} if labelled else {}
            one = {name: value[:1] for name, value in condition.items()}
            for temperature in (1.0, 0.5):
                own = exact.likelihoods(writer, rows, one, temperature)
                whole = writer.token_costs(batch.values, condition, batch.mask, temperature, drawn=True).double().sum(1)
                torch.testing.assert_close(own, whole, rtol=1e-5, atol=1e-4)


def test_factors_of_the_corpus_have_their_exact_distributions() -> None:
    assert max(phrases.total_variation(phrases.sample(20_000, rng())).values()) < 0.02


# Reading


def test_a_text_file_is_split_into_disjoint_parts_and_comes_back_as_text(tmp_path: Path) -> None:
    text, corpus = modality(write(tmp_path / "lines.txt", "\n\n".join(LINES)))
    found = [lines_of(text, source) for source in corpus.splits.values()]
    assert sorted(line.replace(".", " .") for lines in found for line in lines) == sorted(LINES)
    assert any("empty lines" in note for note in corpus.bad)


def test_a_folder_with_its_own_test_file_keeps_it_and_learns_none_of_it(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "\n".join([*LINES, "shared line"]))
    write(tmp_path / "test.txt", "unseen words\nshared line")
    text, corpus = modality(tmp_path)
    assert lines_of(text, corpus.splits["test"]) == ["<unk> <unk>", "<unk> <unk>"]
    assert len(corpus.splits["train"]) + len(corpus.splits["validation"]) == len(LINES)


def test_json_lines_give_text_and_labels(tmp_path: Path) -> None:
    rows = [json.dumps({"caption": line, "kind": line.split()[1]}) for line in LINES]
    text, corpus = modality(write(tmp_path / "x.jsonl", "\n".join(rows)), field="caption", label_field="kind")
    assert corpus.facts["classes"] == ["cat", "dog"]
    assert sum(corpus.facts["class_counts"]) == len(corpus.splits["train"])
    batch = real(text, corpus)
    predicted = text.judge(corpus, tmp_path).classify(batch)
    assert predicted is not None and torch.equal(predicted, batch.condition["label"])


def test_bytes_that_are_not_utf8_are_named_by_line_and_byte(tmp_path: Path) -> None:
    file = write(tmp_path / "x.txt", b"good line\nbad \xff line\n" + "\n".join(LINES).encode())
    corpus = read_corpus(config(), DataRequest(file))
    assert f"{file} line 2 is not UTF-8 at byte 5 of the line" in corpus.bad[0]
    with pytest.raises(DataError, match=r"a bad line, .* allows 0; the first: .*line 2 is not UTF-8 at byte 5 of the line"):
        read_corpus(config(), DataRequest(file, max_bad=0))
    marked = write(tmp_path / "y.txt", b"\xef\xbb\xbfbad \xff line\n" + "\n".join(LINES).encode())
    assert "line 1 is not UTF-8 at byte 5 of the line" in read_corpus(config(), DataRequest(marked)).bad[0]


def test_text_that_the_tokenizer_hardly_knows_is_told_with_the_share_and_the_way_out(tmp_path: Path) -> None:
    file = write(tmp_path / "x.txt", "\n".join(f"common {number}x{number}" for number in range(200)))
    note = read_corpus(config(vocabulary_size=8), DataRequest(file)).notes[0]
    assert note.startswith("warning: 4") and "% of the training tokens are unknown" in note  # all second words but three
    assert note.endswith("take a larger options.vocabulary_size, or options.tokenizer=bpe or tokenizer=byte")
    for known in ({"vocabulary_size": 300}, {"vocabulary_size": 300, "tokenizer": "byte"}):
        assert not read_corpus(config(**known), DataRequest(file)).notes


@pytest.mark.parametrize(
    ("good", "max_bad", "message"),
    [
        ("\n".join(LINES), 4, "more than 4 bad lines, data.max_bad allows 4"),
        ("only one line", 10, "1 sample leaves nothing for"),
        ("", 10, "holds no text: 0 empty lines"),
    ],
)
def test_a_few_bad_lines_are_named_whatever_the_data_are_refused_for(
    tmp_path: Path, good: str, max_bad: int, message: str
) -> None:
    file = write(tmp_path / "x.txt", b"".join(b"a" * number + b"\xff\n" for number in range(5)) + good.encode())
    with pytest.raises(DataError, match=message) as refused:
        read_corpus(config(), DataRequest(file, max_bad=max_bad))
    found = re.findall(r"x\.txt line (\d) is not UTF-8 at byte (\d) of the line", str(refused.value))
    assert found == [("1", "1"), ("2", "2"), ("3", "3")] and str(refused.value).endswith(" and 2 more") == (max_bad == 10)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", "", "holds no text"),
        ("x.txt", "\n \n", "2 empty lines"),
        ("x.txt", "only one line", "1 sample leaves nothing for validation and test; bring more data$"),
        (
            "x.txt",
            "the same line\n" * 500,
            "500 samples leave nothing for .*, as equal lines share a split; bring .*, or change data.v",
        ),
        ("x.csv", "a,b", "reads .txt and .jsonl"),
        ("x.jsonl", '{"other": 1}', "has no field 'text'"),
        ("x.jsonl", '{"text": 1}', "expected text"),
        ("x.jsonl", "[1]", "expected an object"),
        ("x.jsonl", "{", "is not JSON"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_corpus(config(), DataRequest(write(tmp_path / name, content), max_bad=0))


HALVES = {
    "text": ({"text": "a \ud800 b", "kind": "x", "start": "so"}, "has half of a character in field 'text'"),
    "label": ({"text": "a b", "kind": "\udfff", "start": "so"}, "has half of a character in field 'kind'"),
    "prompt": ({"text": "a b", "kind": "x", "start": "\udc00"}, "has half of a character in field 'start'"),
    "deep": ("[" * 200_000 + "]" * 200_000, "is nested too deeply"),
    "deep field": ('{"text": "a", "x": ' + "[" * 200_000 + "]" * 200_000 + "}", "is nested too deeply"),
}


@pytest.mark.parametrize("kind", HALVES)
def test_halves_of_characters_and_deep_nesting_are_bad_lines(kind: str, tmp_path: Path) -> None:
    bad, message = HALVES[kind]
    rows = [json.dumps({"text": line, "kind": line.split()[1], "start": "so"}) for line in LINES]
    rows.insert(2, bad if isinstance(bad, str) else json.dumps(bad))
    file = write(tmp_path / "x.jsonl", "\n".join(rows))
    settings = config(label_field="kind", prompt_field="start")
    corpus = read_corpus(settings, DataRequest(file))
    assert sum(map(len, corpus.splits.values())) == len(LINES) and len(corpus.bad) == 1
    assert f"{file} line 3 " in corpus.bad[0] and re.search(message, corpus.bad[0])
    with pytest.raises(DataError, match=message):
        read_corpus(settings, DataRequest(file, max_bad=0))
    report = TextModality.inspect(settings, DataRequest(file), lambda *_: None)
    assert (report.num_bad, report.count, report.bad) == (1, len(LINES), list(corpus.bad))


def test_missing_and_empty_folders_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_corpus(config(), DataRequest(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"holds no \.txt"):
        read_corpus(config(), DataRequest(tmp_path))


def test_labels_from_a_plain_text_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels need \.jsonl"):
        read_corpus(config(label_field="kind"), DataRequest(write(tmp_path / "x.txt", "\n".join(LINES))))


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_line_of_a_megabyte_is_cut(tmp_path: Path, kind: str) -> None:
    file = write(tmp_path / "x.txt", "\n".join([*LINES, "word " * 200_000, "x" * 1_000_000]))
    text, _ = modality(file, tokenizer=kind, max_length=16)
    assert text.length == 16


def big_file(folder: Path) -> Path:
    return write(folder / "big.txt", "".join(f"{line} {number % 7}\n" for number in range(20) for line in LINES))


def same(first: Any, second: Any) -> bool:
    rows = torch.arange(len(first))
    one, two = first.batch(rows, rng()), second.batch(rows, rng())
    return torch.equal(one.values, two.values) and torch.equal(one.mask, two.mask)


@pytest.fixture
def nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MOST_IN_MEMORY", 0)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_corpus_in_the_cache_equals_one_in_memory(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = DataRequest(big_file(tmp_path))
    small = read_corpus(config(tokenizer=kind), request)
    monkeypatch.setattr(data, "MOST_IN_MEMORY", 0)
    large = read_corpus(config(tokenizer=kind), request)
    assert (large.facts, large.fingerprint, large.bad) == (small.facts, small.fingerprint, small.bad)
    assert all(same(small.splits[name], large.splits[name]) for name in small.splits)


def test_labels_go_to_the_cache_with_their_lines(tmp_path: Path, nothing_in_memory: None) -> None:
    rows = [json.dumps({"text": line, "kind": line.split()[1]}) for line in LINES]
    text, corpus = modality(write(tmp_path / "x.jsonl", "\n".join(rows)), label_field="kind")
    batch = real(text, corpus)
    found = [corpus.facts["classes"][number] for number in batch.condition["label"].tolist()]
    assert found == [line.split()[1] for line in text.tokenizer.decode(batch.values)]


def test_a_second_run_reuses_the_cache_and_other_options_do_not(
    tmp_path: Path, nothing_in_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    request, built = DataRequest(big_file(tmp_path)), []
    original = data.encode
    monkeypatch.setattr(data, "encode", lambda *args, **names: built.append(1) or original(*args, **names))
    first = read_corpus(config(), request)
    second = read_corpus(config(generator_hidden=99), request)
    assert len(built) == 1 and same(first.splits["test"], second.splits["test"]) and first.facts == second.facts
    read_corpus(config(max_length=5), request)
    assert len(built) == 2
    request.path.write_text(request.path.read_text() + "one line more\n")
    read_corpus(config(), request)
    assert len(built) == 3


def test_a_damaged_cache_is_built_anew(tmp_path: Path, nothing_in_memory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    request = DataRequest(big_file(tmp_path))
    first = read_corpus(config(), request)
    (kept,) = (tmp_path / "cache" / "advgen" / "text").iterdir()
    (kept / "test.tokens").write_bytes(b"")
    assert same(read_corpus(config(), request).splits["train"], first.splits["train"])
    assert [folder.name for folder in kept.parent.iterdir()] == [kept.name]


def test_a_failure_while_the_cache_is_written_leaves_nothing_behind(
    tmp_path: Path, nothing_in_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="is not UTF-8 at byte 4 of the line"):
        read_corpus(config(), DataRequest(write(tmp_path / "x.txt", b"bad\xff\n"), max_bad=0))
    assert list((tmp_path / "cache" / "advgen" / "text").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, nothing_in_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(write(tmp_path / "a_file", "")))
    with pytest.raises(DataError, match=r"cannot be kept in .*set XDG_CACHE_HOME"):
        read_corpus(config(), DataRequest(big_file(tmp_path)))


def test_memory_does_not_grow_with_the_text(tmp_path: Path, nothing_in_memory: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "VOCABULARY_BYTES", 10_000)
    monkeypatch.setattr(data, "BLOCK_LINES", 256)
    file, peaks = tmp_path / "x.txt", []
    for copies in (10, 60):
        file.write_text("".join(f"{line} {number}\n" for number in range(copies) for line in LINES))
        gc.collect()
        tracemalloc.start()
        read_corpus(config(), DataRequest(file))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 50_000


def test_a_large_corpus_gives_its_vocabulary_an_even_share_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "VOCABULARY_BYTES", 10_000)
    corpus = read_corpus(config(), DataRequest(big_file(tmp_path)))
    assert 0 < corpus.facts["vocabulary_share"] < 0.5
    assert any("vocabulary was learned from" in note for note in corpus.notes)


def test_the_split_of_a_line_is_that_of_the_toolkit() -> None:
    request = DataRequest(None, validation_share=0.2, test_share=0.3)
    expected = split_indices(LINES, request)
    for name, rows in expected.items():
        assert [row for row, line in enumerate(LINES) if data.split_of(Line(line), request)[0] == name] == rows.tolist()


@pytest.mark.parametrize("name", ["x.txt", "x.jsonl"])
def test_a_line_is_not_read_beyond_the_limit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LINE_BYTES", 64)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 16)
    long, rows = "word " * 12 + "wor\u00e9" * 30, [json.dumps({"text": line}) for line in LINES]
    content = [*rows, json.dumps({"text": long})] if name == "x.jsonl" else [long, *LINES]
    corpus = read_corpus(config(), DataRequest(write(tmp_path / name, "\n".join([*content, *content[:1]]))))
    assert sum(map(len, corpus.splits.values())) == len(LINES) + (1 if name == "x.jsonl" else 2)
    assert any("is longer than 64 bytes" in note for note in corpus.bad) == (name == "x.jsonl")


def test_novelty_is_told_by_the_whole_training_split(tmp_path: Path, nothing_in_memory: None) -> None:
    text, corpus = modality(big_file(tmp_path))
    assert "novel_share" not in text.metrics(real(text, corpus), real(text, corpus))
    text.judge(corpus, tmp_path)
    train = corpus.splits["train"].batch(torch.tensor([0, len(corpus.splits["train"]) - 1]), rng())
    strange = Batch(train.values.flip(0), train.mask)
    strange.values[1, 0] = strange.values[0, 1]
    assert text.metrics(strange, real(text, corpus))["novel_share"] == 0.5


# Tokenizers


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_tokenizer_rebuilt_from_its_json_reads_alike(kind: str) -> None:
    first = Tokenizer.learn(LINES, kind=kind, vocabulary_size=60, lower_case=True)
    second = Tokenizer(first.to_json())
    assert len(second) <= 60
    assert torch.equal(first.encode(LINES, 20), second.encode(LINES, 20))


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_text_that_spells_a_special_token_is_ordinary_text(kind: str) -> None:
    row = Tokenizer.learn(LINES, kind=kind, vocabulary_size=60, lower_case=True).encode(["the <pad> <eos> dog"], 20)[0].tolist()
    assert row.count(EOS) == 1 and row.index(EOS) == len([token for token in row if token != PAD]) - 1


def test_an_unknown_word_becomes_the_unknown_token() -> None:
    tokenizer = Tokenizer.learn(LINES, kind="word", vocabulary_size=60, lower_case=True)
    assert tokenizer.encode(["the zebra"], 4)[0].tolist()[1:] == [UNKNOWN, EOS, PAD]


# Networks


def test_an_inverse_draw_lands_where_the_cumulative_distribution_says() -> None:
    logits = torch.tensor([[0.2, 0.0, 0.5, 0.3]]).log().expand(5, -1)
    assert inverse_draw(logits, torch.tensor([0.0, 0.19, 0.21, 0.69, 0.999999])).tolist() == [0, 0, 2, 2, 3]


@pytest.mark.parametrize("mode", ["values", "relaxed", "log_prob"])
def test_each_sample_depends_on_its_own_noise_alone(mode: Any) -> None:
    text, corpus = modality(phrase_labels=True)
    condition = real(text, corpus).condition
    noise, generator = text.noise(8, rng(), mode=mode), text.generator()
    whole = generator(noise, condition, mode=mode)
    part = generator(noise[3:5], {"label": condition["label"][3:5]}, mode=mode)
    assert torch.equal(whole.values[3:5], part.values)


def test_samples_end_with_eos_and_pads_and_never_hold_unknown() -> None:
    text, _ = modality()
    values = text.generator()(text.noise(300, rng()), {}).values
    assert not ((values == UNKNOWN) | (values == BOS)).any()
    after = (values == EOS).cumsum(1) - (values == EOS).long() > 0
    assert torch.equal(values == PAD, after)


def test_log_probabilities_are_those_of_a_single_pass_and_zero_after_the_end() -> None:
    text, _ = modality()
    generator = text.generator().double()
    drawn = generator(text.noise(20, rng()).double(), {}, mode="log_prob")
    rows = generator.log_probs(drawn.values, {})
    rows = rows - rows.exp()[..., [UNKNOWN]].neg().log1p()  # sampling shares <unk>'s probability among the others
    expected = rows.gather(2, drawn.values.unsqueeze(2)).squeeze(2).masked_fill(~drawn.mask, 0)
    torch.testing.assert_close(drawn.log_prob, expected)
    assert (drawn.entropy[~drawn.mask] == 0).all() and drawn.log_prob.requires_grad


def test_draws_follow_the_log_probabilities() -> None:
    torch.manual_seed(0)
    generator = LstmWriter(Sizes(7, 2), embedding=4, hidden=4)
    first = generator(torch.rand(40_000, 2, generator=rng()), {}, mode="log_prob").values[:, 0]
    one = generator(torch.rand(200, 2, generator=rng(1)), {}, mode="log_prob")
    for token in one.values[:, 0].unique():
        share = (first == token).float().mean()
        torch.testing.assert_close(share, one.log_prob[one.values[:, 0] == token, 0][0].exp(), atol=0.01, rtol=0)


def test_relaxed_samples_are_one_hot_forward_and_carry_a_gradient() -> None:
    text, _ = modality()
    generator, critic = text.generator(), text.discriminator()
    fake = generator(text.noise(4, rng(), mode="relaxed"), {}, mode="relaxed")
    assert torch.equal(fake.relaxed.detach().argmax(2), fake.values)
    assert set(fake.relaxed.detach().unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(critic.embed(fake), critic.embed(Sample(fake.values)))
    critic(critic.embed(fake), {}, fake.mask).heads[0].scores.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_noise_of_the_wrong_shape_is_refused() -> None:
    text, _ = modality()
    with pytest.raises(GenError, match="expected"):
        text.generator()(torch.rand(2, text.length + 1), {})


def test_the_critic_sees_unit_norms_and_only_what_was_written_so_far() -> None:
    text, corpus = modality()
    batch, critic = real(text, corpus), text.discriminator()
    seen = critic.embed(Sample(batch.values, mask=batch.mask))
    torch.testing.assert_close(seen.norm(dim=2), torch.ones_like(seen[..., 0]))
    changed = seen.clone()
    changed[:, 3:] = 0
    before, after = (critic(x, {}, batch.mask).heads[0].scores for x in (seen, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3])


def test_the_critic_allows_a_second_derivative() -> None:
    text, corpus = modality()
    batch, critic = real(text, corpus, 2), text.discriminator().double()
    seen = critic.embed(Sample(batch.values)).detach()[:, :2].requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: critic(x, {}).heads[0].scores, seen)


def test_likelihood_is_nats_under_the_mask_and_falls_when_trained() -> None:
    torch.manual_seed(0)
    text, corpus = modality(dropout=0.0)
    batch, generator = real(text, corpus, 32), text.generator()
    start = text.likelihood(generator, batch)
    assert start.shape == batch.values.shape and (start[~batch.mask] == 0).all()
    assert start[batch.mask].mean().item() == pytest.approx(math.log(len(text.tokenizer) - 2), rel=0.15)
    optimizer = torch.optim.Adam(generator.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        text.likelihood(generator, batch).sum().div(batch.mask.sum()).backward()
        optimizer.step()
    assert text.likelihood(generator, batch)[batch.mask].mean() < 0.8 * start[batch.mask].mean()


def test_own_samples_cost_what_they_were_drawn_with_though_the_unknown_word_is_likely_in_data() -> None:
    torch.manual_seed(0)
    text, corpus = modality()
    generator = text.generator()
    with torch.no_grad():
        generator.bias[UNKNOWN] = 5.0
    noise = text.noise(40, torch.Generator().manual_seed(0))
    drawn = generator(noise, {}, mode="log_prob")
    batch = Batch(drawn.values, drawn.mask, {})
    found = likelihood_metrics(text, generator, real(text, corpus, 8), batch)
    expected = -drawn.log_prob.detach()[drawn.mask].double().mean()
    assert found["nll_div"] == pytest.approx(float(expected), rel=1e-5)
    assert text.likelihood(generator, batch)[drawn.mask].mean() > expected + 0.5


class Undecided(Discriminator):
    """Scores that say nothing of the sample: noise around one and the same number."""

    def embed(self, sample: Sample) -> torch.Tensor:
        return sample.values.unsqueeze(2).double()

    def forward(self, seen: torch.Tensor, condition: Any, mask: torch.Tensor | None = None) -> Verdict:
        return Verdict.of(torch.randn(seen.shape[:2]) - 2.0, mask=mask)


def small_setup(*more: str) -> Setup:
    sizes = [f"options.{name}={value}" for name, value in SMALL.items()]
    record = find_plugin("text")
    return build(record, load_config(record, overrides=[*sizes, *more]).config, World(0, 1, torch.device("cpu")))


def test_every_token_counts_alike_in_the_likelihood_whatever_its_sentence() -> None:
    setup = small_setup("train.batch_size=16", "train.accumulate=2", "options.dropout=0.0")
    chunks = setup.draw("generator", 0)
    positions = mean_positions(setup.world, chunks)
    parts = [likelihood_cost(setup.players, chunk.real, positions) for chunk in chunks]
    nats = [setup.modality.likelihood(setup.players.generator.network, chunk.real) for chunk in chunks]
    expected = torch.cat(nats).sum() / sum(chunk.real.mask.sum() for chunk in chunks)
    torch.testing.assert_close(torch.stack(parts).mean(), expected)


@pytest.mark.parametrize("loss", ["relativistic", "nonsaturating"])
def test_a_critic_that_cannot_tell_does_not_move_the_length_in_200_steps(loss: str) -> None:
    setup = small_setup(
        f"loss='{loss}'",
        "estimator.discount=0.9",
        "auxiliary.likelihood=0.0",
        "generator.learning_rate=0.003",
        "train.batch_size=24",
    )
    players, generator = setup.players, setup.players.generator.network
    players.discriminator.network = Undecided()

    def length() -> float:
        noise = torch.rand(1000, setup.modality.length, generator=rng())
        return float(generator(noise, {}).mask.sum(1).float().mean())

    before = length()
    for step in range(200):
        update_generator(players, setup.objective, setup.draw("generator", step), step, 0.0)
    assert length() == pytest.approx(before, rel=0.1)


# Metrics and files


def test_real_sentences_are_valid_known_and_keep_their_factors() -> None:
    text, corpus = modality(phrases=2000)
    batch = real(text, corpus, 1000)
    text.judge(corpus, Path())
    found = text.metrics(batch, real(text, corpus, 100))
    assert found["valid_share"] == 1.0 and found["novel_share"] == 0.0
    assert max(value for name, value in found.items() if name.startswith("factor_tv")) < 0.1
    shuffled = Batch(batch.values[:, torch.randperm(batch.values.shape[1], generator=rng())], batch.mask)
    assert text.metrics(shuffled, batch)["valid_share"] < 0.2


def test_features_do_not_change_from_one_judge_to_the_next(tmp_path: Path) -> None:
    text, corpus = modality()
    batch = real(text, corpus)
    judges = [text.judge(corpus, tmp_path) for _ in range(2)]
    first, second = (judge.features(batch) for judge in judges)
    assert torch.equal(first, second) and first.shape == (8, 64)
    stamps = [getattr(judge, "protocol", {}) for judge in judges]
    assert stamps[0] == stamps[1] and "64 numbers" in stamps[0]["layer"] and len(stamps[0]["weights"]) == len("sha256 ") + 64


def test_samples_are_written_a_line_each_and_later_blocks_are_added(tmp_path: Path) -> None:
    text, corpus = modality()
    batch = real(text, corpus)
    text.write(batch.slice(0, 5), tmp_path)
    files = text.write(batch.slice(5, 8), tmp_path, start=5)
    assert files == [tmp_path / "samples.txt"]
    assert files[0].read_text().splitlines() == text.tokenizer.decode(batch.values)
    assert len(text.overview(batch, tmp_path / "step-00000500")[0].read_text().splitlines()) == 8


# Copies of training text


def test_longest_copies_are_those_of_a_search_by_hand() -> None:
    random = torch.Generator().manual_seed(0)
    drawn = [
        torch.randint(6, (int(size),), generator=random).tolist() for size in torch.randint(1, 12, (90,), generator=random)
    ]
    train, lines = drawn[:40], [*drawn[40:], drawn[3], drawn[7][:4], [99]]

    def by_hand(line: list[int]) -> int:
        runs = {tuple(each[a:b]) for each in train for a in range(len(each)) for b in range(a + 1, len(each) + 1)}
        own = (line[a:b] for a in range(len(line)) for b in range(a + 1, len(line) + 1))
        return max((len(run) for run in own if tuple(run) in runs), default=0)

    writer = RowWriter(None, "train")
    writer.add(train, [])
    source = TextSource(writer.close(), 12)
    assert source.longest_copies(lines) == [by_hand(line) for line in lines]
    assert source.longest_copies([]) == [] and source.longest_copies([[], [99]]) == [0, 0]


def test_a_copied_corpus_is_copied_from_end_to_end(tmp_path: Path) -> None:
    config = TextConfig(phrases=300)
    corpus = TextModality.read(config, DataRequest(None))
    modality = TextModality(config, corpus.facts)
    modality.judge(corpus, tmp_path)
    train, test = (corpus.splits[name].batch(torch.arange(20), torch.Generator()) for name in ("train", "test"))
    found = modality.metrics(train, test)
    words = [len(line) for line in modality.tokenizer.words(train.values)]
    assert found["novel_share"] == 0 and found["longest_copy"] == pytest.approx(sum(words) / 20)
    assert 0 < found["longest_copy_held_out"] < found["longest_copy"]
