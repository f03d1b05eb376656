"""The text modality: what the core must know of text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from advgen import (
    Batch,
    ConfigError,
    Corpus,
    DataError,
    DataReport,
    DataRequest,
    Discriminator,
    Generator,
    Judge,
    MetricNote,
    Modality,
    Mode,
    Sample,
    Show,
)

from . import phrases
from .bleu import bleu, self_bleu
from .config import SampleReading, TextConfig, TextSampling
from .critics import Mediator, TransformerCritic
from .data import read_corpus
from .decoding import Continued, Decoding, read_prompts, watermark_of
from .exact import distance_to_grammar
from .facts import check_facts, check_tokens
from .files import write_samples, write_table
from .generators import TransformerWriter, Writer
from .generators.drawing import prompt_mask, written
from .inspection import inspect_lines
from .judge import TextJudge
from .making import make_critic, make_generator
from .notes import GRAMS, NOTES
from .reading import decode_lines
from .store import TextSource
from .tokenizer import EOS, PAD, SPECIALS, UNKNOWN, Tokenizer, told_apart
from .watermark import find

# BLEU grows with the number of references and Self-BLEU with the number of samples, so both are fixed.
MOST_COMPARED = 10_000


class TextModality(Modality[TextConfig]):
    """Samples are tokens (B, L) int64, their mask True through <eos>."""

    # Thousands are asked for where one picture would do; a step costs hardly more with 256 rows than with 64.
    sample_block = 256

    formats = MappingProxyType(
        {"txt": "one line a sample, UTF-8", "jsonl": "one JSON object a sample, with its class and log-probability where known"}
    )
    one_file = True
    trade_off = ("bleu_5", "self_bleu_5")
    most_references = MOST_COMPARED

    def __init__(self, config: TextConfig, facts: Mapping[str, Any]) -> None:
        super().__init__(config, facts)
        check_facts(facts)
        self._decoding: Decoding | None = None
        self.tokenizer = Tokenizer(facts["tokenizer"])
        check_tokens(facts, len(self.tokenizer))
        self.length = int(facts["length"])
        self._train: TextSource | None = None
        # A sample continues its prompt: held-out ones are asked for, and what follows is compared with what should have.
        self.paired = bool(facts.get("prompts"))
        if self.paired:  # a block holds whole rounds of the prompts, so that each comes as often as any other
            num_prompts = len(facts["prompts"])
            self.sample_block = max(1, self.sample_block // num_prompts) * num_prompts

    def data_summary(self) -> dict[str, str | int | float]:
        """Return length, prompt, vocabulary and tokenizer."""
        prompt = int(self.facts["prompt_length"])
        limits = {"max_tokens": self.length, **({"max_prompt_tokens": prompt} if prompt else {})}
        return {**limits, "vocabulary": len(self.tokenizer), "tokenizer": self.tokenizer.kind}

    @classmethod
    def read(cls, config: TextConfig, request: DataRequest) -> Corpus:
        """Lines of text, or the embedded grammar's sentences."""
        return read_corpus(config, request)

    @classmethod
    def inspect(cls, config: TextConfig, request: DataRequest, show: Show) -> DataReport:
        """Lines, words and what cannot be read."""
        return inspect_lines(config, request, show)

    def generator(self) -> Generator:
        """A fresh one of the kind that the options name."""
        return make_generator(self.config, self.facts, len(self.tokenizer))

    def discriminator(self) -> Discriminator:
        """A fresh one of the kind that the options name."""
        return make_critic(self.config, self.facts, len(self.tokenizer))

    def enter_phase(self, kind: str, generator: Generator, discriminator: Discriminator) -> None:
        """A transformer critic starts as the transformer that likelihood has trained, a mediator as its generator."""
        if kind == "likelihood":
            return
        if isinstance(generator, TransformerWriter) and isinstance(discriminator, TransformerCritic):
            discriminator.take(generator)
        if isinstance(generator, Writer) and isinstance(discriminator, Mediator):
            discriminator.take(generator)

    def use_sampling(self, options: Any, num_samples: int) -> None:
        """Draw under the options of ``gen sample``."""
        if not isinstance(options, TextSampling):
            raise ConfigError(f"the text plugin samples under TextSampling options, got {type(options).__name__}")
        prompts = read_prompts(options, self.tokenizer, self.length)
        decoding = Decoding(options, prompts, num_samples)
        num_prompts = len(self.facts.get("prompts") or ()) if prompts is None else len(prompts)
        decoding.check(max(1, num_prompts) * max(1, len(self.facts.get("classes") or ())))
        self._decoding = decoding

    def draw(self, network: nn.Module, noise: Tensor, condition: Mapping[str, Tensor], *, start: int) -> Sample:
        """Under the options of ``gen sample`` where there are any."""
        if self._decoding is None:
            return super().draw(network, noise, condition, start=start)
        return self._decoding.draw(network, noise, condition, start)

    def postprocess(self, sample: Sample, condition: Mapping[str, Tensor]) -> Batch:
        """The log-probability (B,) of a whole sample is kept beside its class, where beam search knows it, and so is the prompt
        that was asked for."""
        known = {} if sample.log_prob is None else {"log_prob": sample.log_prob.sum(1)}
        if isinstance(sample, Continued):
            known |= {"prompt": sample.prompt, "prompt_number": sample.prompt_number}
        condition = {**condition, **known}
        return Batch(sample.values, sample.mask, condition)

    def verify(self, path: Path, options: Any) -> dict[str, float | int]:
        """What the lines of a file say of a watermark's key: z, p, and the numbers of token pairs behind them."""
        mark = watermark_of(options)
        if mark is None:
            raise ConfigError("give the key that the text was sampled with: --key KEY")
        lines = decode_lines(path)
        found = find(self.tokenizer.whole_rows(lines), mark)
        if not found.num_pairs:
            raise DataError(
                f"{path} holds no pair of words that the run knows, so nothing can be told; was it this run that wrote it?"
            )
        return asdict(found)

    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        """Uniforms in [0, 1): one a token (B, L), or one a token and word (B, L, V) for "relaxed"."""
        shape = (self.length, len(self.tokenizer)) if mode == "relaxed" else (self.length,)
        return torch.rand(num_samples, *shape, generator=generator)

    def condition(self, num_samples: int, generator: torch.Generator, *, label: int | None = None) -> dict[str, Tensor]:
        """As drawn in the training data; prompts are those that the run keeps, one after another."""
        found, prompts = super().condition(num_samples, generator, label=label), self.facts.get("prompts") or ()
        if prompts:
            rows = [[*row, *[PAD] * (self.facts["prompt_length"] - len(row))] for row in prompts]
            found["prompt"] = torch.tensor(rows, dtype=torch.int64)[torch.arange(num_samples) % len(rows)]
        return found

    def prepare(self, batch: Batch) -> Batch:
        """Tokens as int64."""
        return Batch(batch.values.long(), batch.mask, batch.condition)

    def likelihood(self, generator: Generator, batch: Batch) -> Tensor:
        """Negative log-likelihood (B, L) of each token in nats, <eos> included; 0 after it. At the temperature of the sampling
        options where there are any, without their top-k and top-p, under which most text is impossible."""
        return self._nats(generator, batch, drawn=False)

    def likelihood_of_draws(self, generator: Generator, batch: Batch) -> Tensor:
        """The same where the unknown word, which is never drawn, takes no probability from the others."""
        return self._nats(generator, batch, drawn=True)

    def _nats(self, generator: Generator, batch: Batch, drawn: bool) -> Tensor:
        if not isinstance(generator, Writer):
            raise DataError(f"likelihood needs a generator of the text plugin, got {type(generator).__name__}")
        mask = torch.ones_like(batch.values, dtype=torch.bool) if batch.mask is None else batch.mask
        return generator.token_costs(batch.values, batch.condition, mask, self._temperature, drawn=drawn)

    def generator_metrics(self, generator: Generator) -> dict[str, float]:
        """For the embedded grammar, the exact divergence from it and the probability of sentences that parse."""
        if not self.facts.get("grammar") or not isinstance(generator, Writer):
            return {}
        return distance_to_grammar(generator, self.tokenizer, self.facts.get("classes") or (), self._temperature)

    @property
    def _temperature(self) -> float:
        """Of the sampling options, where there are any."""
        return 1.0 if self._decoding is None else self._decoding.options.temperature

    def judge(self, corpus: Corpus, cache: Path) -> Judge:
        """Fixed features; nothing to cache. The training lines are remembered, to tell novelty by in ``metrics``."""
        train = corpus.splits["train"]
        self._train = train if isinstance(train, TextSource) else None
        return TextJudge(self.tokenizer, corpus)

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """BLEU-2 to 5, Self-BLEU-2 to 5, distinct-1 to 4, unique, unknown, novel (once judged); of the grammar, factors.

        Of what follows the prompts, where there are any.
        The first 10,000 samples are compared with the first 10,000 held-out lines; Self-BLEU leaves the sample itself out.
        An unknown word, which data have and samples do not, matches no other one.
        """
        tokens = [written(batch)[:MOST_COMPARED].cpu() for batch in (generated, held_out)]
        numbers = itertools.count()
        read = [self.tokenizer.words(rows) for rows in tokens]
        words, references = (told_apart(sentences, numbers) for sentences in read)
        if len(words) < 2 or not references:
            return {}
        found = {f"bleu_{order}": score for order, score in bleu(words, references).items()}
        found |= {f"self_bleu_{order}": score for order, score in self_bleu(words).items()}
        found |= {f"distinct_{order}": distinct(words, order) for order in GRAMS}
        found |= {"unique_share": len(set(map(tuple, words))) / len(words), "unknown_share": unknown_share(read[0])}
        if self._train is not None:
            found |= self._copying(self._train, generated, held_out)
        return found | (grammar_metrics(words) if self.facts.get("grammar") else {})

    def metric_notes(self) -> Mapping[str, MetricNote]:
        """How each metric is measured and which way it is better."""
        return NOTES

    def _copying(self, train: TextSource, generated: Batch, held_out: Batch) -> dict[str, float]:
        """What samples have from the training lines, and what held-out lines share with them by nature; of both no prompt.

        The end mark and unknown words are no part of a copy.
        """
        own, others = (self._encoded_anew(batch.slice(0, MOST_COMPARED).to("cpu")) for batch in (generated, held_out))
        copies = (train.longest_copies([copyable(row) for row in rows]) for rows in (own, others))
        longest = [sum(found) / len(found) for found in copies]
        new = [1.0 - sum(train.contains(rows)) / len(rows) for rows in (own, others)]
        return {
            "novel_share": new[0],
            "novel_share_held_out": new[1],
            "longest_copy": longest[0],
            "longest_copy_held_out": longest[1],
        }

    def _encoded_anew(self, batch: Batch) -> list[list[int]]:
        """Tokens of what follows each prompt as data have them: the same text may be other byte-pair pieces."""
        given = prompt_mask(batch.condition, batch.values)
        sizes = [0] * len(batch) if given is None else given.sum(1).tolist()
        # Between a prompt and what follows stands a space, which is a token or the start of one.
        lines = zip(sizes, self.tokenizer.with_holes(written(batch)), strict=True)
        rows = self.tokenizer.whole_rows([f" {line}" if size else line for size, line in lines])
        return [row[: batch.values.shape[1] - size] for size, row in zip(sizes, rows, strict=True)]

    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """One line a sample in samples.txt or samples.jsonl; ``start`` 0 begins it anew, later blocks are added to it."""
        return write_samples(self.rows(batch), folder, self.file_format or "txt", start)

    def reading_alike(self) -> SampleReading:
        """The tokens of the data; a sample a line, of .jsonl files the field ``text``, whatever that of the data is called."""
        own = {"known": self.tokenizer.to_json(), "field": "text", "label_field": None, "pretrained": None, "long_lines": "cut"}
        return SampleReading(**{**self.config.model_dump(), **own})

    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """A numbered table of the samples, with class and log-probability where there are any."""
        return write_table(self.rows(batch), stem)

    def rows(self, batch: Batch) -> list[dict[str, Any]]:
        """Each sample's ``text``, and its ``class`` and ``log_prob`` where known."""
        found: list[dict[str, Any]] = [{"text": text} for text in self._texts(batch)]
        classes, label, log_prob = self.facts.get("classes") or (), *map(batch.condition.get, ("label", "log_prob"))
        for number, row in enumerate(found):
            if classes and label is not None:
                row["class"] = classes[int(label[number])]
            if log_prob is not None:
                row["log_prob"] = round(float(log_prob[number]), 4)
        return found

    def _texts(self, batch: Batch) -> list[str]:
        """Lines, with unknown words of their prompts as they were typed."""
        prompts = None if self._decoding is None else self._decoding.prompts
        numbers = batch.condition.get("prompt_number")
        if prompts is None or numbers is None:
            return self.tokenizer.decode(batch.values.cpu())
        return self.tokenizer.decode_with(batch.values.cpu(), [prompts.unknown[number] for number in numbers.tolist()])


def copyable(row: Sequence[int]) -> list[int]:
    """Tokens without the end mark, and with <pad>, which no line holds, in the place of what is unknown."""
    return [PAD if token == UNKNOWN else token for token in row if token != EOS]


def distinct(sentences: Sequence[Sequence[str]], order: int) -> float:
    """Different n-grams over all n-grams, in [0, 1]; low where samples repeat each other."""
    grams = [gram for words in sentences for gram in zip(*(words[i:] for i in range(order)), strict=False)]
    return len(set(grams)) / max(1, len(grams))


def unknown_share(sentences: Sequence[Sequence[str]]) -> float:
    """Share of words that are unknown, in [0, 1]; 0 of no words."""
    unknown = [word == SPECIALS[UNKNOWN] for words in sentences for word in words]
    return sum(unknown) / max(1, len(unknown))


def grammar_metrics(sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of sentences the grammar can write, how many different ones, and total variation of each factor among those."""
    parsed = [found for words in sentences if (found := phrases.parse(words)) is not None]
    distances = {f"factor_tv/{name}": value for name, value in phrases.total_variation(parsed).items()}
    different = len({tuple(sentence.words) for sentence in parsed})
    return {"valid_share": len(parsed) / len(sentences), "distinct_parses": different, **distances}
