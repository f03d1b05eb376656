"""WaveGAN as published: its sizes, its lengths, what it looks at, and that it can be trained."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from advgen_audio.networks.wavegan import WaveganDiscriminator, WaveganGenerator, WaveganShape

SMALL = WaveganShape(length=1024, channels=2, noise_size=6)


def count(module: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 2)


def test_both_players_have_the_published_number_of_parameters():
    with torch.device("meta"):
        assert (count(WaveganGenerator(WaveganShape())), count(WaveganDiscriminator(WaveganShape()))) == (19.07, 17.43)


@pytest.mark.parametrize(
    ("length", "strides", "first"),
    [(16384, (4,) * 5, 1024), (32768, (4, 4, 4, 4, 4, 2), 2048), (65536, (4,) * 6, 2048), (6144, (4, 4, 4, 4, 2), 1024)],
)
def test_layers_follow_from_the_length(length, strides, first):
    shape = WaveganShape(length)
    assert (shape.strides, shape.widths[-1]) == (strides, first)
    assert length <= shape.whole < 2 * length


@pytest.mark.parametrize("length", [1, 100, 512, 1000, 1024, 2048])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_lengths_are_exact(length, num_classes):
    shape = WaveganShape(length, 2, 6, num_classes)
    condition = {"label": torch.tensor([0, 2])} if num_classes else {}
    waveform = WaveganGenerator(shape)(torch.randn(2, 6), condition).values
    assert waveform.shape == (2, 1, length) and waveform.abs().max() < 1
    (head,) = WaveganDiscriminator(shape)(waveform, condition).heads
    assert head.scores.shape == (2,) and head.scores.isfinite().all()


def test_normal_noise_is_made_uniform():
    generator = WaveganGenerator(SMALL)
    seen = []
    generator.start.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    generator(torch.randn(2000, 6, generator=torch.Generator().manual_seed(0)), {})
    assert seen[0].abs().max() < 1 and seen[0].mean().abs() < 0.02
    assert seen[0].std() == pytest.approx(1 / math.sqrt(3), rel=0.01)


def test_the_label_changes_the_sound_and_the_score():
    shape = WaveganShape(1024, 2, 6, num_classes=2, phase_shuffle=0)
    generator, critic, noise = WaveganGenerator(shape), WaveganDiscriminator(shape), torch.randn(1, 6)
    one, other = ({"label": torch.tensor([label])} for label in (0, 1))
    waveform = generator(noise, one).values
    assert not torch.equal(waveform, generator(noise, other).values)
    assert critic(waveform, one).heads[0].scores != critic(waveform, other).heads[0].scores


def test_a_gradient_penalty_reaches_every_weight():
    critic = WaveganDiscriminator(SMALL)
    seen = torch.randn(2, 1, 1024, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(seen, {}).heads[0].scores.sum(), seen, create_graph=True)
    (slope.square().flatten(1).sum(1).sqrt() - 1).square().mean().backward()
    weights = [parameter for name, parameter in critic.named_parameters() if "weight" in name]
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in weights)


def test_the_phase_is_shuffled_between_layers_and_not_after_the_last(monkeypatch):
    calls = []
    monkeypatch.setattr("advgen_audio.networks.wavegan.shuffle_phase", lambda hidden, largest: calls.append(largest) or hidden)
    with torch.device("meta"):
        WaveganDiscriminator(WaveganShape())(torch.zeros(1, 1, 16384), {})
    assert calls == [2, 2, 2, 2]
