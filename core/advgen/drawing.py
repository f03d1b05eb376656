"""Drawing from a generator: the same seed gives the same sample i, whatever the count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advgen.contracts import Batch, Generator, Modality, Sample
from advgen.errors import ConfigError
from advgen.randomness import keyed_generator, seed_networks, untouched
from advgen.transfer import float_type

BLOCK = 64
REFRESH_BLOCKS = 16


@torch.no_grad()
def refresh_statistics(network: nn.Module, modality: Modality[Any], device: torch.device) -> None:
    """Estimate BatchNorm statistics of averaged weights afresh, from a fixed seed; leaves the network in eval mode."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over the blocks
    network.train()
    with untouched(device):
        for block in range(REFRESH_BLOCKS if layers else 0):
            seed_networks(0, "statistics", block)
            noise, condition = _inputs(modality, keyed_generator(0, "statistics", block), None, network, device)
            network(noise, condition)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.eval()


@torch.no_grad()
def draw_samples(
    network: nn.Module,
    modality: Modality[Any],
    count: int,
    *,
    seed: int,
    device: torch.device,
    label: int | None = None,
    truncation: float | None = None,
) -> Batch:
    """``count`` samples on the CPU, in fixed blocks: sample i depends on the seed and i alone."""
    blocks, size = [], modality.sample_block
    with untouched(device):
        for block in range(-(-count // size)):
            seed_networks(seed, "sampling", block)
            noise, condition = _inputs(modality, keyed_generator(seed, "sample", block), label, network, device, size)
            sample = _draw(network, modality, noise, condition, truncation, block * size)
            batch = modality.postprocess(sample, condition).to("cpu")
            blocks.append(batch)
    return Batch.cat(blocks).slice(0, count)


@torch.no_grad()
def answer(network: nn.Module, modality: Modality[Any], asked: Batch, *, seed: int, device: torch.device) -> Batch:
    """One sample for each condition of a prepared batch, in its order, on the CPU; for modalities that are paired."""
    blocks, dtype = [], float_type(network)
    for start in range(0, len(asked), BLOCK):
        condition = asked.slice(start, start + BLOCK).to(device).condition
        noise = modality.noise(min(BLOCK, len(asked) - start), keyed_generator(seed, "answer", start // BLOCK))
        noise = noise.to(device, dtype if noise.is_floating_point() else noise.dtype)
        blocks.append(modality.postprocess(network(noise, condition), condition).to("cpu"))
    return Batch.cat(blocks)


def _inputs(
    modality: Modality[Any],
    rng: torch.Generator,
    label: int | None,
    network: nn.Module,
    device: torch.device,
    size: int = BLOCK,
) -> tuple[Tensor, dict[str, Tensor]]:
    condition = {name: t.to(device) for name, t in modality.condition(size, rng, label=label).items()}
    noise = modality.noise(size, rng)
    dtype = float_type(network)
    return noise.to(device, dtype if noise.is_floating_point() else noise.dtype), condition


def _draw(
    network: nn.Module,
    modality: Modality[Any],
    noise: Tensor,
    condition: Mapping[str, Tensor],
    truncation: float | None,
    start: int,
) -> Sample:
    """Samples ``start`` and on as the modality draws them, or with their latents drawn towards the mean."""
    chosen = getattr(network, "truncation", 1.0) if truncation is None else truncation
    if chosen == 1.0:
        return modality.draw(network, noise, condition, start=start)
    assert isinstance(network, Generator)  # make_players checked it
    latent = network.latent(noise, condition)
    return network.render(towards_mean(network, modality, latent, condition, chosen), condition)


def towards_mean(
    network: Generator, modality: Modality[Any], latent: Tensor, condition: Mapping[str, Tensor], truncation: float
) -> Tensor:
    """Latents (B, ...) drawn towards the mean of their rows' conditions: 1 leaves them, 0 is the mean.

    Raises:
        ConfigError: where neither a mapping network nor normal noise has a mean to draw towards.
    """
    if truncation == 1.0:
        return latent
    if not (network.mapped or modality.normal_noise):
        raise ConfigError(
            f"--truncation {truncation:g}: these samples have no mean latent to be drawn towards "
            "(no mapping network, and noise that is not normal numbers alone); leave it out"
        )
    return torch.lerp(network.mean_latent(latent, condition), latent, truncation)
