"""Drawing a token from logits, and which places of a batch of sentences count.

Legend: B batch, L tokens, V vocabulary, N places that count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen import Batch

from ..tokenizer import PAD

# Finite, so that probability zero times its logarithm is zero and not NaN.
NEVER = -1e9

Choose = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits (B, V), the tokens before (B,), uniforms in [0, 1) (B,)) -> the tokens drawn (B,)."""


def inverse_draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token (B,) whose stretch of the cumulative distribution holds ``uniform`` (B,) in [0, 1)."""
    cumulative = F.softmax(logits, dim=-1).cumsum(dim=-1)
    point = uniform.to(cumulative.dtype).unsqueeze(1) * cumulative[:, -1:]
    # Rounding may put the point on the last edge; the last token with any probability is then meant.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    return torch.minimum(torch.searchsorted(cumulative, point, right=True), last).squeeze(1)


def plain(logits: Tensor, before: Tensor, uniform: Tensor) -> Tensor:
    """A draw from the softmax, as training draws."""
    return inverse_draw(logits, uniform)


def content_mask(tokens: Tensor) -> Tensor:
    """(B, L) bool: True up to and including <eos>."""
    return tokens != PAD


def prompt_mask(condition: Mapping[str, Tensor], like: Tensor) -> Tensor | None:
    """(B, L) bool: True where a token was given and not drawn; None without a prompt."""
    if "prompt" not in condition:
        return None
    prompt = condition["prompt"]
    return F.pad(prompt != PAD, (0, like.shape[1] - prompt.shape[1]))


def written(batch: Batch) -> Tensor:
    """Tokens (B, L) with <pad> in the place of a prompt's, which nobody wrote."""
    given = prompt_mask(batch.condition, batch.values)
    return batch.values if given is None else batch.values.masked_fill(given, PAD)


def keeps_shapes(tensor: Tensor) -> bool:
    """Whether work on it must not depend on its numbers: asking a GPU for one would wait for it, and cannot be recorded."""
    return tensor.is_cuda


def being_recorded(tensor: Tensor) -> bool:
    """Whether a GPU records its kernels."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def longest(mask: Tensor) -> int:
    """Places up to the last that counts in any sample, at least 1: none behind need be computed; all where shapes are kept."""
    if keeps_shapes(mask):
        return mask.shape[1]
    places = mask.any(0).nonzero()
    return int(places[-1]) + 1 if len(places) else 1


def content(mask: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """How to take the places that count out of (B, L, ...) as rows, and to put values (N,) back with 0 elsewhere.

    The output layer over a large vocabulary is most of the cost, and half of a batch may be padding. Where shapes are kept,
    every place is a row.
    """
    if keeps_shapes(mask):
        return lambda x: x.flatten(0, 1), lambda values: values.view(mask.shape).masked_fill(~mask, 0)
    return lambda x: x[mask[:, : x.shape[1]]], lambda values: values.new_zeros(mask.shape).masked_scatter(mask, values)
