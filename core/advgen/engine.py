"""Device work around the algorithm: players, optimizers, precision, clipping, masking of non-finite updates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advgen.blame import at, kind_of
from advgen.border import refusal
from advgen.config.model import PlayerConfig
from advgen.errors import ContractError, DivergedError
from advgen.world import World

CLIP_HISTORY = 500

REMEDY = (
    "lower generator.learning_rate or discriminator.learning_rate (either can be the cause: {0} only met it first), "
    "or clip: --set generator.clip.kind=quantile --set generator.clip.limit=0.9, likewise discriminator.clip"
)


@dataclass
class Player:
    """A network with its optimizer, the norms that adaptive clipping remembers, and whether an update was not finite."""

    name: str
    network: nn.Module
    settings: PlayerConfig
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    norms: Tensor
    non_finite: Tensor
    num_updates: int = 0


@dataclass
class Terms:
    """Named costs of one update; their sum is what is differentiated."""

    costs: dict[str, Tensor] = field(default_factory=dict)
    logs: dict[str, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor:
        """The sum of all costs, a scalar."""
        return torch.stack([cost.float() if cost.dtype is torch.bfloat16 else cost for cost in self.costs.values()]).sum()


def make_player(name: str, network: nn.Module, settings: PlayerConfig, device: torch.device) -> Player:
    """Make the optimizer of a player over its trainable parameters; frozen ones do not change.

    Raises:
        ContractError: if no parameter trains, or the optimizer refuses the network's ``parameter_groups``.
    """
    groups = _groups(network)
    try:
        optimizer = _optimizer(groups, settings, device)
    except (TypeError, ValueError) as error:  # not parameters, or one parameter in two groups
        raise refusal(_grouping(network), f"gave groups that the optimizer refuses: {error}") from error
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in optimizer.param_groups:
        group["base_learning_rate"] = group["lr"]
        group["base_betas"] = group.get("betas")
    norms = torch.full((CLIP_HISTORY,), torch.nan, device=device)
    return Player(name, network, settings, optimizer, parameters, norms, torch.zeros((), dtype=torch.bool, device=device))


def _grouping(network: nn.Module) -> Any:
    """Return the method that groups a network's parameters, or the class if it has none of its own."""
    own = getattr(network, "parameter_groups", None)
    return own if callable(own) else type(network)


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    """Group the parameters for the optimizer, without frozen ones and without empty groups."""
    own = _grouping(network)
    given: Any = list(network.parameters()) if own is type(network) else own()
    try:
        entries = list(given)
        tables = entries if any(isinstance(each, dict) for each in entries) else [{"params": entries}]
        listed = [{**each, "params": _listed(each["params"])} for each in tables]
    except (TypeError, KeyError) as error:
        expected = "parameters, or tables with params, as for torch.optim"
        raise refusal(own, f"returned {kind_of(given)}, expected {expected}") from error
    groups = [{**each, "params": [one for one in each["params"] if getattr(one, "requires_grad", True)]} for each in listed]
    if not any(each["params"] for each in groups):
        raise refusal(type(network), "has no parameter that trains, expected at least one with requires_grad")
    return [each for each in groups if each["params"]]


def _listed(parameters: Any) -> list[Any]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


@contextlib.contextmanager
def parameters_kept(players: Iterable[Player]) -> Iterator[None]:
    """Raise if the block replaces, freezes or unfreezes a parameter; the optimizer would not notice.

    Raises:
        ContractError: naming the first.
    """
    networks = [(player.name, player.network) for player in players]
    before = [_trained(network) for _, network in networks]
    yield
    for (name, network), known in zip(networks, before, strict=True):
        now = _trained(network)
        if changed := [key for key in known | now if known.get(key) != now.get(key)]:
            raise ContractError(
                f"enter_phase replaced, froze or unfroze {changed[0]} of the {name}, {type(network).__name__}"
                f"{at(type(network))}, expected values that change only in place; freeze parts when the network is made"
            )


def _trained(network: nn.Module) -> dict[str, tuple[int, bool]]:
    return {name: (id(parameter), parameter.requires_grad) for name, parameter in network.named_parameters()}


def corrected(settings: PlayerConfig, interval: int) -> PlayerConfig:
    """Settings for a player that takes one update more in every ``interval``: rate and betas to the share c = k / (k + 1).

    With learning rate c and betas to the power c, ``interval`` + 1 updates go as far, and forget as much, as ``interval`` did.

    Source: Karras et al. 2019 (StyleGAN2), appendix B, https://arxiv.org/abs/1912.04958
    """
    share = interval / (interval + 1)
    rate, betas = settings.learning_rate * share, (settings.betas[0] ** share, settings.betas[1] ** share)
    return settings.model_copy(update={"learning_rate": rate, "betas": betas})


def _optimizer(groups: Any, settings: PlayerConfig, device: torch.device) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    fused = {"fused": True}
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, alpha=settings.betas[1], momentum=settings.betas[0], **common)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=settings.betas[0], **common, **fused)
    betas = (float(settings.betas[0]), float(settings.betas[1]))
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, betas=betas, **common, **fused)


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """No gradient for a network's parameters inside the block."""
    wanted = [(p, p.requires_grad) for p in network.parameters()]
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


def set_second_beta(player: Player, scale: float) -> None:
    """Multiply the second beta of Adam and AdamW; other optimizers have none."""
    for group in player.optimizer.param_groups:
        if group["base_betas"] is not None:
            group["betas"] = (group["base_betas"][0], group["base_betas"][1] * scale)


def apply_update(player: Player, terms: Terms, learning_rate_scale: float, world: World) -> dict[str, Tensor]:
    """Average gradients over ranks, clip, and step; a non-finite update leaves the player as it was.

    Raises:
        DivergedError: at once on a CPU; on other devices the mask is reported at the next log step.
    """
    world.average_gradients(player.parameters)
    gradients = [parameter.grad for parameter in player.parameters if parameter.grad is not None]
    norm = _norm(gradients)
    finite = _finite(norm, terms, world)
    if finite is not True:
        player.non_finite = player.non_finite | ~finite  # told at the next log step, which may be later
    _clip(player, gradients, norm, finite)
    for group in player.optimizer.param_groups:
        group["lr"] = group["base_learning_rate"] * learning_rate_scale
    _step(player, terms, finite)
    player.optimizer.zero_grad(set_to_none=True)
    player.num_updates += 1
    return {f"{player.name}/gradient_norm": norm.detach(), f"{player.name}/non_finite": player.non_finite}


def _norm(gradients: list[Tensor]) -> Tensor:
    """Norm of all gradients together, a scalar; 0 without any."""
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def _finite(norm: Tensor, terms: Terms, world: World) -> Tensor | Literal[True]:
    """Whether gradient and costs are finite on every rank; a sum is finite where each number is."""
    if norm.device.type == "cpu" and world.size == 1 and math.isfinite(sum(map(float, terms.costs.values()), float(norm))):
        return True
    finite = torch.isfinite(torch.stack([norm.detach(), *terms.costs.values()]).sum())
    return finite if world.size == 1 else world.total((~finite).double()) == 0


def _step(player: Player, terms: Terms, finite: Tensor | Literal[True]) -> None:
    if finite is True or finite.device.type == "cpu" or player.settings.optimizer == "rmsprop":
        if not finite:
            player.optimizer.zero_grad(set_to_none=True)
            raise diverged(player.name, terms.costs)
    else:
        player.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]  # fused kernels skip on the device
    player.optimizer.step()


def diverged(player: str, costs: dict[str, Tensor]) -> DivergedError:
    """The error for a non-finite update, naming player, term and remedy."""
    bad = [name for name, cost in costs.items() if not torch.isfinite(cost)]
    what = f"{' and '.join(bad)} is not finite" if bad else f"the gradient of {' + '.join(costs)} is not finite"
    return DivergedError(
        f"{player}: {what}; the update was not applied and weights are as before it. Remedy: {REMEDY.format(player)}"
    )


def _clip(player: Player, gradients: list[Tensor], norm: Tensor, finite: Tensor | Literal[True]) -> None:
    clip = player.settings.clip
    if clip.kind == "none":
        return
    if clip.kind == "value":
        torch.nn.utils.clip_grad_value_(player.parameters, clip.limit)
        return
    limit: Tensor | float = clip.limit
    if clip.kind == "quantile":
        slot = player.num_updates % CLIP_HISTORY
        usable = torch.isfinite(norm) if finite is True else finite
        player.norms[slot] = torch.where(usable, norm.to(player.norms.dtype), player.norms[slot])
        limit = torch.nanquantile(player.norms, clip.limit).nan_to_num(torch.inf)
    torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1.0).to(norm.dtype))
