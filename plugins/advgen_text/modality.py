"""The text modality: what the core must know of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from advgen import Batch, Corpus, DataError, DataReport, DataRequest, Discriminator, Generator, Judge, Modality, Mode, Show

from . import phrases
from .bleu import bleu, self_bleu
from .config import TextConfig
from .critic import TextCritic
from .data import read_corpus
from .generator import TextGenerator
from .inspection import inspect_lines
from .judge import TextJudge
from .store import TextSource
from .tokenizer import Tokenizer

# BLEU grows with the number of references and Self-BLEU with the number of samples, so both are fixed.
MOST_COMPARED = 2000


class TextModality(Modality[TextConfig]):
    """Samples are tokens (B, L) int64, their mask True through <eos>."""

    formats = MappingProxyType({"txt": "one line a sample, UTF-8"})
    one_file = True

    def __init__(self, config: TextConfig, facts: Mapping[str, Any]) -> None:
        super().__init__(config, facts)
        self.tokenizer = Tokenizer(facts["tokenizer"])
        self.length = int(facts["length"])
        self._train: TextSource | None = None

    @classmethod
    def read(cls, config: TextConfig, request: DataRequest) -> Corpus:
        """Lines of text, or the embedded grammar's sentences."""
        return read_corpus(config, request)

    @classmethod
    def inspect(cls, config: TextConfig, request: DataRequest, show: Show) -> DataReport:
        """Lines, words and what cannot be read."""
        return inspect_lines(config, request, show)

    def generator(self) -> Generator:
        """A fresh LSTM."""
        return TextGenerator(
            len(self.tokenizer),
            self.length,
            embedding=self.config.generator_embedding,
            hidden=self.config.generator_hidden,
            num_classes=len(self.facts.get("classes") or ()),
            dropout=self.config.dropout,
        )

    def discriminator(self) -> Discriminator:
        """A fresh per-token critic."""
        return TextCritic(
            len(self.tokenizer),
            embedding=self.config.critic_embedding,
            hidden=self.config.critic_hidden,
            num_classes=len(self.facts.get("classes") or ()),
        )

    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        """Uniforms in [0, 1): one a token (B, L), or one a token and word (B, L, V) for "relaxed"."""
        shape = (self.length, len(self.tokenizer)) if mode == "relaxed" else (self.length,)
        return torch.rand(num_samples, *shape, generator=generator)

    def prepare(self, batch: Batch) -> Batch:
        """Tokens as int64."""
        return Batch(batch.values.long(), batch.mask, batch.condition)

    def likelihood(self, generator: Generator, batch: Batch) -> Tensor:
        """Negative log-likelihood (B, L) of each token in nats, <eos> included; 0 after it."""
        if not isinstance(generator, TextGenerator):
            raise DataError(f"likelihood needs a TextGenerator, got {type(generator).__name__}")
        mask = torch.ones_like(batch.values, dtype=torch.bool) if batch.mask is None else batch.mask
        return generator.token_costs(batch.values, batch.condition, mask)

    def judge(self, corpus: Corpus, cache: Path) -> Judge:
        """Fixed features; nothing to cache. The training lines are remembered, to tell novelty by in ``metrics``."""
        train = corpus.splits["train"]
        self._train = train if isinstance(train, TextSource) else None
        return TextJudge(self.tokenizer, corpus)

    def metrics(self, generated: Batch, held_out: Batch) -> dict[str, float]:
        """BLEU-2 to 5, Self-BLEU-2 to 5, distinct-2, unique, novel (once judged); for the embedded grammar, factors read back.

        The first 2,000 samples are compared with the first 2,000 held-out lines; Self-BLEU leaves the sample itself out.
        """
        words = self.tokenizer.words(generated.values[:MOST_COMPARED].cpu())
        references = self.tokenizer.words(held_out.values[:MOST_COMPARED].cpu())
        if len(words) < 2 or not references:
            return {}
        found = {f"bleu_{order}": score for order, score in bleu(words, references).items()}
        found |= {f"self_bleu_{order}": score for order, score in self_bleu(words).items()}
        found |= {"distinct_2": distinct(words, 2), "unique_share": len(set(map(tuple, words))) / len(words)}
        if self._train is not None:
            found["novel_share"] = self._novel_share(self._train, generated.values[:MOST_COMPARED].cpu())
        return found | (grammar_metrics(words) if self.facts.get("grammar") else {})

    def _novel_share(self, train: TextSource, tokens: Tensor) -> float:
        """Share of samples that are no training line. Encoded anew, as the same text may be other byte-pair pieces."""
        lines = self.tokenizer.rows(self.tokenizer.decode(tokens), self.length)
        return 1.0 - sum(train.contains(lines)) / len(lines)

    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        """One line a sample in samples.txt; ``start`` 0 begins the file anew, later blocks are added to it."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "samples.txt"
        with path.open("a" if start else "w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in self.tokenizer.decode(batch.values.cpu()))
        return [path]

    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        """A numbered table of the samples, with the class where there is one."""
        classes, label = self.facts.get("classes") or (), batch.condition.get("label")
        names = [""] * len(batch) if label is None or not classes else [classes[i] for i in label.tolist()]
        width = max(map(len, names), default=0)
        rows = zip(names, self.tokenizer.decode(batch.values.cpu()), strict=True)
        path = stem.with_name(stem.name + ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{number:4d}  {name:<{width}}  {line}".rstrip() + "\n" for number, (name, line) in enumerate(rows))
        path.write_text(text, encoding="utf-8")
        return [path]


def distinct(sentences: Sequence[Sequence[str]], order: int) -> float:
    """Different n-grams over all n-grams, in [0, 1]; low where samples repeat each other."""
    grams = [gram for words in sentences for gram in zip(*(words[i:] for i in range(order)), strict=False)]
    return len(set(grams)) / max(1, len(grams))


def grammar_metrics(sentences: Sequence[Sequence[str]]) -> dict[str, float]:
    """Share of sentences the grammar can write, and total variation of each factor among those."""
    parsed = [found for words in sentences if (found := phrases.parse(words)) is not None]
    distances = {f"factor_tv/{name}": value for name, value in phrases.total_variation(parsed).items()}
    return {"valid_share": len(parsed) / len(sentences), **distances}
