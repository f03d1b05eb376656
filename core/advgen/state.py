"""All that a bit-exact continuation needs, as checkpoint parts and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advgen.engine import Player
from advgen.errors import CheckpointError
from advgen.players import Players
from advgen.runs.checkpoint import Tensors, pack_optimizer, unpack_optimizer


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


def unpack(players: Players, parts: Mapping[str, Tensors]) -> None:
    """Put a checkpoint's parts back.

    Raises:
        CheckpointError: where a network does not have the saved shape.
    """
    state = dict(parts["state"])
    for player in (players.generator, players.discriminator):
        load_network(player.network, parts[player.name], player.name)
        unpack_optimizer(player.optimizer, parts[f"{player.name}_optimizer"])
        _restore_clipping(player, state)
    for name, network in _beside(players).items():
        load_network(network, parts[name], name)
    players.state = {name: value.to(players.world.device) for name, value in state.items()}


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


def load_network(network: torch.nn.Module, tensors: Tensors, who: str) -> None:
    """Load weights that must fit exactly.

    Raises:
        CheckpointError: naming the first difference.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{who} does not fit the checkpoint: {' '.join(str(error).split())[:400]}") from error


def take_matching(network: torch.nn.Module, tensors: Tensors) -> tuple[list[str], list[str]]:
    """Load what has the same name and shape; return the names taken and left."""
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    network.load_state_dict({**own, **fitting})
    return sorted(fitting), sorted(set(own) - set(fitting))
