"""What a rank keeps to itself, and what all ranks share."""

from __future__ import annotations

import pytest
import torch

from advgen.randomness import seed_networks
from advgen.world import World

CPU = torch.device("cpu")


def drawn(rank: int, size: int) -> list[float]:
    """What a network would draw in an update on that rank."""
    with torch.random.fork_rng(devices=[]):
        seed_networks(7, "discriminator", 3, *World(rank, size, CPU).own_key)
        return torch.rand(4).tolist()


def test_ranks_augment_each_in_their_own_way_and_the_first_as_one_process() -> None:
    assert drawn(0, 1) == drawn(0, 4)
    assert len({tuple(drawn(rank, 4)) for rank in range(4)}) == 4


def test_averaged_gradients_lie_in_memory_as_their_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.all_reduce", lambda flat: flat.mul_(2))
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    parameters = [layer.weight for layer in layers]
    expected = []
    for weight in parameters:
        weight.grad = torch.randn(weight.shape)
        expected.append(weight.grad.clone())
    World(0, 2, CPU).average_gradients(parameters)
    for weight, gradient in zip(parameters, expected, strict=True):
        assert weight.grad is not None and weight.grad.stride() == weight.stride()
        torch.testing.assert_close(weight.grad, gradient)
