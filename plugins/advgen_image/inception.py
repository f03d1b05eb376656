"""The Inception network whose features published Fréchet distances are measured in, in the names of its published weights.

It is not torchvision's: TensorFlow's average pools leave the border out of the mean, and the last block takes the largest
value where the one before takes the mean. Legend: N images, H, W sides.

Source: Szegedy et al. 2015, https://arxiv.org/abs/1512.00567; its use, Heusel et al. 2017, https://arxiv.org/abs/1706.08500
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 299
NUM_FEATURES = 2048
NUM_LOGITS = 1008

Path = Sequence[str | tuple[str, ...]]


class Convolution(nn.Module):
    """(N, in, H, W) -> (N, out, H, W): convolution, batch norm, rectifier; a stride or ``padded=False`` drops the border."""

    def __init__(
        self, inside: int, outside: int, kernel: int | tuple[int, int] = 1, stride: int = 1, padded: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if padded and stride == 1 else (0, 0)
        self.conv = nn.Conv2d(inside, outside, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=0.001)

    def forward(self, images: Tensor) -> Tensor:
        """As the class says."""
        return F.relu(self.bn(self.conv(images)))


def _mean(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)


def _largest(images: Tensor) -> Tensor:
    return F.max_pool2d(images, 3, 1, 1)


def _halved(images: Tensor) -> Tensor:
    return F.max_pool2d(images, 3, 2)


POOLS = {"mean": _mean, "largest": _largest, "halved": _halved}


class Mixed(nn.Module):
    """Parallel paths over one input, concatenated by channel; a step is a pool, a convolution, or several side by side."""

    def __init__(self, convolutions: Mapping[str, Sequence[Any]], paths: Sequence[Path]) -> None:
        super().__init__()
        self.paths = paths
        for name, settings in convolutions.items():
            self.add_module(name, Convolution(*settings))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, the paths' channels, H', W')."""
        return torch.cat([self._follow(images, path) for path in self.paths], 1)

    def _follow(self, images: Tensor, path: Path) -> Tensor:
        for step in path:
            if isinstance(step, tuple):
                images = torch.cat([self.get_submodule(name)(images) for name in step], 1)
            else:
                images = POOLS[step](images) if step in POOLS else self.get_submodule(step)(images)
        return images


def _steps(name: str, count: int) -> list[str]:
    return [f"{name}_{index}" for index in range(1, count + 1)]


def _first(inside: int, pooled: int) -> Mixed:
    """35x35: 1x1, 5x5, two 3x3, and a mean."""
    convolutions = {
        "branch1x1": (inside, 64),
        "branch5x5_1": (inside, 48),
        "branch5x5_2": (48, 64, 5),
        "branch3x3dbl_1": (inside, 64),
        "branch3x3dbl_2": (64, 96, 3),
        "branch3x3dbl_3": (96, 96, 3),
        "branch_pool": (inside, pooled),
    }
    return Mixed(convolutions, [["branch1x1"], _steps("branch5x5", 2), _steps("branch3x3dbl", 3), ["mean", "branch_pool"]])


def _to_17(inside: int) -> Mixed:
    convolutions = {
        "branch3x3": (inside, 384, 3, 2),
        "branch3x3dbl_1": (inside, 64),
        "branch3x3dbl_2": (64, 96, 3),
        "branch3x3dbl_3": (96, 96, 3, 2),
    }
    return Mixed(convolutions, [["branch3x3"], _steps("branch3x3dbl", 3), ["halved"]])


def _second(inside: int, narrow: int) -> Mixed:
    """17x17: 7x7 as rows and columns."""
    row, column = (1, 7), (7, 1)
    convolutions = {
        "branch1x1": (inside, 192),
        "branch7x7_1": (inside, narrow),
        "branch7x7_2": (narrow, narrow, row),
        "branch7x7_3": (narrow, 192, column),
        "branch7x7dbl_1": (inside, narrow),
        "branch7x7dbl_2": (narrow, narrow, column),
        "branch7x7dbl_3": (narrow, narrow, row),
        "branch7x7dbl_4": (narrow, narrow, column),
        "branch7x7dbl_5": (narrow, 192, row),
        "branch_pool": (inside, 192),
    }
    return Mixed(convolutions, [["branch1x1"], _steps("branch7x7", 3), _steps("branch7x7dbl", 5), ["mean", "branch_pool"]])


def _to_8(inside: int) -> Mixed:
    convolutions = {
        "branch3x3_1": (inside, 192),
        "branch3x3_2": (192, 320, 3, 2),
        "branch7x7x3_1": (inside, 192),
        "branch7x7x3_2": (192, 192, (1, 7)),
        "branch7x7x3_3": (192, 192, (7, 1)),
        "branch7x7x3_4": (192, 192, 3, 2),
    }
    return Mixed(convolutions, [_steps("branch3x3", 2), _steps("branch7x7x3", 4), ["halved"]])


def _third(inside: int, pool: str) -> Mixed:
    """8x8: 3x3 as a row and a column side by side."""
    row, column = (1, 3), (3, 1)
    convolutions = {
        "branch1x1": (inside, 320),
        "branch3x3_1": (inside, 384),
        "branch3x3_2a": (384, 384, row),
        "branch3x3_2b": (384, 384, column),
        "branch3x3dbl_1": (inside, 448),
        "branch3x3dbl_2": (448, 384, 3),
        "branch3x3dbl_3a": (384, 384, row),
        "branch3x3dbl_3b": (384, 384, column),
        "branch_pool": (inside, 192),
    }
    single: Path = ["branch3x3_1", ("branch3x3_2a", "branch3x3_2b")]
    double: Path = [*_steps("branch3x3dbl", 2), ("branch3x3dbl_3a", "branch3x3dbl_3b")]
    return Mixed(convolutions, [["branch1x1"], single, double, [pool, "branch_pool"]])


class Inception(nn.Module):
    """8-bit RGB images (N, 3, H, W) of any size, values 0 to 255 -> features (N, 2048) and logits (N, 1008) without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _first(192, 32), _first(256, 64), _first(288, 64)
        self.Mixed_6a = _to_17(288)
        self.Mixed_6b, self.Mixed_6c = _second(768, 128), _second(768, 160)
        self.Mixed_6d, self.Mixed_6e = _second(768, 160), _second(768, 192)
        self.Mixed_7a = _to_8(768)
        self.Mixed_7b, self.Mixed_7c = _third(1280, "mean"), _third(2048, "largest")
        self.fc = nn.Linear(NUM_FEATURES, NUM_LOGITS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Resize, scale to [-1, 1), and run; the logits' bias is left out, as the inception score does."""
        values = (resized(images.float(), SIDE, SIDE) - 128) / 128
        values = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(values)))
        values = _halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(_halved(values))))
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                values = block(values)
        features = values.mean((2, 3))
        return features, features @ self.fc.weight.T


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) -> (N, C, height, width), bilinear as TensorFlow 1 did: the first pixels' corners meet, nothing is smoothed.

    Every published distance in these features rests on it; a better filter would give other numbers.
    """
    upper, lower, down = _places(images.shape[2], height, images)
    left, right, along = _places(images.shape[3], width, images)
    rows = images[:, :, upper], images[:, :, lower]
    top, bottom = (_between(row[..., left], row[..., right], along) for row in rows)
    return _between(top, bottom, down[:, None])


def _between(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    return start + (end - start) * share  # torch.lerp rounds differently


def _places(inside: int, outside: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of a side, the two that it lies between, and how far along."""
    place = torch.arange(outside, device=like.device, dtype=like.dtype) * (inside / outside)
    before = place.long()
    return before, (before + 1).clamp(max=inside - 1), place - before
