"""What is in text files, read line by line for ``gen data inspect``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

from advgen import DataReport, DataRequest, Repeats, Show, Spread, counted, most_common

from .config import TextConfig
from .data import SPLITS, split_of, without
from .origins import find_origin
from .reading import Notes, mark
from .tokenizer import split_words

MOST_WORDS, MOST_FILES = 1_000_000, 20
SHOWN_CHARACTERS = 60


def inspect_lines(config: TextConfig, request: DataRequest, show: Show) -> DataReport:
    """A report on every line that training would read, and on those that it could not.

    Words and characters are those of the data, duplicates and splits those of training, which may cut lines.

    Raises:
        DataError: where there is no text file.
    """
    origin, report, notes = find_origin(config, request), DataReport("lines"), Notes(uncut=True)
    words, characters, repeats = Spread(), Spread(), Repeats()
    vocabulary, classes, splits, num_long = Counter[str](), Counter[str](), Counter[str](), 0
    size = _tokens(config)
    for line in origin.lines(config, replace(request, max_bad=2**62), notes):
        found = split_words(line.uncut.lower() if config.lower_case else line.uncut)
        report.count += 1
        words.add(len(found))
        characters.add(len(line.uncut))
        num_long += size(line.uncut, found) >= config.max_length  # the end mark takes a place too
        repeats.add(f"{line.place} {line.number}", mark(line.whole), line.whole[:SHOWN_CHARACTERS])
        for word in found:
            if word in vocabulary or len(vocabulary) < MOST_WORDS:
                vocabulary[word] += 1
        if line.label is not None:
            classes[line.label] += 1
        splits[split_of(line, request)[0]] += 1
        show(report.count, None)
    report.num_bad, report.bad = notes.num_refused, notes.bad
    report.classes = {name: classes[name] for name in sorted(classes)}
    report.splits = {name: splits[name] for name in SPLITS}
    report.duplicates = repeats.summary()
    report.details = {
        "files": dict(islice(origin.parts.items(), MOST_FILES)),
        "empty_lines": notes.num_empty,
        "not_utf8_lines": notes.num_not_utf8,
        "long_lines": num_long,
        "words": words.summary(),
        "characters": characters.summary(),
        "vocabulary": {"words": len(vocabulary), "once": sum(number == 1 for number in vocabulary.values())},
        "most_frequent": most_common(vocabulary, 10),
    }
    report.remarks = _remarks(config, notes, vocabulary, num_long)
    if empty := [name for name in SPLITS if not splits[name]]:
        report.remarks.append(f"nothing is left for {without(empty, report.count)}")
    return report


def _tokens(config: TextConfig) -> Callable[[str, Sequence[str]], int]:
    """How many tokens a line has by itself and its words; of learned and pretrained pieces as many as words, or more."""
    kinds = {"character": lambda line, words: len(line), "byte": lambda line, words: len(line.encode())}
    return kinds.get("word" if config.pretrained is not None else config.tokenizer, lambda line, words: len(words))


def _remarks(config: TextConfig, notes: Notes, vocabulary: Counter[str], num_long: int) -> list[str]:
    found, num_words = [], len(vocabulary)
    if num_words >= MOST_WORDS:
        found.append(f"words after the first {MOST_WORDS:,} different ones are not counted")
    if num_words + 4 > config.vocabulary_size and config.tokenizer == "word":
        held = sum(number for _, number in vocabulary.most_common(config.vocabulary_size - 4)) / vocabulary.total()
        found.append(
            f"options.vocabulary_size {config.vocabulary_size} holds the most frequent of {num_words} words alone; "
            f"{1 - held:.1%} of the text would be unknown"
        )
    if num_long:
        what = "cut" if config.long_lines == "cut" else "packed into several samples"
        pieces = config.tokenizer == "bpe" or config.pretrained is not None
        lines = f"{'at least ' if pieces else ''}{num_long} {'line is' if num_long == 1 else 'lines are'}"
        found.append(f"{lines} longer than options.max_length {config.max_length} and would be {what}")
    if notes.num_shared:
        found.append(f"{counted(notes.num_shared, 'line')} would be left out of training, as held-out ones equal them")
    return found
