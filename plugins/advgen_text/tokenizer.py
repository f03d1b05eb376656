"""Text to token numbers and back; the whole tokenizer is one JSON string, so sampling needs no data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import tokenizers as tk
import torch
from torch import Tensor

PAD, BOS, EOS, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
# A word may hold apostrophes and hyphens (don't, black-and-white); every other mark stands alone.
WORD = r"\w+(?:['’\-]\w+)*|[^\w\s]"
_WORDS = re.compile(WORD)
_BEFORE_MARK = re.compile(r" ([.,!?;:%)\]])")
_AFTER_MARK = re.compile(r"([(\[$#]) ")


class Tokenizer:
    """Words or byte-pair pieces, with <pad> 0, <bos> 1, <eos> 2 and <unk> 3.

    Args:
        text: the JSON that ``to_json`` wrote.
    """

    def __init__(self, text: str) -> None:
        self._inner = tk.Tokenizer.from_str(text)
        # Data that spells out "<pad>" is text like any other.
        self._inner.encode_special_tokens = True
        self.is_word = isinstance(self._inner.model, tk.models.WordLevel)
        self._names = [self._inner.id_to_token(number) or SPECIALS[UNKNOWN] for number in range(self._inner.get_vocab_size())]

    def __len__(self) -> int:
        return len(self._names)

    @classmethod
    def learn(cls, lines: Iterable[str], *, kind: str, vocabulary_size: int, lower_case: bool) -> Tokenizer:
        """The most frequent words, or byte-pair merges, of ``lines``."""
        inner, trainer = _word_parts(vocabulary_size) if kind == "word" else _pair_parts(vocabulary_size)
        if lower_case:
            inner.normalizer = tk.normalizers.Lowercase()
        inner.train_from_iterator(lines, trainer)
        return cls(inner.to_str())

    def to_json(self) -> str:
        """The tokenizer as one JSON string."""
        return self._inner.to_str()

    def rows(self, lines: Sequence[str], length: int) -> list[list[int]]:
        """Token numbers of each line, <eos> last; lines longer than ``length`` lose their end and <eos>."""
        return [[*encoding.ids[:length], EOS][:length] for encoding in self._inner.encode_batch_fast(list(lines))]

    def encode(self, lines: Sequence[str], length: int) -> Tensor:
        """The same as one tensor (N, length) int64, <pad> behind."""
        rows = [[*row, *[PAD] * (length - len(row))] for row in self.rows(lines, length)]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(lines), length)

    def words(self, tokens: Tensor) -> list[list[str]]:
        """Tokens (N, L) to lists of words, for metrics."""
        if self.is_word:
            return [[self._names[number] for number in row] for row in _content(tokens)]
        return [split_words(line) for line in self.decode(tokens)]

    def decode(self, tokens: Tensor) -> list[str]:
        """Tokens (N, L) to lines without line breaks; punctuation is joined to the word it belongs to."""
        if self.is_word:
            return [join_words(words) for words in self.words(tokens)]
        lines = self._inner.decode_batch([list(row) for row in _content(tokens)])
        return [" ".join(line.split()) for line in lines]


def split_words(line: str) -> list[str]:
    """Words and single punctuation marks of a line."""
    return _WORDS.findall(line)


def join_words(words: Sequence[str]) -> str:
    """One readable line: ``["a", "dog", "."]`` to ``"a dog."``."""
    return _AFTER_MARK.sub(r"\1", _BEFORE_MARK.sub(r"\1", " ".join(words)))


def _content(tokens: Tensor) -> list[list[int]]:
    rows = []
    for row in tokens.tolist():
        end = row.index(EOS) if EOS in row else len(row)
        rows.append([number for number in row[:end] if number not in (PAD, BOS)])
    return rows


def _word_parts(vocabulary_size: int) -> tuple[tk.Tokenizer, tk.trainers.Trainer]:
    inner = tk.Tokenizer(tk.models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
    inner.pre_tokenizer = tk.pre_tokenizers.Sequence(
        [
            tk.pre_tokenizers.WhitespaceSplit(),
            tk.pre_tokenizers.Split(tk.Regex(WORD), "removed", invert=True),
        ]
    )
    return inner, tk.trainers.WordLevelTrainer(vocab_size=vocabulary_size, special_tokens=list(SPECIALS), show_progress=False)


def _pair_parts(vocabulary_size: int) -> tuple[tk.Tokenizer, tk.trainers.Trainer]:
    # Only symbols that occur enter the alphabet, so a small vocabulary_size is honoured; a symbol never seen is <unk>.
    inner = tk.Tokenizer(tk.models.BPE(unk_token=SPECIALS[UNKNOWN]))
    inner.pre_tokenizer = tk.pre_tokenizers.Metaspace()
    inner.decoder = tk.decoders.Metaspace()
    trainer = tk.trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIALS),
        limit_alphabet=max(1, vocabulary_size - len(SPECIALS)),
        show_progress=False,
    )
    return inner, trainer
