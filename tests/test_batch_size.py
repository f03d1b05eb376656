"""Batch sizes that cannot be cut or filled are refused with the largest one that works."""

from __future__ import annotations

import pytest
import torch

from advgen.config.model import RunConfig
from advgen.contracts import Corpus
from advgen.data.memory import ArraySource
from advgen.errors import ConfigError, DataError
from advgen.setup import check_fits
from advgen.world import World


def check(held: int, batch: int, *, ranks: int = 1, accumulate: int = 1) -> None:
    train = {"batch_size": batch, "accumulate": accumulate, "steps": 1}
    config = RunConfig.model_validate({"plugin": "points", "train": train})
    corpus = Corpus({}, {"train": ArraySource(torch.zeros(held, 2))}, "0")
    check_fits(config, corpus, World(0, ranks, torch.device("cpu")))


@pytest.mark.parametrize(
    ("held", "ranks", "accumulate", "advised"), [(64, 1, 1, 64), (65, 1, 1, 65), (65, 2, 1, 64), (65, 2, 3, 60), (7, 2, 3, 6)]
)
def test_a_batch_larger_than_the_data_is_answered_with_the_largest_that_works(
    held: int, ranks: int, accumulate: int, advised: int
) -> None:
    with pytest.raises(DataError, match=rf"{held} training samples are fewer .*train\.batch_size={advised}, the largest"):
        check(held, 500, ranks=ranks, accumulate=accumulate)
    check(held, advised, ranks=ranks, accumulate=accumulate)


def test_data_too_few_for_any_batch_is_told_as_such() -> None:
    with pytest.raises(DataError, match="bring more data, as no batch of 4 ranks x 2 micro-batches fits"):
        check(7, 8, ranks=4, accumulate=2)


def test_a_batch_that_cannot_be_cut_evenly_is_answered_with_the_nearest_that_works() -> None:
    with pytest.raises(ConfigError, match=r"not a multiple of 2 ranks x 3 micro-batches; nearest: 60"):
        check(100, 65, ranks=2, accumulate=3)
    check(100, 60, ranks=2, accumulate=3)
    with pytest.raises(ConfigError, match="bring more data: 5 training samples are fewer"):
        check(5, 4, ranks=2, accumulate=3)
