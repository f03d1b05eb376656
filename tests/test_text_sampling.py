"""What gen sample and gen verify do for text (tokens, beams, prompts, watermark), and tokenizers for any language."""

from __future__ import annotations

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from advgen import ConfigError, DataError, DataRequest
from advgen.api import resume, train
from advgen.cli import app, main
from advgen.errors import CheckpointError
from advgen.export import export_run
from advgen.sampling import load_run, sample_run, verify_file
from advgen_text.config import TextConfig, TextSampling
from advgen_text.data import pieces, read_corpus
from advgen_text.decoding import beam_search, chooser, keep_top_k, keep_top_p, read_prompts
from advgen_text.generators import LstmWriter, Sizes
from advgen_text.modality import TextModality
from advgen_text.tokenizer import EOS, PAD, UNKNOWN, Tokenizer, join_words, split_words
from advgen_text.watermark import Watermark, find

sys.path.insert(0, str(Path(__file__).parent))
from conftest import TINY

SMALL = ["generator_embedding=8", "generator_hidden=8", "critic_embedding=8", "critic_hidden=8", "phrases=300"]
DIGITS = "零一二三四五六七八九"
CHINESE = [f"床前明月光，疑是地上霜{DIGITS[number % 10]}{DIGITS[number // 10]}。" for number in range(60)]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def options(**more: Any) -> TextSampling:
    return TextSampling(**more)


def write(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    given = [f"options.{text}" for text in [*SMALL, "phrase_labels=true"]]
    train("text", overrides=[*given, "train.batch_size=8"], steps=1, device="cpu", out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_run(trained, "huggingface", tmp_path_factory.mktemp("exported") / "model").path


# Choosing a token


def test_top_k_and_top_p_keep_the_likeliest_alone() -> None:
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.05, 0.9, 0.03, 0.02]]).log()
    assert (keep_top_k(logits, 2).softmax(1) > 1e-6).tolist() == [[True, False, True, False], [True, True, False, False]]
    assert (keep_top_p(logits, 0.7).softmax(1) > 1e-6).tolist() == [[True, False, True, False], [False, True, False, False]]
    assert torch.equal(keep_top_p(logits, 1.0), logits) and torch.equal(keep_top_k(logits, 99), logits)
    assert (keep_top_p(logits, 1e-9).softmax(1) > 1e-6).sum(1).tolist() == [1, 1]


def test_a_low_temperature_takes_the_likeliest_and_a_high_one_any() -> None:
    logits, before = torch.tensor([[1.0, 2.0, 0.0]]).expand(3000, -1), torch.zeros(3000, dtype=torch.int64)
    uniform = torch.rand(3000, generator=rng())
    assert (chooser(options(temperature=0.01))(logits, before, uniform) == 1).all()
    shares = chooser(options(temperature=2.0))(logits, before, uniform).bincount(minlength=3) / 3000
    torch.testing.assert_close(shares, (logits[0] / 2).softmax(0), atol=0.03, rtol=0)


# Beams


def tiny_writer() -> LstmWriter:
    torch.manual_seed(4)
    generator = LstmWriter(Sizes(7, 4), embedding=4, hidden=4)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(3)
    return generator.double()


def every_sentence(generator: LstmWriter) -> dict[tuple[int, ...], float]:
    """All sentences of up to 4 tokens with their log-probability."""
    rows = [row for row in itertools.product((EOS, PAD, 4, 5, 6), repeat=4) if is_sentence(row)]
    tokens = torch.tensor(rows)
    logs = generator.score(tokens, {}, drawn=True).log_softmax(2).gather(2, tokens.unsqueeze(2)).squeeze(2)
    return dict(zip(rows, logs.masked_fill(tokens == PAD, 0).sum(1).tolist(), strict=True))


def is_sentence(row: tuple[int, ...]) -> bool:
    end = row.index(EOS) if EOS in row else 4
    return PAD not in row[:end] and all(token == PAD for token in row[end + 1 :])


def test_wide_beams_find_the_likeliest_of_all_sentences_in_order() -> None:
    generator = tiny_writer()
    exact = sorted(every_sentence(generator).items(), key=lambda item: -item[1])
    assert sum(math.exp(value) for _, value in exact) == pytest.approx(1)
    tokens, total = beam_search(generator, {}, 2, 64)
    for place in range(10):
        assert tuple(tokens[1, place].tolist()) == exact[place][0]
        assert total[0, place].item() == pytest.approx(exact[place][1])


def test_beams_continue_a_prompt_and_do_not_count_it() -> None:
    generator = tiny_writer()
    exact = {row: value for row, value in every_sentence(generator).items() if row[0] == 5}
    first = math.log(sum(math.exp(value) for value in exact.values()))
    best, value = max(exact.items(), key=lambda item: item[1])
    tokens, total = beam_search(generator, {"prompt": torch.tensor([[5]])}, 1, 32)
    assert tuple(tokens[0, 0].tolist()) == best and total[0, 0].item() == pytest.approx(value - first)


# Watermark


def test_a_watermark_is_found_with_its_key_and_with_no_other() -> None:
    mark, logits = Watermark("secret", strength=4.0), torch.zeros(2000, 500)
    before = torch.randint(4, 500, (2000,), generator=rng())
    choose = chooser(options(watermark="secret", watermark_strength=4.0))
    drawn = choose(logits, before, torch.rand(2000, generator=rng(1)))
    plain = chooser(options())(logits, before, torch.rand(2000, generator=rng(1)))
    rows = torch.stack([before, drawn], 1).tolist()
    found = find(rows, mark)
    assert found.z > 20 and found.p < 1e-20 and found.num_pairs > 2000
    assert abs(find(rows, Watermark("other")).z) < 4
    assert abs(find(torch.stack([before, plain], 1).tolist(), mark).z) < 4


def test_green_tokens_are_the_share_that_was_asked_for_and_change_with_the_token_before() -> None:
    tokens = torch.arange(20_000)
    for share in (0.1, 0.5):
        green = Watermark("k", share=share).green(torch.tensor([[5], [6]]), tokens)
        torch.testing.assert_close(green.float().mean(1), torch.full((2,), share), atol=0.02, rtol=0)
        both = (green[0] & green[1]).float().mean().item()
        assert both == pytest.approx(share**2, abs=0.02)


def test_z_and_p_are_those_of_the_paper() -> None:
    mark, pairs = Watermark("k"), torch.cartesian_prod(torch.arange(4, 30), torch.arange(4, 30))
    green = mark.green(*pairs.unbind(1))
    chosen = torch.cat([pairs[green][:60], pairs[~green][:40]])
    rows = [row for pair in chosen.tolist() for row in [[UNKNOWN, *pair]]]
    found = find([*rows, *rows], mark)  # a repetition counts once
    assert (found.num_pairs, found.num_green) == (100, 60)
    assert found.z == pytest.approx((60 - 25) / math.sqrt(100 * 0.25 * 0.75))
    assert found.p == pytest.approx(0.5 * math.erfc(found.z / math.sqrt(2)))
    assert find([], mark).p == 0.5


# Prompts


def shown(tokenizer: Tokenizer, given: TextSampling) -> list[list[int]]:
    prompts = read_prompts(given, tokenizer, 5)
    assert prompts is not None
    return prompts.tokens.tolist()


def test_prompts_that_cannot_be_continued_are_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.learn(["the dog sleeps"], kind="word", vocabulary_size=20, lower_case=True)
    assert shown(tokenizer, options(prompt="The dog")) == [tokenizer.rows(["the dog"], 9)[0][:-1]]
    assert read_prompts(options(), tokenizer, 5) is None
    with pytest.raises(ConfigError, match=r"prompt 1 \('the dog the dog the'\) has 5 tokens; this run writes 5"):
        read_prompts(options(prompt="the dog the dog the"), tokenizer, 5)
    with pytest.raises(ConfigError, match="holds only words that this run has never seen"):
        read_prompts(options(prompt="zebra"), tokenizer, 5)
    with pytest.raises(ConfigError, match=r"prompt 1 \('dog \\udcff'\) is not UTF-8"):
        read_prompts(options(prompt="dog \udcff"), tokenizer, 5)
    with pytest.raises(DataError, match=r"p\.txt line 2 is not UTF-8 at byte 5 of the line"):
        read_prompts(options(prompts=str(write(tmp_path / "p.txt", b"the\ndog \xff"))), tokenizer, 5)
    with pytest.raises(DataError, match="holds no prompt"):
        read_prompts(options(prompts=str(write(tmp_path / "p.txt", "\n \n"))), tokenizer, 5)
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(options(prompts=str(tmp_path / "nowhere")), tokenizer, 5)


@pytest.mark.parametrize(
    ("kind", "line", "parts"),
    [
        ("word", "The zebra 's dog, Quux!", ["zebra", "'", "s", "Quux"]),
        ("bpe", "the d犬g Ωs", ["犬", "Ω"]),
        ("character", "the d犬g Ωs", ["犬", "Ω"]),
        ("byte", "the d犬g Ωs", []),
    ],
)
def test_unknown_tokens_are_shown_as_they_were_written(kind: str, line: str, parts: list[str]) -> None:
    tokenizer = Tokenizer.learn(["the dogs, they sleep!"] * 3 + ["a dog"], kind=kind, vocabulary_size=300, lower_case=True)
    assert tokenizer.unknown_parts(line) == parts
    tokens = tokenizer.encode([line, "the dog"], 40)
    assert tokenizer.decode_with(tokens, [parts, []])[1] == "the dog"
    known = tokenizer.decode_with(tokens, [parts, []])[0]
    assert known == tokenizer.decode(tokens)[0].replace("<unk>", "{}").format(*parts)
    assert tokenizer.decode_with(tokens, [[], []]) == tokenizer.decode(tokens)


def test_unknown_words_of_prompts_are_warned_of_once_and_stand_in_the_samples_as_typed(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "p.txt", "the Zebra\nthe lion , Ω ß quux\nthe dog")
    drawn = {}
    for file_format in ("txt", "jsonl"):
        words = ["sample", str(trained), "-n", "300", "--prompts", str(file), "--format", file_format]
        with pytest.raises(SystemExit):
            main([*words, "--out", str(tmp_path / file_format)])
        errors = capfd.readouterr().err
        assert errors.count("warning") == 1 and "know 'Zebra', 'lion', ',' and 3 more of the prompts" in errors
        drawn[file_format] = (tmp_path / file_format / f"samples.{file_format}").read_text().splitlines()
    assert [json.loads(line)["text"] for line in drawn["jsonl"]] == drawn["txt"]
    starts = ("the Zebra", "the lion, Ω ß quux", "the dog")
    assert all(line.startswith(starts[number % 3]) and "<unk>" not in line for number, line in enumerate(drawn["txt"]))
    overview = (tmp_path / "txt" / "overview.txt").read_text().splitlines()
    assert "the Zebra" in overview[63] and len(overview) == 64
    with pytest.raises(SystemExit):
        main(["sample", str(trained), "--prompt", "the dog", "--out", str(tmp_path / "known")])
    assert "warning" not in capfd.readouterr().err


def test_samples_start_with_their_prompts_in_turn_whatever_the_count(trained: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "prompts.txt", "the dog\n\na red cat\n")
    given = {"prompts": str(file), "temperature": 0.5}
    lines = sample_run(trained, 5, out=tmp_path / "a", options=given).files[0].read_text().splitlines()
    assert [line.startswith(("the dog", "a red cat")[number % 2]) for number, line in enumerate(lines)] == [True] * 5
    more = sample_run(trained, 300, out=tmp_path / "b", options=given).files[0].read_text().splitlines()
    assert more[:5] == lines and len(set(more)) > 50
    alone = sample_run(trained, seeds=(3, 4), out=tmp_path / "c", options=given).files[0].read_text().splitlines()
    assert [line.startswith("the dog") for line in alone] == [True, True]


def test_beams_give_as_many_different_samples_as_there_are_and_say_how_likely_each_is(trained: Path, tmp_path: Path) -> None:
    given = {"beam": 4, "prompt": "the"}
    result = sample_run(trained, 4, label="animal", out=tmp_path, options=given, file_format="jsonl")
    rows = [json.loads(line) for line in result.files[0].read_text().splitlines()]
    assert len({row["text"] for row in rows}) == 4 and {row["class"] for row in rows} == {"animal"}
    assert [row["log_prob"] for row in rows] == sorted((row["log_prob"] for row in rows), reverse=True)
    with pytest.raises(ConfigError, match="4 beams find 4 samples"):
        sample_run(trained, 5, label="animal", out=tmp_path, options=given)


def test_beams_are_ranked_within_what_they_were_asked_for_whatever_the_order(trained: Path) -> None:
    run = load_run(trained)
    run.modality.use_sampling(options(beam=16), 24)
    drawn = run.draw(24)
    lines, scores = run.modality.tokenizer.decode(drawn.values), drawn.condition["log_prob"]
    for label in range(3):
        rows = (drawn.condition["label"] == label).nonzero()[:, 0]
        assert len(rows) > 1 and scores[rows].tolist() == sorted(scores[rows].tolist(), reverse=True)
        run.modality.use_sampling(options(beam=16), len(rows))
        best = run.draw(len(rows), label=label)
        assert [lines[row] for row in rows] == run.modality.tokenizer.decode(best.values)
    run.modality.use_sampling(options(beam=2), 6)
    with pytest.raises(ConfigError, match=r"-n 6: 2 beams find 2 samples of one prompt and class, sample 2 asks for more"):
        run.draw(6, label=1)


def test_python_draws_under_options_too_and_without_them_as_ever(trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--beam 2 --top-k 3: --beam draws nothing at random; leave --top-k out$"):
        sample_run(trained, 2, options={"beam": 2, "top_k": 3})
    with pytest.raises(ConfigError, match="unknown option 'topk'; did you mean 'top_k'"):
        sample_run(trained, 2, options={"topk": 3})
    assert torch.equal(load_run(trained).draw(3).values, load_run(trained).draw(300).values[:3])


# The command line


def gen(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words), catch_exceptions=True)
    return result.exit_code, result.output


def test_a_watermark_goes_in_and_is_verified_from_the_command_line(trained: Path, tmp_path: Path) -> None:
    mark = ("--watermark", "my key", "--watermark-strength", "8")
    for name, more in {"marked": mark, "plain": ()}.items():
        assert gen("sample", str(trained), "-n", "200", "--out", str(tmp_path / name), *more)[0] == 0
    found = {}
    for name in ("marked", "plain"):
        code, text = gen("verify", str(tmp_path / name / "samples.txt"), "--key", "my key", "--run", str(trained), "--json")
        assert code == 0
        found[name] = json.loads(text)
    assert found["marked"]["z"] > 10 > 4 > abs(found["plain"]["z"])
    code, text = gen("verify", str(tmp_path / "marked" / "samples.txt"), "--key", "my key", "--run", str(trained))
    assert code == 0 and text.startswith("z = ") and ", p = " in text
    with pytest.raises(ConfigError, match=r"--key '': expected text that is not empty"):
        verify_file(trained, tmp_path / "marked" / "samples.txt", {"watermark": ""})
    with pytest.raises(ConfigError, match=r"--share 3: expected a number, above 0 and below 1"):
        verify_file(trained, tmp_path / "marked" / "samples.txt", {"watermark": "k", "watermark_share": 3})


def test_one_sample_is_one_sample(trained: Path, tmp_path: Path) -> None:
    assert gen("sample", str(trained), "-n", "1", "--out", str(tmp_path))[1].startswith("1 sample in ")
    assert gen("sample", str(trained), "-n", "2", "--out", str(tmp_path))[1].startswith("2 samples in ")


def test_the_help_of_a_run_lists_the_options_of_its_plugin(trained: Path, exported: Path) -> None:
    assert "--top-p" in gen("sample", str(trained), "--help")[1]
    assert "--top-p" in gen("sample", str(exported), "--help")[1]
    assert "--top-p" not in gen("sample", "--help")[1]


def test_an_exported_folder_takes_what_its_run_takes_and_is_verified_like_it(
    trained: Path, exported: Path, tmp_path: Path
) -> None:
    given = ["-n", "20", "--prompt", "the dog", "--temperature", "0.7", "--top-k", "9", "--watermark", "k"]
    found = {}
    for name, source in (("run", trained), ("model", exported)):
        assert gen("sample", str(source), "--out", str(tmp_path / name), *given)[0] == 0
        code, text = gen("verify", str(tmp_path / name / "samples.txt"), "--key", "k", "--run", str(source))
        assert code == 0 and text.startswith("z = ")
        found[name] = (tmp_path / name / "samples.txt").read_text(), text
    assert found["run"] == found["model"] and found["run"][0].startswith("the dog")
    assert gen("sample", str(exported), "--beam", "3", "-n", "3", "--class", "animal", "--out", str(tmp_path / "b"))[0] == 0


def test_a_damaged_exported_folder_is_named_where_its_options_are_asked_for(exported: Path, tmp_path: Path) -> None:
    about = json.loads((exported / "config.json").read_text())
    write(tmp_path / "config.json", json.dumps({name: value for name, value in about.items() if name != "facts"}))
    refusal = r"config\.json lacks facts; fetch or export it again"
    with pytest.raises(CheckpointError, match=refusal):
        CliRunner().invoke(app, ["sample", str(tmp_path)], catch_exceptions=False, standalone_mode=False)
    with pytest.raises(CheckpointError, match=refusal):
        verify_file(tmp_path, tmp_path / "x.txt", {"watermark": "k"})


def test_a_prompt_longer_than_any_path_may_come_before_the_run(trained: Path) -> None:
    words = ["sample", "--prompt", "the " * 2000, str(trained)]
    with pytest.raises(ConfigError, match="has 2000 tokens"):
        CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--temprature", "1"], "did you mean --temperature?"),
        (["--temperature", "0"], "error: --temperature 0: expected a number, above 0 and 100 or less"),
        (["--beam", "2", "--top-k", "3"], "error: --beam 2 --top-k 3: --beam draws nothing at random; leave --top-k out"),
        (["--from", "x", "--top-k", "3"], "--from draws nothing; leave --top-k out"),
        (["--prompt", "a", "--prompts", "b"], "--prompt and --prompts exclude each other; give one"),
        (["--watermark", ""], "error: --watermark '': expected text that is not empty"),
    ],
)
def test_wrong_sampling_options_are_refused_in_one_line(
    words: list[str], message: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["sample", str(trained), *words])
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and message in errors and errors.count("\n") == 1


def test_a_plugin_without_a_watermark_says_so(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train("image", overrides=[*TINY["image"], "train.batch_size=8"], steps=1, device="cpu", out=run, progress=False)
    with pytest.raises(ConfigError, match="samples of plugin 'image' have no watermark, those of text have"):
        verify_file(run, tmp_path, {"watermark": "k"})


# Tokenizers


@pytest.mark.parametrize("kind", ["word", "bpe", "character", "byte"])
def test_unspaced_text_comes_back_as_it_was(kind: str) -> None:
    tokenizer = Tokenizer.learn(CHINESE, kind=kind, vocabulary_size=400, lower_case=True)
    tokens = tokenizer.encode(CHINESE, 64)
    assert tokenizer.decode(tokens) == CHINESE and not (tokens == UNKNOWN).any()
    assert tokenizer.words(tokens)[0][:5] == ["床", "前", "明", "月", "光"]


@pytest.mark.parametrize("kind", ["character", "byte"])
def test_characters_and_bytes_keep_spaces_and_are_rebuilt_from_json(kind: str) -> None:
    lines = ["a dog, don't!", "naïve café"]
    tokenizer = Tokenizer(Tokenizer.learn(lines, kind=kind, vocabulary_size=300, lower_case=False).to_json())
    assert tokenizer.decode(tokenizer.encode(lines, 30)) == lines
    assert (len(tokenizer) == 260) == (kind == "byte")


def test_bytes_know_every_text_and_survive_half_a_character() -> None:
    tokenizer = Tokenizer.learn([], kind="byte", vocabulary_size=260, lower_case=False)
    strange = "😀 Ωmega <eos> ไทย"
    row = tokenizer.whole_rows([strange])[0]
    assert tokenizer.decode(torch.tensor([row])) == [strange] and row.count(EOS) == 1
    broken = torch.tensor([[*row[:2], EOS]])
    assert tokenizer.decode(broken) == ["\ufffd"]
    with pytest.raises(ValueError, match="byte has 260 tokens"):
        TextConfig(tokenizer="byte", vocabulary_size=100)


def test_words_of_mixed_scripts_are_told_apart_and_joined_again() -> None:
    assert split_words("我有 2 GPUs, don't你?") == ["我", "有", "2", "GPUs", ",", "don't", "你", "?"]
    assert join_words(["床", "前", "，", "a", "dog", "."]) == "床前，a dog."
    assert join_words(["pizza", "，", "真", "的", "（", "ok", "）", "！"]) == "pizza，真的（ok）！"
    assert join_words(["人", "々", "、", "〆"]) == "人々、〆"


# A line, and its words: combining marks belong to the letter before them.
MARKED = {
    "मैं हिन्दी में": ["मैं", "हिन्दी", "में"],
    "بِسْمِ اللَّهِ": ["بِسْمِ", "اللَّهِ"],
    "ภาษาไทย ที่ดี": ["ภาษาไทย", "ที่ดี"],
    "cafe\u0301 au lait": ["cafe\u0301", "au", "lait"],
}


@pytest.mark.parametrize("kind", ["word", "bpe", "character", "byte"])
def test_words_of_scripts_with_combining_marks_are_the_same_under_every_tokenizer(kind: str) -> None:
    tokenizer = Tokenizer.learn(list(MARKED) * 3, kind=kind, vocabulary_size=400, lower_case=False)
    assert tokenizer.words(tokenizer.encode(list(MARKED), 80)) == list(MARKED.values())


# Long and odd data


def test_long_documents_are_packed_without_loss_and_stay_in_one_split(tmp_path: Path) -> None:
    lines = [" ".join(f"w{number}x{place}" for place in range(number % 30 + 1)) for number in range(120)]
    config = TextConfig(max_length=8, long_lines="pack", vocabulary_size=5000, lower_case=False)
    corpus = read_corpus(config, DataRequest(write(tmp_path / "x.txt", "\n".join(lines))))
    tokenizer, owners = Tokenizer(corpus.facts["tokenizer"]), dict[int, set[str]]()
    found: list[str] = []
    for name, source in corpus.splits.items():
        rows = source.batch(torch.arange(len(source)), rng()).values
        assert rows.shape[1] == 8
        for words in tokenizer.words(rows) if name == "train" else []:
            found += words
        for words in tokenizer.words(rows):
            for word in words:
                if word != "<unk>":
                    owners.setdefault(int(word.split("x")[0][1:]), set()).add(name)
    assert len(found) == len(set(found)) and all(len(names) == 1 for names in owners.values())
    kept = {int(word.split("x")[0][1:]) for word in found}
    assert sorted(found) == sorted(word for number in kept for word in lines[number].split())


def test_a_last_piece_of_nothing_but_its_end_is_left_out() -> None:
    assert pieces([4, 5, 6, EOS], 4) == [[4, 5, 6, EOS]]
    assert pieces([4, 5, 6, EOS], 3) == [[4, 5, 6]]
    assert pieces([4, 5, 6, 7, EOS], 3) == [[4, 5, 6], [7, EOS]]


@pytest.mark.parametrize("kind", ["word", "byte"])
def test_a_line_of_a_megabyte_is_packed(kind: str, tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(40)]
    config = TextConfig(tokenizer=kind, max_length=64, long_lines="pack")  # type: ignore[arg-type]
    few = read_corpus(config, DataRequest(write(tmp_path / "x.txt", "\n".join(lines))))
    many = read_corpus(config, DataRequest(write(tmp_path / "x.txt", "\n".join([*lines, "ab " * 350_000]))))
    size = 350_000 if kind == "word" else 1_050_000
    added = sum(map(len, many.splits.values())) - sum(map(len, few.splits.values()))
    assert added == pytest.approx(size / 64, abs=2)


def test_a_critic_that_starts_as_the_generator_does_so_once_in_a_resumed_run_too(tmp_path: Path) -> None:
    small = ["generator_hidden=8", "phrases=300", "transformer_layers=1", "transformer_heads=2"]
    given = [f"options.{text}" for text in [*small, "generator='transformer'", "critic='transformer'"]]
    given += ["train.batch_size=8", "penalties={r1={weight=0.1}}"]
    place: dict[str, Any] = {"overrides": given, "steps": 4, "device": "cpu", "progress": False}
    train("text", out=tmp_path / "whole", **place)
    whole = load_run(tmp_path / "whole")
    for stop in (2, 3):  # before the adversarial phase's first step, and after it
        train("text", out=tmp_path / f"{stop}", stop_after=stop, **place)
        resume(tmp_path / f"{stop}", device="cpu", progress=False)
        parts = load_run(tmp_path / f"{stop}")
        ours, theirs = (loaded.generator.state_dict() for loaded in (parts, whole))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("preset", ["gpt", "relgan", "seqgan"])
def test_the_presets_of_published_networks_train_in_both_phases(preset: str, tmp_path: Path) -> None:
    small = ["phrases=300", "transformer_layers=1", "generator_hidden=8", "memory_head_size=4", "critic_filters=0.02"]
    given = [*(f"options.{text}" for text in small), "train.batch_size=8", "train.log_every=1"]
    result = train("text", preset=preset, overrides=given, steps=10, device="cpu", out=tmp_path / "run", progress=False)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert result.reason == "the plan is complete" and "discriminator/loss" in rows[-1] and "discriminator/loss" not in rows[0]
    told = [row["generator/likelihood"] for row in rows if "generator/likelihood" in row]
    assert told[-1] < told[0]


def test_a_prompt_in_the_unknown_alone_names_the_run(trained: Path) -> None:
    text = load_run(trained).modality
    assert isinstance(text, TextModality)
    with pytest.raises(ConfigError, match="never seen"):
        text.use_sampling(options(prompt="quux"), 3)
