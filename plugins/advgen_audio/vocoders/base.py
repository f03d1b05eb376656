"""What every vocoder has: its hop, how far a sample looks, inference without weight norm, synthesis in chunks.

Legend: B batch, M mel bands, F frames, T samples; a vocoder's T is F * hop.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from advgen import ConfigError

VocoderT = TypeVar("VocoderT", bound="Vocoder")
LayerT = TypeVar("LayerT", bound=nn.Module)

# The published generators upsample by 2, 4 and 8; a longer kernel than this costs more than it gives.
LONGEST_STRIDE = 32


class Reach(Protocol):
    """What a layer looks at, as positions relative to position 0."""

    def back(self, low: int, high: int) -> tuple[int, int]:
        """First and last input position that outputs ``low`` to ``high`` depend on."""
        ...


@dataclass(frozen=True)
class Span:
    """A layer that keeps the rate and looks this many positions to each side."""

    reach: int

    def back(self, low: int, high: int) -> tuple[int, int]:
        """The same positions, wider."""
        return low - self.reach, high + self.reach


@dataclass(frozen=True)
class Upsampling:
    """A transposed convolution."""

    kernel: int
    stride: int
    padding: int

    def back(self, low: int, high: int) -> tuple[int, int]:
        """Output o sums inputs i with 0 <= o + padding - i * stride < kernel."""
        return -((self.kernel - 1 - self.padding - low) // self.stride), (high + self.padding) // self.stride


def frames_each_side(layers: Sequence[Reach], hop: int) -> int:
    """How many frames before and after its own a sample depends on, exactly, from layers in order."""
    low, high = 0, hop - 1
    for layer in reversed(layers):
        low, high = layer.back(low, high)
    return max(-low, high)


class Vocoder(nn.Module, ABC):
    """mel (B, M, F) -> waveform (B, 1, F * hop) for any F >= 1.

    Args:
        num_mels: M.
        hop: samples per frame.
        context_frames: frames before and after its own that a sample depends on; no more, and none of them in vain.
    """

    def __init__(self, num_mels: int, hop: int, context_frames: int) -> None:
        super().__init__()
        self.num_mels, self.hop, self.context_frames = num_mels, hop, context_frames

    @property
    def receptive_field(self) -> int:
        """Frames that one frame's samples depend on."""
        return 2 * self.context_frames + 1

    def forward(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) -> waveform (B, 1, F * hop).

        Raises:
            ConfigError: where the bands are not those the vocoder was built for, or there is no frame.
        """
        if mel.dim() != 3 or mel.shape[1] != self.num_mels or mel.shape[2] < 1:
            raise ConfigError(
                f"{type(self).__name__} got a mel of shape {tuple(mel.shape)}, expected (B, {self.num_mels}, F) with F >= 1"
            )
        return self.synthesise(mel)

    @abstractmethod
    def synthesise(self, mel: Tensor) -> Tensor:
        """``forward`` on a mel of the right shape."""

    def for_inference(self: VocoderT) -> VocoderT:
        """A copy in evaluation mode with weight norm folded in: the same output, fewer operations."""
        fixed = copy.deepcopy(self).eval()
        for module in fixed.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        # Last: removing the norm turns a weight that needs no gradient into a buffer.
        return fixed.requires_grad_(False)


def stream(vocoder: Vocoder, mel: Tensor, chunk_frames: int) -> Iterator[Tensor]:
    """Waveforms (B, 1, chunk_frames * hop), the last one shorter, that join to ``vocoder(mel)``, for long files and players.

    Each chunk is made with the frames around it that its samples depend on, so the delay is chunk_frames + context_frames
    frames, and the work of a chunk 1 + 2 * context_frames / chunk_frames times that of its frames.

    Raises:
        ConfigError: where chunk_frames is less than 1.
    """
    if chunk_frames < 1:
        raise ConfigError(f"stream got chunks of {chunk_frames} frames, expected 1 or more")
    for start in range(0, mel.shape[-1], chunk_frames):
        first = max(0, start - vocoder.context_frames)
        # Not around the yield: the caller's code would run without gradients too.
        with torch.no_grad():
            waveform = vocoder(mel[..., first : start + chunk_frames + vocoder.context_frames])
        begin = (start - first) * vocoder.hop
        yield waveform[..., begin : begin + min(chunk_frames, mel.shape[-1] - start) * vocoder.hop]


def upsampling_strides(hop: int, num_stages: int, *, largest: int = 8) -> tuple[int, ...]:
    """At least ``num_stages`` factors of hop (fewer where it has fewer), falling, none above ``largest`` unless prime.

    256 gives (8, 8, 2, 2) for 4 stages and (8, 8, 4) for 3, as published; 300 gives (6, 5, 5, 2).

    Raises:
        ConfigError: where hop has a prime factor above 32.
    """
    factors, rest = list[int](), hop
    while rest > 1:
        fitting = [factor for factor in range(2, largest + 1) if rest % factor == 0]
        factors.append(max(fitting, default=_smallest_factor(rest)))
        rest //= factors[-1]
    if hop < 1 or max(factors, default=1) > LONGEST_STRIDE:
        raise ConfigError(
            f"hop {hop} has no factors up to {LONGEST_STRIDE} to upsample by; take a round one such as 256 or 300"
        )
    while len(factors) < num_stages and any(_smallest_factor(factor) < factor for factor in factors):
        split = min(factor for factor in factors if _smallest_factor(factor) < factor)
        factors.remove(split)
        factors += [split // _smallest_factor(split), _smallest_factor(split)]
    return tuple(sorted(factors, reverse=True))


def _smallest_factor(number: int) -> int:
    return next(factor for factor in range(2, number + 1) if number % factor == 0)


def check_strides(strides: Sequence[int], channels: int, hop: int) -> None:
    """Refuse strides that do not multiply to the hop, or that halve the channels to less than one.

    Raises:
        ConfigError: saying which.
    """
    if prod(strides) != hop:
        raise ConfigError(f"strides {tuple(strides)} multiply to {prod(strides)}, expected the hop {hop}; leave them empty")
    if channels % 2 ** len(strides):
        raise ConfigError(f"{channels} channels cannot be halved {len(strides)} times; take a multiple of {2 ** len(strides)}")


def weight_normed(layer: LayerT, deviation: float | None = None) -> LayerT:
    """The layer under weight norm; with a deviation, its weights drawn from N(0, deviation) first.

    Source: Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868
    """
    if deviation is not None:
        nn.init.normal_(layer.weight, 0.0, deviation)  # type: ignore[arg-type]
    normed: LayerT = parametrizations.weight_norm(layer)
    return normed


def same_convolution(channels: int, kernel: int, dilation: int, deviation: float | None = None) -> nn.Conv1d:
    """A weight-normed convolution (B, C, T) -> (B, C, T); kernel is odd."""
    padding = dilation * (kernel - 1) // 2
    return weight_normed(nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=padding), deviation)


def upsampling_convolution(before: int, after: int, stride: int, deviation: float | None = None) -> nn.ConvTranspose1d:
    """A weight-normed transposed convolution (B, before, T) -> (B, after, T * stride), exactly, for odd strides too."""
    padding = (stride + 1) // 2
    layer = nn.ConvTranspose1d(before, after, 2 * stride, stride, padding, output_padding=2 * padding - stride)
    return weight_normed(layer, deviation)


def mean_of(blocks: Iterable[nn.Module], hidden: Tensor) -> Tensor:
    """(B, C, T) -> (B, C, T): the blocks' mean, summed one by one so that only two results are held at a time."""
    first, *others = blocks
    total: Tensor = first(hidden)
    for block in others:
        total = total + block(hidden)
    return total / (1 + len(others))


def upsampling_reach(stride: int) -> Upsampling:
    """What ``upsampling_convolution`` looks at."""
    return Upsampling(2 * stride, stride, (stride + 1) // 2)
