"""Exact BLEU and leave-one-out Self-BLEU in time linear in the text.

BLEU clips an n-gram's count by its largest count in any one reference, so one table per order, n-gram to (largest count,
reference that holds it, second largest count), answers for all references at once; the second largest serves where
the holder must be left out. Definitions: Papineni et al. 2002, https://aclanthology.org/P02-1040; smoothing "method 1" of
Chen and Cherry 2014, https://aclanthology.org/W14-3346; equal to NLTK's ``sentence_bleu`` to rounding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Words = Sequence[str]
Entry = tuple[int, int, int]
ORDERS = (2, 3, 4, 5)
EPSILON = 0.1


def ngrams(words: Words, order: int) -> Counter[tuple[str, ...]]:
    """How often each run of ``order`` words occurs."""
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


class ReferenceIndex:
    """What every reference says about every n-gram, kept small.

    Args:
        references: tokenised reference sentences; at least one.
        max_order: longest n-gram that will be asked for.
    """

    def __init__(self, references: Sequence[Words], max_order: int = 5) -> None:
        if not references:
            raise ValueError("BLEU needs at least one reference, got none")
        self.max_order = max_order
        self.lengths = Counter(len(reference) for reference in references)
        self.tables: list[dict[tuple[str, ...], Entry]] = [{} for _ in range(max_order)]
        for number, reference in enumerate(references):
            for order, table in enumerate(self.tables, start=1):
                _add(table, ngrams(reference, order), number)

    def clipped(self, words: Words, order: int, leave_out: int | None) -> tuple[int, int]:
        """Matches and number of n-grams of one hypothesis; ``leave_out`` is a reference to ignore."""
        table, matches, total = self.tables[order - 1], 0, 0
        for gram, count in ngrams(words, order).items():
            most, holder, second = table.get(gram, (0, -1, 0))
            matches += min(count, second if holder == leave_out else most)
            total += count
        return matches, total

    def closest_length(self, length: int, leave_out: bool) -> int:
        """The reference length nearest to ``length``, the shorter of two equally near ones."""
        left = self.lengths[length] - leave_out
        if left > 0:
            return length
        others = (other for other in self.lengths if other != length)
        return min(others, key=lambda other: (abs(other - length), other))

    def scores(self, words: Words, leave_out: int | None = None) -> list[float]:
        """BLEU-1 to BLEU-``max_order`` of one hypothesis, each in [0, 1]; 1 where it equals a reference.

        Args:
            words: the hypothesis.
            leave_out: index of the reference that is this hypothesis, for Self-BLEU.
        """
        counts = [self.clipped(words, order, leave_out) for order in range(1, self.max_order + 1)]
        if counts[0][0] == 0:
            return [0.0] * self.max_order
        logs = [math.log((matches or EPSILON) / max(1, total)) for matches, total in counts]
        penalty = min(0.0, 1.0 - self.closest_length(len(words), leave_out is not None) / len(words))
        return [math.exp(penalty + math.fsum(logs[:order]) / order) for order in range(1, self.max_order + 1)]


def _add(table: dict[tuple[str, ...], Entry], counts: Counter[tuple[str, ...]], number: int) -> None:
    for gram, count in counts.items():
        most, holder, second = table.get(gram, (0, -1, 0))
        if count > most:
            table[gram] = (count, number, most)
        elif count > second:
            table[gram] = (most, holder, count)


def bleu(hypotheses: Sequence[Words], references: Sequence[Words], orders: Sequence[int] = ORDERS) -> dict[int, float]:
    """Mean sentence BLEU of the hypotheses against all references, by order; each in [0, 1].

    Source: protocol of Zhu et al. 2018 (Texygen), https://arxiv.org/abs/1802.01886
    """
    index = ReferenceIndex(references, max(orders))
    return _mean([index.scores(words) for words in hypotheses], orders)


def self_bleu(samples: Sequence[Words], orders: Sequence[int] = ORDERS) -> dict[int, float]:
    """Mean BLEU of each sample against all *other* samples, by order: 1 where all are alike; high means little variety.

    Source: protocol of Zhu et al. 2018 (Texygen), https://arxiv.org/abs/1802.01886
    """
    if len(samples) < 2:
        raise ValueError(f"Self-BLEU compares samples with each other; got {len(samples)}, expected at least 2")
    index = ReferenceIndex(samples, max(orders))
    return _mean([index.scores(words, number) for number, words in enumerate(samples)], orders)


def _mean(rows: list[list[float]], orders: Sequence[int]) -> dict[int, float]:
    return {order: math.fsum(row[order - 1] for row in rows) / max(1, len(rows)) for order in orders}
