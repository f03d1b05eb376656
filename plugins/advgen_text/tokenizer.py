"""Text to token numbers and back; the whole tokenizer is one JSON string, so sampling needs no data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence

import tokenizers as tk
import torch
from torch import Tensor

PAD, BOS, EOS, UNKNOWN = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
# Chinese and Japanese are written without spaces, so each of their characters is a word.
# Stands for an unknown token where words are told apart: a code point that no text may hold.
_HOLE = "\ufdd0"
_UNSPACED = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTERS = rf"(?:(?![{_UNSPACED}])[\w{_HOLE}])+"
# A word may hold apostrophes and hyphens (don't, black-and-white); every other mark stands alone.
WORD = rf"[{_UNSPACED}]|{_LETTERS}(?:['’\-]{_LETTERS})*|[^\w\s]"
# Full-width marks bring their own space.
_WIDE_MARKS = "\u3000-\u3004\u3008-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_BETWEEN_WIDE = re.compile(rf"(?<=[{_UNSPACED}]) (?=[{_UNSPACED}])|(?<=[{_WIDE_MARKS}]) | (?=[{_WIDE_MARKS}])")
_BEFORE_MARK = re.compile(r" ([.,!?;:%)\]])")
_AFTER_MARK = re.compile(r"([(\[$#]) ")


TRIAL = "A word, 2 words."
MOST_TRIAL_TOKENS = 4096
# Vocabularies of a quarter of a million pieces take 20 MiB.
MOST_JSON_BYTES = 64 * 2**20


def _usable(text: str) -> tk.Tokenizer:
    """Read a tokenizer and try it on a few words: some settings make the library panic, others multiply the text.

    Raises:
        ValueError: if it is not usable; the library raises other errors for invalid JSON.
    """
    try:
        found = tk.Tokenizer.from_str(text)
        found.no_padding()
        num_tokens = len(found.encode(TRIAL).ids)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # not a sub-class of Exception
            raise
        raise ValueError(f"its settings make the package tokenizers fail ({error})") from error
    if num_tokens > MOST_TRIAL_TOKENS:
        raise ValueError(f"it turns {len(TRIAL)} characters into {num_tokens} tokens")
    return found


class Tokenizer:
    """Words, byte-pair pieces, characters or bytes, with <pad> 0, <bos> 1, <eos> 2 and <unk> 3.

    Args:
        text: the JSON that ``to_json`` wrote, or a pretrained model's tokenizer.json: its numbers follow those four.
    """

    def __init__(self, text: str) -> None:
        self._inner = _usable(text)
        # Data that spells out "<pad>" is text like any other.
        self._inner.encode_special_tokens = True
        self._inner.no_truncation()
        self._inner.no_padding()
        own = [self._inner.token_to_id(name) for name in SPECIALS] == list(range(len(SPECIALS)))
        self._first = 0 if own else len(SPECIALS)
        kind = (json.loads(text).get("pre_tokenizer") or {}).get("type")
        is_level = isinstance(self._inner.model, tk.models.WordLevel)
        self.is_word, self.is_character = is_level and kind == "Sequence", is_level and kind == "Split"
        size = self._inner.get_vocab_size()
        names = [self._inner.id_to_token(number) or SPECIALS[UNKNOWN] for number in range(size)]
        self._names = [*SPECIALS[: self._first], *names]

    def __len__(self) -> int:
        return len(self._names)

    @property
    def kind(self) -> str:
        """Return the kind of piece: word, character, or the name of another tokenizer's model, such as BPE."""
        own = "word" if self.is_word else "character" if self.is_character else ""
        return own or str(type(self._inner.model).__name__)

    @classmethod
    def learn(cls, lines: Iterable[str], *, kind: str, vocabulary_size: int, lower_case: bool) -> Tokenizer:
        """The most frequent words or characters, or byte-pair merges, of ``lines``; bytes are known beforehand.

        Args:
            kind: "word", "bpe", "character" or "byte".
        """
        inner, trainer = _PARTS[kind](vocabulary_size)
        if lower_case:
            inner.normalizer = tk.normalizers.Lowercase()
        if trainer is None:
            for _ in lines:  # read all the same: whoever gives them may count them
                pass
        else:
            inner.train_from_iterator(lines, trainer)
        return cls(inner.to_str())

    def knows_nothing_of(self, row: Sequence[int]) -> bool:
        """Whether there are tokens, and all of them unknown."""
        return len(row) > 0 and set(row) == {UNKNOWN}

    def unknown_parts(self, line: str) -> list[str]:
        """What each unknown token of a line stands for, as written there: a word, or a character."""
        found = self._inner.encode(line, add_special_tokens=False)
        pairs = zip(found.ids, found.offsets, strict=True)
        return [line[start:end] for number, (start, end) in pairs if number + self._first == UNKNOWN]

    def to_json(self) -> str:
        """The tokenizer as one JSON string."""
        return self._inner.to_str()

    def rows(self, lines: Sequence[str], length: int) -> list[list[int]]:
        """Token numbers of each line, <eos> last; lines longer than ``length`` lose their end and <eos>."""
        return [row[:length] for row in self.whole_rows(lines)]

    def whole_rows(self, lines: Sequence[str]) -> list[list[int]]:
        """Token numbers of each line, however long, <eos> last."""
        found = self._inner.encode_batch_fast(list(lines), add_special_tokens=False)
        return [[*(number + self._first for number in encoding.ids), EOS] for encoding in found]

    def rows_of_words(self, sentences: Sequence[Sequence[str]]) -> list[list[int]]:
        """As ``whole_rows`` of the joined words; where words are the tokens, each is looked up once."""
        if not self.is_word:
            return self.whole_rows([join_words(words) for words in sentences])
        known = sorted({word for words in sentences for word in words})
        numbers = {word: row[0] for word, row in zip(known, self.whole_rows(known), strict=True)}
        return [[*map(numbers.__getitem__, words), EOS] for words in sentences]

    def encode(self, lines: Sequence[str], length: int) -> Tensor:
        """The same as one tensor (N, length) int64, <pad> behind."""
        rows = [[*row, *[PAD] * (length - len(row))] for row in self.rows(lines, length)]
        return torch.tensor(rows, dtype=torch.int64).reshape(len(lines), length)

    def words(self, tokens: Tensor) -> list[list[str]]:
        """Tokens (N, L) to lists of words, for metrics: <unk> for one that is unknown or holds an unknown character."""
        if self.is_word:
            return [[self._names[number] for number in row] for row in _content(tokens)]
        lines = [split_words(line) for line in self._joined(tokens, _HOLE)]
        return [[SPECIALS[UNKNOWN] if _HOLE in word else word for word in words] for words in lines]

    def with_holes(self, tokens: Tensor) -> list[str]:
        """As ``decode``, with what is unknown so that it is unknown again when it is read."""
        return self._joined(tokens, _HOLE)

    def decode(self, tokens: Tensor) -> list[str]:
        """Tokens (N, L) to lines without line breaks; punctuation is joined to the word it belongs to."""
        return self._joined(tokens, SPECIALS[UNKNOWN])

    def decode_with(self, tokens: Tensor, parts: Iterable[Sequence[str]]) -> list[str]:
        """As ``decode``, with what ``unknown_parts`` of each row's line has in the place of its unknown tokens."""
        lines = [_filled(line, known) for line, known in zip(self.with_holes(tokens), parts, strict=True)]
        return [join_words(line.split()) for line in lines] if self.is_word else lines

    def _joined(self, tokens: Tensor, unknown: str) -> list[str]:
        """Lines with ``unknown`` in the place of each unknown token."""
        rows, names = _content(tokens), [*self._names[:UNKNOWN], unknown, *self._names[UNKNOWN + 1 :]]
        if self.is_word:
            return [join_words([names[number] for number in row]) for row in rows]
        if self.is_character:
            return [" ".join("".join(names[number] for number in row).split()) for row in rows]
        whole = self._inner.decode_batch([[max(number - self._first, 0) for number in row] for row in rows])
        for place, row in enumerate(rows):
            if UNKNOWN in row:
                whole[place] = self._inner.decoder.decode([names[number] for number in row])
        return [" ".join(line.split()) for line in whole]


def _word_splitter() -> tk.pre_tokenizers.PreTokenizer:
    words = tk.pre_tokenizers.Split(tk.Regex(WORD), "removed", invert=True)
    return tk.pre_tokenizers.Sequence([tk.pre_tokenizers.WhitespaceSplit(), words])


# The package's \w holds combining marks, Python's does not: the words that metrics count are those that the tokenizer reads.
_WORDS = _word_splitter()


def told_apart(sentences: Iterable[Sequence[str]], numbers: Iterator[int]) -> list[list[str]]:
    """The same with another word for each <unk>, so that none matches any other; no word of a text looks like these."""
    return [[f"<unk {next(numbers)}>" if word == SPECIALS[UNKNOWN] else word for word in words] for words in sentences]


def split_words(line: str) -> list[str]:
    """Words and single punctuation marks of a line."""
    return [word for word, _ in _WORDS.pre_tokenize_str(line)]


def join_words(words: Sequence[str]) -> str:
    """One readable line: ``["a", "dog", "."]`` to ``"a dog."``; Chinese and Japanese without spaces."""
    return _AFTER_MARK.sub(r"\1", _BEFORE_MARK.sub(r"\1", _BETWEEN_WIDE.sub("", " ".join(words))))


def _filled(line: str, parts: Sequence[str]) -> str:
    """A line with its holes filled in order, the further ones with <unk>."""
    for part in parts:
        line = line.replace(_HOLE, part, 1)
    return " ".join(line.replace(_HOLE, SPECIALS[UNKNOWN]).split())


def _content(tokens: Tensor) -> list[list[int]]:
    rows = []
    for row in tokens.tolist():
        end = row.index(EOS) if EOS in row else len(row)
        rows.append([number for number in row[:end] if number not in (PAD, BOS)])
    return rows


def _word_parts(vocabulary_size: int) -> tuple[tk.Tokenizer, tk.trainers.Trainer]:
    inner = tk.Tokenizer(tk.models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
    inner.pre_tokenizer = _word_splitter()
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


def _character_parts(vocabulary_size: int) -> tuple[tk.Tokenizer, tk.trainers.Trainer]:
    inner = tk.Tokenizer(tk.models.WordLevel(unk_token=SPECIALS[UNKNOWN]))
    inner.pre_tokenizer = tk.pre_tokenizers.Split(tk.Regex(r"[\s\S]"), "isolated")
    return inner, tk.trainers.WordLevelTrainer(vocab_size=vocabulary_size, special_tokens=list(SPECIALS), show_progress=False)


def _byte_parts(vocabulary_size: int) -> tuple[tk.Tokenizer, None]:
    """Each byte of UTF-8 a token; nothing is unknown and nothing is learned."""
    names = [*SPECIALS, *sorted(tk.pre_tokenizers.ByteLevel.alphabet())]
    inner = tk.Tokenizer(tk.models.BPE(vocab={name: number for number, name in enumerate(names)}, merges=[]))
    inner.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = tk.decoders.ByteLevel()
    return inner, None


_PARTS = {"word": _word_parts, "bpe": _pair_parts, "character": _character_parts, "byte": _byte_parts}
