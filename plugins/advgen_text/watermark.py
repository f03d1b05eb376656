"""A keyed green-list watermark: put in while sampling, found again in the text alone.

Legend: B batch, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .tokenizer import BOS, PAD, UNKNOWN

# Odd multipliers of MurmurHash3's finaliser, within 32 bits so that products fit in int64.
_FIRST, _SECOND, _BITS = 0x85EBCA6B, 0xC2B2AE35, 0xFFFFFFFF


@dataclass(frozen=True)
class Watermark:
    """After each token, a keyed hash of it and the next makes a share of the vocabulary green; those get more likely.

    Args:
        key: whoever knows it can find the watermark; others cannot tell green from red.
        share: of the vocabulary that is green, gamma.
        strength: what is added to green logits, delta.

    Source: Kirchenbauer et al. 2023, https://arxiv.org/abs/2301.10226; a hash of each pair in place of a shuffled list
    """

    key: str
    share: float = 0.25
    strength: float = 2.0

    def green(self, before: Tensor, tokens: Tensor) -> Tensor:
        """Which tokens are green after which, bool, of both shapes broadcast."""
        first, second = _seeds(self.key)
        mixed = _mixed(_mixed(before ^ first) ^ _mixed(tokens ^ second) ^ first)
        return mixed < int(self.share * 2**32)

    def favour(self, logits: Tensor, before: Tensor) -> Tensor:
        """Logits (B, V) with ``strength`` added where a token is green after ``before`` (B,)."""
        tokens = torch.arange(logits.shape[1], device=logits.device)
        return logits + self.strength * self.green(before.unsqueeze(1), tokens).to(logits.dtype)


@dataclass(frozen=True)
class Finding:
    """What a text says of a key.

    Args:
        num_pairs: different pairs of neighbouring tokens.
        num_green: those whose second token is green.
        z: how many standard deviations more than in text that knows nothing of the key.
        p: how likely as many are by chance, in [0, 1].
    """

    num_pairs: int
    num_green: int
    z: float
    p: float


def find(rows: Iterable[Sequence[int]], watermark: Watermark) -> Finding:
    """Count green tokens in lines of tokens.

    A pair counts once however often it comes, as repetitions are not independent of each other. Unknown words are left out:
    sampling never draws them.

    Returns:
        z = (green - share * pairs) / sqrt(share * (1 - share) * pairs) and p = P(normal >= z); 0 and 1/2 without a pair.

    Source: Kirchenbauer et al. 2023, section 3, https://arxiv.org/abs/2301.10226
    """
    pairs = {pair for row in rows for pair in zip([BOS, *row], row, strict=False) if not {PAD, UNKNOWN} & set(pair)}
    if not pairs:
        return Finding(0, 0, 0.0, 0.5)
    before, tokens = torch.tensor(sorted(pairs)).unbind(1)
    num_green, share = int(watermark.green(before, tokens).sum()), watermark.share
    z = (num_green - share * len(pairs)) / math.sqrt(share * (1 - share) * len(pairs))
    return Finding(len(pairs), num_green, z, 0.5 * math.erfc(z / math.sqrt(2)))


def _seeds(key: str) -> tuple[int, int]:
    digest = hashlib.sha256(b"advgen watermark\0" + key.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def _mixed(x: Tensor) -> Tensor:
    """A bijection of 32 bits in int64 that lets every bit move every other."""
    x = ((x ^ (x >> 16)) * _FIRST) & _BITS
    x = ((x ^ (x >> 13)) * _SECOND) & _BITS
    return x ^ (x >> 16)
