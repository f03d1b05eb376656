"""How far a generator is from the embedded grammar, exactly: its likelihood of every sentence that the grammar writes.

Legend: S sentences, L tokens, N prefixes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from . import phrases
from .generators import Writer
from .tokenizer import BOS, Tokenizer

BLOCK = 8192
Rows = NDArray[np.int64]
Arrays = tuple[NDArray[np.str_], list[list[str]], NDArray[np.float64]]


@torch.no_grad()
def distance_to_grammar(writer: Writer, tokenizer: Tokenizer, classes: Sequence[str], temperature: float) -> dict[str, float]:
    """Over all sentences of the grammar, which are few enough.

    Args:
        classes: what labels stand for, of a conditional writer; empty: it writes all classes alike.
        temperature: that it draws at.

    Returns:
        ``grammar_kl``: Kullback-Leibler divergence of the writer from the grammar, in nats a sentence, 0 at best (conditional:
        the mean over classes, as the grammar draws them); ``grammar_mass``: the probability that what it writes is a sentence
        of the class asked for, 1 at best. With pieces smaller than words these are bounds from above and below: the same
        sentence may be other pieces too. Nothing where a sentence does not fit the writer's length.
    """
    kinds, words, chances = _grammar()
    rows = tokenizer.rows_of_words(words)
    if max(map(len, rows)) > writer.length:
        return {}
    found = {"grammar_kl": 0.0, "grammar_mass": 0.0}
    parts = {name: (kinds == name, share) for name, share in phrases.CLASSES.items()} if classes else {"": (kinds != "", 1.0)}
    for name, (own, share) in parts.items():
        label = {"label": torch.tensor([list(classes).index(name)], device=writer.bias.device)} if classes else {}
        nats = likelihoods(writer, [rows[index] for index in np.flatnonzero(own)], label, temperature)
        truth = torch.from_numpy(chances[own] / share)
        found["grammar_kl"] += share * float((truth * (truth.log() + nats)).sum())
        found["grammar_mass"] += share * float((-nats).exp().sum())
    return found


@functools.cache
def _grammar() -> Arrays:
    return _arrays(phrases.sentences())


def _arrays(sentences: Iterable[tuple[str, list[str], float]]) -> Arrays:
    """Class, words and probability of every sentence."""
    kinds, words, chances = zip(*sentences, strict=True)
    return np.array(kinds), list(words), np.array(chances)


def likelihoods(writer: Writer, rows: Sequence[Sequence[int]], label: Mapping[str, Tensor], temperature: float) -> Tensor:
    """Negative log-likelihood (S,) float64 in nats of drawing whole sequences; what several begin with is read once.

    Args:
        rows: tokens, <eos> last.
        label: one class (1,) for all, or nothing.
    """
    found = torch.empty(len(rows), dtype=torch.float64)
    lengths = np.array(list(map(len, rows)))
    for length in np.unique(lengths).tolist():
        own = np.flatnonzero(lengths == length)
        table = np.array([rows[index] for index in own.tolist()])
        order = np.lexsort(table.T[::-1])
        for start in range(0, len(order), BLOCK):
            chosen = order[start : start + BLOCK]
            found[torch.from_numpy(own[chosen])] = _read(writer, table[chosen], label, temperature)
    return found


def _read(writer: Writer, table: Rows, label: Mapping[str, Tensor], temperature: float) -> Tensor:
    """The same of a sorted table (S, L), step by step through the tree of its prefixes."""
    device = writer.bias.device
    state, token = writer.start(1), torch.full((1,), BOS, device=device)
    nats = torch.zeros(1, dtype=torch.float64)
    numbers = _prefixes(table)
    for place, (before, after) in enumerate(itertools.pairwise(numbers)):
        states, state = writer.step(writer.tokens(token) + writer.label(label, 1), state, place)
        first = np.unique(after, return_index=True)[1]
        origin = torch.from_numpy(before[first])
        token = torch.from_numpy(table[first, place]).to(device)
        rows = F.log_softmax(writer.logits(states, temperature, True), dim=1)
        nats = nats[origin] - rows[origin.to(device), token].double().cpu()
        state = writer.keep(state, origin.to(device))
    return nats[torch.from_numpy(numbers[-1])]


def _prefixes(table: Rows) -> list[Rows]:
    """For each length from 0 on, the number of each row's prefix (S,) among the different ones."""
    new = np.zeros(len(table), dtype=bool)
    found = [np.zeros(len(table), dtype=np.int64)]
    for column in table.T:
        new[1:] |= column[1:] != column[:-1]
        found.append(new.cumsum())
    return found
