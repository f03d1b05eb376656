"""Losses and penalties that a run can name: those of the core and of its own plugin. Plugins share none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from advgen.blame import at, kind_of
from advgen.border import require_callable
from advgen.controllers import CONTROLLERS
from advgen.errors import ContractError, PluginError
from advgen.faults import shape_fault
from advgen.losses import LOSSES, Cost, Loss
from advgen.penalties import PENALTIES, Compute, JudgeCall, Penalty
from advgen.registry import PluginRecord, resolve

Entry = TypeVar("Entry", Loss, Penalty)

SCORES = (2, 3)
"""Shape (samples, positions) of the logits for the trial of a plugin's loss."""


def losses_of(record: PluginRecord) -> dict[str, Loss]:
    """Return the losses that runs of a plugin can use, by name.

    Raises:
        PluginError: for a plugin's entry that is not a loss, or has the name of one of the core's.
    """
    own = _own(record, "losses", Loss, LOSSES)
    for name, loss in own.items():
        _try_loss(loss, f"plugin {record.name!r}: loss {name!r}")
    return LOSSES | own


def penalties_of(record: PluginRecord) -> dict[str, Penalty]:
    """Return the stateless penalties that runs of a plugin can use, by name.

    Raises:
        PluginError: for a plugin's entry that is not a penalty, or has the name of one of the core's.
    """
    own = _own(record, "penalties", Penalty, [*PENALTIES, *CONTROLLERS])
    return PENALTIES | {name: _checked(each, f"plugin {record.name!r}: penalty {name!r}") for name, each in own.items()}


def _own(record: PluginRecord, field: str, kind: type[Entry], taken: Iterable[str]) -> dict[str, Entry]:
    entries: Mapping[str, str] = getattr(record.spec, field)
    found = {name: resolve(target) for name, target in entries.items()}
    for name, entry in found.items():
        who = f"plugin {record.name!r}: {field}.{name}, {entries[name]!r},"
        if not isinstance(entry, kind):
            raise ContractError(f"{who} is {kind_of(entry)}, expected an advgen.{kind.__name__}")
        if name in taken:
            raise PluginError(f"{who} has the name of a {kind.__name__.lower()} of the core, which is taken; rename it")
    return found


class _Coupled(Protocol):
    """``Compute`` of a penalty that couples the batch; it also gets ``move``."""

    def __call__(
        self,
        *,
        judge_real: JudgeCall,
        judge_fake: JudgeCall,
        real: Tensor,
        fake: Tensor,
        weight: float,
        noise: Tensor,
        move: Tensor,
    ) -> Tensor: ...


def _try_loss(loss: Loss, who: str) -> None:
    """Refuse a loss with a cost that is not elementwise."""
    real, fake = torch.zeros(SCORES), torch.zeros(SCORES)
    for side in ("discriminator", "generator"):
        cost = getattr(loss, side)
        require_callable(cost, Cost.__call__, f"{who}: {side}")
        _require_elementwise(cost(real=real, fake=fake), f"{who}: {side}{at(cost)}")
    for field in ("sides", "generator_sides"):
        for index, half in enumerate(getattr(loss, field) or ()):
            _require_elementwise(half(real), f"{who}: {field}[{index}]{at(half)}")


def _require_elementwise(cost: Any, who: str) -> None:
    if fault := shape_fault(cost, SCORES):
        raise ContractError(f"{who} returned {fault} for logits {SCORES}: one cost per score, which the core averages")


def _checked(penalty: Penalty, who: str) -> Penalty:
    """Wrap a penalty so that its returned value is checked."""
    require_callable(penalty.compute, _Coupled.__call__ if penalty.couples_batch else Compute.__call__, f"{who}: compute")

    def compute(**given: Any) -> Tensor:
        found = penalty.compute(**given)
        if fault := shape_fault(found, (len(given["real"]),)):
            raise ContractError(f"{who}{at(penalty.compute)} returned {fault}: one number per sample")
        return found

    return dataclasses.replace(penalty, compute=compute)
