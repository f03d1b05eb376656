"""What both augmentations share: cutting a rectangle out, and a part of the channels as colour. Legend: B batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def per_image(numbers: Tensor) -> Tensor:
    """(B,) shaped to multiply (B, C, H, W)."""
    return numbers.reshape(-1, 1, 1, 1)


def cut_out(images: Tensor, share: float, chosen: Tensor) -> Tensor:
    """Zeros in a rectangle of ``share`` of each side about a random centre, in the ``chosen`` (B,) images."""
    batch, _, height, width = images.shape
    centre = torch.rand(2, batch, 1, device=images.device)
    places = [(torch.arange(side, device=images.device) + 0.5) / side for side in (height, width)]
    rows, columns = ((place - at).abs() < share / 2 for place, at in zip(places, centre, strict=True))
    inside = rows[:, None, :, None] & columns[:, None, None, :] & per_image(chosen)
    return images * (~inside).to(images.dtype)


def on_colour(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``change`` to grey or RGB; transparency, a second or fourth channel, stays as it is."""
    if images.shape[1] not in (2, 4):
        return change(images)
    return torch.cat([change(images[:, :-1]), images[:, -1:]], dim=1)
