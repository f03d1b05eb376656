"""What the labels and the size of a data set mean for a run, in sentences. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

FEW_SAMPLES = 10
FEW_HELD_OUT = 100
NUM_NAMED = 3


def class_notes(labels: Sequence[str | None], names: Sequence[str], unit: str, way: str = "label them all") -> tuple[str, ...]:
    """Sentences on samples without a class, which leave a run without classes, else on classes of fewer than ten samples.

    Args:
        labels: the class of each sample, or None.
        names: what each sample is called; several samples of one file share a name.
        unit: what samples are called, in the plural.
        way: what to do about samples without a class.
    """
    counts = Counter(label for label in labels if label is not None)
    without = [name for name, label in zip(names, labels, strict=True) if label is None]
    if without and counts:
        have = "has" if len(without) == 1 else "have"
        some = f"{len(without)} of {len(labels)} {unit} {have} no class ({listed(without)})"
        return (f"{some}, so the run is unconditional; {way}",)
    return few_notes(counts, unit)


def few_notes(counts: dict[str, int], unit: str) -> tuple[str, ...]:
    """A sentence on classes of fewer than ten samples, the smallest first; none where there is but one class."""
    few = sorted((count, name) for name, count in counts.items() if count < FEW_SAMPLES)
    if not few or len(counts) < 2:
        return ()
    have = f"{len(few)} of {len(counts)} classes {'has' if len(few) == 1 else 'have'} fewer than {FEW_SAMPLES} {unit}"
    named = listed(f"{name}: {count}" for count, name in few)
    return (f"{have} ({named}), too few to learn more than copies of them; bring more, or join classes",)


def held_out_notes(count: int) -> tuple[str, ...]:
    """A sentence on a test split of fewer than a hundred samples; none where there is none at all, as nothing is measured."""
    if not 0 < count < FEW_HELD_OUT:
        return ()
    held = f"the test split holds {count} {'sample' if count == 1 else 'samples'}"
    return (
        f"{held}, and with fewer than {FEW_HELD_OUT} every metric is mostly noise; bring more data, or train with a larger "
        "data.test_share",
    )


def counted(number: int, what: str = "sample") -> str:
    """A number of something in words that agree with it."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], total: int | None = None, mark: str = ", ") -> str:
    """The first few, each once, and how many more there are.

    Args:
        total: how many there are, where not all are named.
        mark: what stands between two.
    """
    each = list(dict.fromkeys(names))
    more = (len(each) if total is None else total) - NUM_NAMED
    return mark.join(each[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
