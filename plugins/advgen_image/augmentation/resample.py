"""Images on moved grids, differentiable any number of times. Legend: B batch, C channels, H height, W width."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

PADDINGS = ("zeros", "border", "reflection")  # in the order of torch's kernels
BILINEAR = 0


@cache  # recorded updates read them
def constant(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """A table of numbers on a device; only its first copy waits for it."""
    return torch.tensor(rows, device=device)


class _Sample(torch.autograd.Function):
    """Images at the grid's places: linear in the images, so its derivative is its transpose.

    torch's own ``grid_sample`` has no second derivative, which gradient penalties through an augmentation need.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.padding, ctx.shape = padding, images.shape
        mode = PADDINGS[padding]
        return F.grid_sample(images, grid, mode="bilinear", padding_mode=mode, align_corners=False)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        spread: Tensor = _Spread.apply(slopes[0], grid, ctx.padding, ctx.shape)  # type: ignore[no-untyped-call]
        return spread, None, None


class _Spread(torch.autograd.Function):
    """The transpose of ``_Sample``: each value is spread over the places that it was read from."""

    @staticmethod
    def forward(ctx: Any, slopes: Tensor, grid: Tensor, padding: int, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.padding = padding
        like = slopes.new_empty(()).expand(shape)
        spread, _ = torch.ops.aten.grid_sampler_2d_backward(slopes, like, grid, BILINEAR, padding, False, [True, False])
        return spread

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        (grid,) = ctx.saved_tensors
        sampled: Tensor = _Sample.apply(slopes[0], grid, ctx.padding)  # type: ignore[no-untyped-call]
        return sampled, None, None, None


def moved(images: Tensor, inverse: Tensor, padding: str) -> Tensor:
    """Images under an affine map of their pixels.

    Args:
        images: (B, C, H, W).
        inverse: (B, 3, 3) maps where a pixel lands to where it comes from, in pixels from the image's centre, x before y.
        padding: what lies outside: ``zeros``, ``border`` or ``reflection``.

    Returns:
        (B, C, H, W), bilinear between pixels; exact for moves by whole pixels, flips and quarter turns. Places are found in
        float32 at the least, as those of bfloat16 are off by fractions of a pixel.
    """
    height, width = images.shape[-2:]
    unit = constant(((width / 2, height / 2, 1.0),), inverse.device)[0].to(inverse.dtype)
    scaled = inverse * unit / unit[:, None]
    exact = torch.promote_types(images.dtype, torch.float32)
    grid = F.affine_grid(scaled[:, :2].to(exact), list(images.shape), align_corners=False)
    result: Tensor = _Sample.apply(images.to(exact), grid, PADDINGS.index(padding))  # type: ignore[no-untyped-call]
    return result.to(images.dtype)
