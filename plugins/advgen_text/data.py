"""Text into tokens by split: read twice in blocks, so that neither text nor tokens need fit in memory."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from advgen import Corpus, DataError, DataRequest, counted, user_path

from . import phrases
from .backbone import pretrained_facts
from .cache import through_cache
from .config import SampleReading, TextConfig
from .facts import MOST_PROMPTS
from .origins import find_origin
from .reading import Line, Notes, small_text
from .store import MOST_TOKENS, Arrays, Encoded, RowWriter, TextSource
from .tokenizer import MOST_JSON_BYTES, Tokenizer, join_words

SPLITS = ("train", "validation", "test")
BLOCK_LINES = 4096
# Above this size of the files, tokens go to the cache; below it, to memory.
MOST_IN_MEMORY = 64 * 2**20
# A vocabulary hardly changes with more text than this; of a larger corpus it is learned from an even share of the lines.
VOCABULARY_BYTES = 64 * 2**20
# A share of unknown tokens above this is told: a run learns little of such text.
MOST_UNKNOWN = 0.1

Reader = Callable[[Notes], Iterator[Line]]
"""Reads all lines from the start, noting what it leaves out."""


def read_corpus(config: TextConfig, request: DataRequest) -> Corpus:
    """The corpus of a request: tokens by split, with facts enough to sample without data.

    Raises:
        DataError: naming the file, line and byte where something does not fit.
    """
    if request.path is None and not request.address:
        lines = _embedded(config, request)
        encoded = encode(lambda notes: iter(lines), config, request, None, share=1.0)
        return _corpus(encoded, encoded.arrays)
    origin = find_origin(config, request)

    def build(folder: Path | None) -> Encoded:
        share = min(1.0, VOCABULARY_BYTES / max(origin.num_bytes, 1))
        return encode(lambda notes: origin.lines(config, request, notes), config, request, folder, share=share)

    if origin.num_bytes <= MOST_IN_MEMORY:
        encoded = build(None)
        return _corpus(encoded, encoded.arrays)
    about, arrays = through_cache(origin, config, request, build)
    kept = Encoded({}, about["facts"], about["fingerprint"], tuple(about["bad"]), tuple(about["notes"]))
    return _corpus(kept, arrays)


def _corpus(encoded: Encoded, arrays: dict[str, Arrays]) -> Corpus:
    facts = encoded.facts
    sources = {name: TextSource(arrays[name], facts["length"], facts["prompt_length"]) for name in SPLITS}
    facts = facts | {"prompts": sources["train"].prompts(MOST_PROMPTS)}
    return Corpus(facts, sources, encoded.fingerprint, encoded.bad, encoded.notes)


def encode(read: Reader, config: TextConfig, request: DataRequest, folder: Path | None, *, share: float) -> Encoded:
    """Read once for the vocabulary and once for the tokens.

    Args:
        read: called twice.
        folder: where tokens are written, or None to keep them.
        share: of the training lines, for the vocabulary.
    """
    survey, notes = Survey(request, share), Notes()
    pretrained = None if config.pretrained is None else pretrained_facts(user_path(config.pretrained), config.max_length)
    tokenizer = learn(survey.of(read(notes)), config)
    survey.check(notes)
    classes = sorted(survey.labels)
    writers = {name: RowWriter(folder, name) for name in SPLITS}
    for block in _blocks(read(Notes())):
        _add_block(block, tokenizer, classes, writers, config, request)
    arrays = {name: writer.close() for name, writer in writers.items()}
    facts = {
        "tokenizer": tokenizer.to_json(),
        "length": max(2, *(writer.longest for writer in writers.values())),
        "prompt_length": max(writer.longest_prompt for writer in writers.values()),
        "grammar": request.path is None and not request.address,
        "classes": classes,
        "class_counts": [survey.labels[name] for name in classes],
        "vocabulary_share": share,
        **({} if pretrained is None else {"pretrained": pretrained}),
    }
    part = f"the vocabulary was learned from {share:.1%} of the training lines, evenly spread; the rest is used for all else"
    remarks = (*([part] if share < 1 else []), *_unknown_note(writers["train"], config))
    return Encoded(arrays, facts, survey.fingerprint, tuple(notes.sentences(named(request))), remarks)


def _unknown_note(written: RowWriter, config: TextConfig) -> tuple[str, ...]:
    """A sentence on training text of which the tokenizer knows too little; none where it knows nine tenths of it."""
    if written.num_unknown <= MOST_UNKNOWN * written.num_words:
        return ()
    ways = {"word": "bpe or tokenizer=byte", "bpe": "byte", "character": "byte"}
    way = f"take a larger options.vocabulary_size, or options.tokenizer={ways.get(config.tokenizer)}"
    if config.pretrained is not None:
        way = "take a model that was trained on such text, or leave options.pretrained out"
    return (
        f"warning: {written.num_unknown / written.num_words:.0%} of the training tokens are unknown to the tokenizer, which a "
        f"run cannot tell apart or draw; {way}",
    )


def learn(lines: Iterable[str], config: TextConfig) -> Tokenizer:
    """The tokenizer of the options, learned from ``lines``, or one that is known; all lines are read either way.

    Raises:
        DataError: where a pretrained tokenizer cannot be read.
    """
    if isinstance(config, SampleReading):
        deque(lines, maxlen=0)
        return Tokenizer(config.known)
    if config.pretrained is None:
        return Tokenizer.learn(
            lines, kind=config.tokenizer, vocabulary_size=config.vocabulary_size, lower_case=config.lower_case
        )
    deque(lines, maxlen=0)
    file = user_path(config.pretrained) / "tokenizer.json"
    try:
        found = Tokenizer(small_text(file, MOST_JSON_BYTES))
    except Exception as error:  # the package raises nothing narrower
        raise DataError(f"{file} cannot be read as a tokenizer: {error}") from error
    if len(found) > MOST_TOKENS:
        raise DataError(f"{file} has {len(found)} tokens, special ones included; at most {MOST_TOKENS} can be kept")
    return found


@dataclass
class Survey:
    """What a first reading finds: lines by split, training labels, and a hash over all of it."""

    request: DataRequest
    share: float
    counts: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    _hash: Any = field(default_factory=hashlib.sha256)

    @property
    def fingerprint(self) -> str:
        """sha256 over lines and labels, each with its length."""
        digest: str = self._hash.hexdigest()
        return digest

    def of(self, lines: Iterable[Line]) -> Iterator[str]:
        """Count all lines; yield a share of the training text."""
        for line in lines:
            for part in (line.text, line.label, line.prompt):
                if part is not None:
                    self._hash.update(len(raw := part.encode()).to_bytes(8, "little"))
                    self._hash.update(raw)
            split, point = split_of(line, self.request)
            self.counts[split] += 1
            if line.label is not None:
                self.labels[line.label] += split == "train"
            if split == "train" and point < self.share:
                yield line.whole

    def check(self, notes: Notes) -> None:
        """Refuse a corpus without text or with an empty split."""
        if not self.counts.total():
            lines = f"{counted(notes.num_empty, 'empty line')}, expected a sample a line"
            raise DataError(f"{named(self.request)} holds no text: {lines}{notes.left_out}")
        shares = {"train": 1.0, "validation": self.request.validation_share, "test": self.request.test_share}
        empty = [name for name, share in shares.items() if share and not self.counts[name]]
        if empty:
            count = self.counts.total()
            leave = "1 sample leaves" if count == 1 else f"{count} samples leave"
            raise DataError(f"{leave} nothing for {without(empty, count)}{notes.left_out}")


def split_of(line: Line, request: DataRequest) -> tuple[str, float]:
    """Split by a hash of prompt and text, so that equal lines share one, and a second number in [0, 1) from the same hash.

    Where a data set brings a held-out split of its own, the hash's share of it goes to training.
    """
    digest = hashlib.sha256(line.whole.encode()).digest()
    first, second = (int.from_bytes(digest[start : start + 8], "little") / 2**64 for start in (0, 8))
    edge = 1.0 - request.test_share
    name = "train" if first < edge - request.validation_share else "validation" if first < edge else "test"
    if line.split is not None:
        return line.split, second
    return ("train" if name in line.own_splits else name), second


def without(empty: Sequence[str], count: int) -> str:
    """Which splits so many lines leave nothing for, why, and the way out."""
    shares = ", or change data.validation_share and data.test_share" if count >= len(SPLITS) else ""
    equal = ", as equal lines share a split; bring more data that differ" if count > 1 else "; bring more data"
    return f"{' and '.join(empty)}{equal}{shares}"


def named(request: DataRequest) -> str:
    """Where the text comes from, for messages."""
    return str(request.path) if request.path is not None else request.address or "the embedded corpus"


def _embedded(config: TextConfig, request: DataRequest) -> list[Line]:
    sentences = phrases.sample(config.phrases, torch.Generator().manual_seed(request.seed))
    return [Line(join_words(s.words), s.kind if config.phrase_labels else None) for s in sentences]


def _blocks(lines: Iterator[Line]) -> Iterator[list[Line]]:
    while block := list(islice(lines, BLOCK_LINES)):
        yield block


def _add_block(
    block: list[Line],
    tokenizer: Tokenizer,
    classes: list[str],
    writers: dict[str, RowWriter],
    config: TextConfig,
    request: DataRequest,
) -> None:
    packed, most = config.long_lines == "pack", config.max_length
    whole = tokenizer.whole_rows([line.whole for line in block])
    # Tokens never reach over a space, so a prompt's are the same alone. Of a long one the end is kept, up to half of the room.
    given = [len(row) - 1 for row in tokenizer.whole_rows([line.prompt or "" for line in block])]
    kept = [min(size, most // 2) for size in given]
    ends = (row[size - some :] for row, size, some in zip(whole, given, kept, strict=True))
    rows = [pieces(row, most) if packed else [row[:most]] for row in ends]
    splits = [split_of(line, request)[0] for line in block]
    numbers = {name: number for number, name in enumerate(classes)}
    for name, writer in writers.items():
        chosen = [index for index, split in enumerate(splits) if split == name]
        labels = [numbers[label] for index in chosen for _ in rows[index] if (label := block[index].label) is not None]
        prompts = [kept[index] for index in chosen if block[index].prompt is not None]
        writer.add([piece for index in chosen for piece in rows[index]], labels, prompts)


def pieces(row: list[int], length: int) -> list[list[int]]:
    """A document's tokens in samples of at most ``length``, nothing left out; the last alone holds its <eos>.

    A last piece of nothing but <eos> is left out: it would teach that a sample may be empty.
    """
    found = [row[start : start + length] for start in range(0, len(row), length)]
    return found[:-1] if len(found) > 1 and len(found[-1]) == 1 else found
