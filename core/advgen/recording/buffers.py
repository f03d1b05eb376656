"""What a recorded update reads: micro-batches, scheduled scalars and the players' memory, as buffers or under observation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from advgen.contracts import Batch
from advgen.players import Chunk, Objective

Asked = tuple[int, tuple[int, ...]]
"""What ``Chunk.uniform`` was asked for: the micro-batch and the shape."""


@dataclass
class BufferedObjective(Objective):
    """An objective whose scheduled scalars are buffers, so that a recording sees their later values.

    Args:
        buffers: scalars by path.
        bases: what was scheduled, by path, for those that were asked for.
    """

    buffers: dict[str, Tensor] = field(default_factory=dict)
    bases: dict[str, float] = field(default_factory=dict)

    def weight(self, path: str, base: float, progress: float) -> float:
        """The buffer, which multiplies as a number does; a number where nothing is scheduled."""
        if path not in self.buffers:
            return super().weight(path, base, progress)
        self.bases[path] = base
        return self.buffers[path]  # type: ignore[return-value]


class ObservedState(dict[str, Tensor]):
    """The players' state; ``names`` gathers what is read or written."""

    def __init__(self, state: dict[str, Tensor], names: set[str]) -> None:
        super().__init__(state)
        self.names = names

    def __getitem__(self, name: str) -> Tensor:
        self.names.add(name)
        return super().__getitem__(name)

    def __setitem__(self, name: str, value: Tensor) -> None:
        self.names.add(name)
        super().__setitem__(name, value)

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dictionary."""
        self.names.add(name)
        return super().get(name, default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """As of a dictionary."""
        self.names.add(name)
        return super().setdefault(name, default)


def with_tensors(chunk: Chunk, function: Callable[[Tensor], Tensor]) -> Chunk:
    """The micro-batch with a function of each of its tensors, always in the same order."""
    real = Batch(
        function(chunk.real.values),
        None if chunk.real.mask is None else function(chunk.real.mask),
        {name: function(value) for name, value in chunk.real.condition.items()},
    )
    others = None if chunk.mismatched is None else {name: function(value) for name, value in chunk.mismatched.items()}
    return replace(chunk, real=real, noise=function(chunk.noise), mixing=function(chunk.mixing), mismatched=others)


def tensors_of(chunks: list[Chunk]) -> list[Tensor]:
    """All tensors of micro-batches, in the order of ``with_tensors``."""
    found = list[Tensor]()

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    for chunk in chunks:
        with_tensors(chunk, keep)
    return found


def with_observed_uniform(chunks: list[Chunk], asked: set[Asked]) -> list[Chunk]:
    """The micro-batches; what their ``uniform`` is asked for is noted."""

    def noted(index: int, chunk: Chunk) -> Callable[[tuple[int, ...]], Tensor]:
        def uniform(shape: tuple[int, ...]) -> Tensor:
            asked.add((index, tuple(shape)))
            return chunk.uniform(shape)

        return uniform

    return [replace(chunk, uniform=noted(index, chunk)) for index, chunk in enumerate(chunks)]


def with_drawn_uniform(chunks: list[Chunk], drawn: dict[Asked, Tensor]) -> list[Chunk]:
    """The micro-batches; what their ``uniform`` is asked for was drawn beforehand."""

    def kept(index: int) -> Callable[[tuple[int, ...]], Tensor]:
        return lambda shape: drawn[index, tuple(shape)]

    return [replace(chunk, uniform=kept(index)) for index, chunk in enumerate(chunks)]


def without_more_noise(chunks: list[Chunk]) -> list[Chunk]:
    """The micro-batches; further noise, which is drawn on the CPU for each call anew, is refused."""

    def refuse(turn: int, samples: Tensor, count: int) -> Tensor:
        raise RuntimeError("rollouts draw new noise at every update")

    return [replace(chunk, more_noise=None if chunk.more_noise is None else refuse) for chunk in chunks]
