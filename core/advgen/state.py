"""All that a bit-exact continuation needs, as checkpoint parts and back: checked before it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advgen.contracts import Modality
from advgen.engine import CLIP_HISTORY, Player
from advgen.errors import CheckpointError
from advgen.players import Players
from advgen.reading import told
from advgen.runs.checkpoint import MOST_STEPS, Chosen, Tensors, pack_optimizer, unpack_optimizer
from advgen.tensor_files import TensorFile
from advgen.weights import UnfitError, load_network, require_room

MOST_STATE_BYTES = 256 * 2**20
MOST_MOMENTS = 4
"""Most tensors of a parameter's own size that an optimizer keeps for it."""
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def pack(players: Players) -> dict[str, Tensors]:
    """Both players, their optimizers and clipping histories, average and reference, and the controllers' state."""
    parts = {"state": dict(players.state)}
    for player in (players.generator, players.discriminator):
        parts[player.name] = tensors_of(player.network)
        parts[f"{player.name}_optimizer"] = pack_optimizer(player.optimizer)
        parts["state"] |= {f"{player.name}.norms": player.norms, f"{player.name}.updates": torch.tensor(player.num_updates)}
    for name, network in _beside(players).items():
        parts[name] = tensors_of(network)
    return parts


def require_parts(modality: Modality[Any], files: Mapping[str, TensorFile]) -> Chosen:
    """Compare a checkpoint with the networks that a run is going to make, before memory is taken for either.

    Raises:
        CheckpointError: if a network would have other tensors, or another part is too large to belong to it.
    """
    makers = {"generator": modality.generator, "discriminator": modality.discriminator}
    makers |= {"average": modality.generator, "reference": modality.generator}
    most = {"state": MOST_STATE_BYTES}
    for name, make in makers.items():
        if name in files:
            require_room(make, files[name].sizes, f"{files[name].path}: the {name}")
            most[f"{name}_optimizer"] = MOST_MOMENTS * bytes_of(files[name]) + MOST_STATE_BYTES
    for name, most_bytes in most.items():
        if name in files and bytes_of(files[name]) > most_bytes:
            raise UnfitError(
                f"{files[name].path} has {bytes_of(files[name]):,} bytes of tensors, expected {most_bytes:,} at most"
            )
    return {name: None for name in (*makers, *most) if name in files}


def bytes_of(file: TensorFile) -> int:
    """Add up the bytes of a file's tensors."""
    return sum(size.num_bytes for size in file.sizes.values())


def unpack(players: Players, parts: Mapping[str, Mapping[str, Tensor]], num_phases: int = 1) -> None:
    """Put a checkpoint's parts back.

    Raises:
        CheckpointError: if a part is missing, or a tensor is not one that these players and this configuration save.
    """
    state = dict(_part(parts, "state"))
    _require_state(state, num_phases, getattr(parts["state"], "path", None))
    for player in (players.generator, players.discriminator):
        load_network(player.network, _part(parts, player.name), player.name, refreshed=True)
        updates = int(state[f"{player.name}.updates"])
        name = f"{player.name}_optimizer"
        unpack_optimizer(player.optimizer, dict(_part(parts, name)), name, updated=updates > 0)
        _restore_clipping(player, state)
    for name, network in _beside(players).items():
        load_network(network, _part(parts, name), name, refreshed=True)
    players.state = {name: value.to(players.world.device) for name, value in state.items()}


def _part(parts: Mapping[str, Mapping[str, Tensor]], name: str) -> Mapping[str, Tensor]:
    if name not in parts:
        raise CheckpointError(f"the checkpoint has no part {name!r}, which this run needs; it has {', '.join(sorted(parts))}")
    return parts[name]


def _beside(players: Players) -> dict[str, torch.nn.Module]:
    """The networks that no optimizer moves."""
    both = {"average": players.average, "reference": players.reference}
    return {name: network for name, network in both.items() if network is not None}


def _restore_clipping(player: Player, state: dict[str, Tensor]) -> None:
    player.norms.copy_(state.pop(f"{player.name}.norms"))
    player.num_updates = int(state.pop(f"{player.name}.updates"))


def tensors_of(network: torch.nn.Module) -> Tensors:
    """A network's state by name; tied tensors are written once each under every name."""
    return dict(network.state_dict())


@dataclass(frozen=True)
class Entry:
    """A tensor of the players' state.

    Args:
        shape: its sizes; None: any.
        types: the types it may have.
        least: the smallest valid number; None: any finite one.
        unknown: True if NaN stands for numbers that are not known yet.
    """

    shape: tuple[int | None, ...] = ()
    types: tuple[torch.dtype, ...] = FLOATS
    least: float | None = None
    unknown: bool = False

    def fault(self, tensor: Tensor, most: int) -> str:
        """Describe the fault of a tensor; empty if it has none."""
        sizes = tuple(tensor.shape)
        if tensor.dtype not in self.types or len(sizes) != len(self.shape) or not all(map(_alike, sizes, self.shape)):
            shape = ", ".join("any" if size is None else str(size) for size in self.shape)
            types = " or ".join(str(each).removeprefix("torch.") for each in self.types)
            return f"is {str(tensor.dtype).removeprefix('torch.')} {sizes}, expected {types} ({shape})"
        values = tensor[~tensor.isnan()] if self.unknown else tensor
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            return "is not finite"
        if self.least is not None and bool((values < self.least).any()):
            return f"is {float(values.min()):g}, expected at least {self.least:g}"
        if not values.is_floating_point() and bool((values > most).any()):
            return f"is {int(values.max())}, expected at most {most}"
        return ""


def _alike(size: int, wanted: int | None) -> bool:
    return wanted is None or size == wanted


COUNT = (torch.int64,)
STATE: Mapping[str, Entry] = {
    r"(generator|discriminator)\.norms": Entry((CLIP_HISTORY,), least=0, unknown=True),
    r"(generator|discriminator)\.updates": Entry(types=COUNT, least=0),
    "phase": Entry(types=COUNT, least=0),
    "lecam": Entry((3,)),
    "path_length": Entry(least=0),
    "baseline": Entry((None,)),
    "baseline_updates": Entry((None,), COUNT, least=0),
    "reference_taken": Entry(types=(torch.bool,)),
    r"balance\.\w+": Entry((2,), least=0),
    r"overfitting\.next_step": Entry(types=COUNT, least=0),
    r"overfitting\.(train|held_out|generated)": Entry((None, None)),
}
"""All entries that ``Players.state`` may hold, by a pattern of their names."""
TOGETHER = (
    ("baseline", "baseline_updates"),
    ("overfitting.train", "overfitting.held_out", "overfitting.generated", "overfitting.next_step"),
)
"""Groups of entries that are saved together. Entries of a group that have rows have the same number of them."""


def _require_state(state: Mapping[str, Tensor], num_phases: int, path: Any) -> None:
    """Refuse a state that a run with this number of phases cannot have saved.

    Raises:
        UnfitError: naming the entry.
    """
    if fault := _state_fault(state, num_phases):
        raise UnfitError(f"{path or 'the state'} does not fit the checkpoint: {fault}; use an earlier one, or start again")


def _state_fault(state: Mapping[str, Tensor], num_phases: int) -> str:
    for name, tensor in state.items():
        entry = next((entry for pattern, entry in STATE.items() if re.fullmatch(pattern, name, re.ASCII)), None)
        if entry is None:
            return f"{told(name)} is not known"
        if fault := entry.fault(tensor, num_phases - 1 if name == "phase" else MOST_STEPS):
            return f"{name} {fault}"
    needed = [f"{player}.{name}" for player in ("generator", "discriminator") for name in ("norms", "updates")]
    groups = [group for group in TOGETHER if any(name in state for name in group)]
    if missing := [name for group in (needed, *groups) for name in group if name not in state]:
        return f"{missing[0]} is missing"
    for group in groups:
        if len({len(state[name]) for name in group if state[name].dim()}) > 1:
            return f"{' and '.join(group)} are of different lengths"
    return ""
