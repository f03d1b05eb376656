"""Saved weights, compared with the network that is to have them before they are used."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from advgen.errors import CheckpointError, GenError
from advgen.reading import told
from advgen.tensor_files import Size, Sizes, TensorFile, open_file, sizes_of

SAVED_TYPES = (torch.float32, torch.float64)
"""Types that weights are trained in; each may be read as the other."""
MOST_NAMED = 3
SPARE_BYTES = 256 * 2**20
"""Memory of a network for tables that are not in its file, such as windows of transforms."""
MOST_TIMES = 16
"""How many times the bytes of its file making a network may ask for, what is thrown away at once included."""
SPARE_TENSORS = 2_000
"""Tensors of a network that are not in its file: each layer without weights takes kilobytes of Python objects."""


class UnfitError(CheckpointError):
    """A whole file whose tensors are not those that are needed."""


def load_network(network: nn.Module, tensors: Mapping[str, Tensor], who: str, *, refreshed: bool = False) -> None:
    """Load weights that must fit exactly.

    Args:
        refreshed: statistics of BatchNorm may be anything, since they are estimated again or not used.

    Raises:
        UnfitError: naming the tensors that are missing, surplus, of another type or shape, or not finite.
    """
    path = getattr(tensors, "path", None)
    who = f"{path}: the {who}" if path is not None else who
    require_sizes(needed_by(network), sizes_of(tensors), who)
    if fault := values_fault(network, tensors, refreshed=refreshed):
        raise UnfitError(f"{who} cannot be used: {fault}; use an earlier checkpoint, or fetch the file again")
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:  # a layer that loads by itself misses something
        raise UnfitError(f"{who} does not fit the checkpoint: {' '.join(str(error).split())[:400]}") from error


def load_weights(network: nn.Module, path: Path, who: str) -> None:
    """Load a safetensors file into a network; nothing of it is read if its header does not fit.

    Raises:
        UnfitError: naming the file and the tensors that do not fit, or the reason why it cannot be read.
    """
    try:
        with open_file(path) as handle:
            file = TensorFile(path, handle)
            require_sizes(needed_by(network), file.sizes, f"{path}: {who}")
            tensors = file.read()
    except (OSError, ValueError) as error:
        raise UnfitError(f"{path} cannot be read ({reason(error)})") from error
    load_network(network, tensors, who)


def load_cached_weights(network: nn.Module, path: Path, who: str) -> bool:
    """Load weights that an earlier run has kept in the cache.

    Returns:
        True if they were loaded. False if there are none, or, with a warning, if they do not fit: the caller trains again.
    """
    if not path.is_file():
        return False
    try:
        load_weights(network, path, who)
    except GenError as error:
        logging.getLogger("advgen").warning("%s is trained again: %s", who, error)
        return False
    return True


def take_matching(network: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Load what has the same name and shape; return the names taken and left.

    Raises:
        UnfitError: naming tensors that would fit, but are of another type or not finite.
    """
    own, path = network.state_dict(), getattr(tensors, "path", None)
    fitting = {name: tensor for name, tensor in tensors.items() if name in own and own[name].shape == tensor.shape}
    needed = {name: size for name, size in sizes_of(own).items() if name in fitting}
    require_sizes(Needed(needed), sizes_of(fitting), str(path or "the source"))
    if fault := values_fault(network, fitting, refreshed=True):
        raise UnfitError(f"{path or 'the source'} cannot be used: {fault}; use an earlier checkpoint, or fetch it again")
    network.load_state_dict({**own, **fitting})
    return sorted(fitting), sorted(set(own) - set(fitting))


@dataclass(frozen=True)
class Needed:
    """The tensors that a network has, and the names of those that may be missing."""

    sizes: Sizes
    optional: Collection[str] = ()


def needed_by(network: nn.Module) -> Needed:
    """Return what a network has; layers with a way of their own to load decide themselves about what is missing."""
    optional = set[str]()
    for prefix, layer in network.named_modules():
        if type(layer)._load_from_state_dict is not nn.Module._load_from_state_dict:
            own = (*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False))
            optional |= {f"{prefix}.{name}" if prefix else name for name, _ in own}
    return Needed(sizes_of(network.state_dict()), optional)


def require_sizes(needed: Needed, found: Sizes, who: str) -> None:
    """Refuse tensors that differ from those that a network has.

    Raises:
        UnfitError: naming the first of each kind of difference.
    """
    both = {name: (size, found[name]) for name, size in needed.sizes.items() if name in found}
    wrong = [f"{told(name)} is {came}, expected {size}" for name, (size, came) in both.items() if not _fits(came, size)]
    faults = [
        some("missing", [told(name) for name in needed.sizes if name not in found and name not in needed.optional]),
        some("not known", [told(name) for name in found if name not in needed.sizes]),
        some("of another shape or type", wrong),
    ]
    if any(faults):
        raise UnfitError(f"{who} does not fit the checkpoint: {'; '.join(filter(None, faults))}")


def some(what: str, names: list[str]) -> str:
    """Return ``what`` with the first of some names; nothing if there are none."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{what}: {', '.join(names[:MOST_NAMED])}{more}" if names else ""


def _fits(saved: Size, own: Size) -> bool:
    alike = saved.dtype is own.dtype or (saved.dtype in SAVED_TYPES and own.dtype in SAVED_TYPES)
    return alike and saved.shape == own.shape


def values_fault(network: nn.Module, tensors: Mapping[str, Tensor], *, refreshed: bool = False) -> str:
    """Find the first tensor that is not finite where the network's own is, or whose variance is negative."""
    own, statistics = network.state_dict(), set(_statistics(network))
    for name, tensor in tensors.items():
        if refreshed and name in statistics:
            continue
        if fault := value_fault(tensor.to(own[name].dtype), own[name]):
            return f"{told(name)} holds {fault}"
        if name in statistics and name.endswith("running_var") and bool((tensor < 0).any()):
            return f"{told(name)} holds {float(tensor.min()):g}, expected variances of at least 0"
    return ""


def value_fault(tensor: Tensor, like: Tensor | None = None) -> str:
    """Find a value that is not finite; ``like`` may have the same ones, as masks have."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or finite(tensor):
        return ""
    bad = ~torch.isfinite(tensor)
    if like is not None:
        like = like.to(tensor.device)
        bad &= ~((tensor == like) | (tensor.isnan() & like.isnan()))
    if not (num_bad := int(bad.sum())):
        return ""
    numbers = "number" if num_bad == 1 else "numbers"
    return f"{num_bad} {numbers} that {'is' if num_bad == 1 else 'are'} not finite, such as {tensor[bad][0].item()}"


def finite(tensor: Tensor) -> bool:
    """Whether all values are finite. Zero times a number that is not finite is NaN, and so is a sum with it."""
    return bool(torch.isfinite((tensor.detach() * 0).sum()))


def _statistics(network: nn.Module) -> Iterator[str]:
    """Names of BatchNorm's running means and variances."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            prefix = f"{name}." if name else ""
            yield from (f"{prefix}running_mean", f"{prefix}running_var")


class Allowance(TorchDispatchMode):
    """Adds up the memory of new tensors inside the block, and refuses more than is allowed.

    Raises:
        AllowanceError: before memory of an ``empty`` tensor is touched, or at once on the meta device.
    """

    def __init__(self, found: Sizes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it out
        self.most_bytes = MOST_TIMES * sum(size.num_bytes for size in found.values()) + SPARE_BYTES
        self.most_tensors = MOST_TIMES * len(found) + SPARE_TENSORS
        self.num_bytes = self.num_tensors = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(kwargs or {})
        before = {each.untyped_storage()._cdata for each in tree_leaves((args, given)) if _strided(each)}
        if not before and given.get("device") is not None:  # makes a tensor of numbers: how large it is costs nothing
            self._count(function(*args, **{**given, "device": torch.device("meta"), "pin_memory": False}), before)
            return function(*args, **given)
        result = function(*args, **given)
        self._count(result, before)
        return result

    def _count(self, made: Any, before: set[int]) -> None:
        for each in tree_leaves(made):
            if _strided(each) and each.untyped_storage()._cdata not in before:
                self.num_bytes += each.untyped_storage().nbytes()
                self.num_tensors += 1
        if self.num_bytes > self.most_bytes or self.num_tensors > self.most_tensors:
            raise AllowanceError


class AllowanceError(Exception):
    """More memory than is allowed."""


def _strided(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided


def require_room(make: Callable[[], nn.Module], found: Sizes, who: str) -> None:
    """Refuse to make a network that is not the one of a file, before any memory is taken for it.

    Args:
        make: makes the network. It is called on the meta device, where tensors have no values.
        found: the tensors of the file.

    Raises:
        UnfitError: naming differences, or if the network would be far larger than the file.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            require_sizes(_needed(make, found), found, who)
    except AllowanceError as error:
        num_bytes = sum(size.num_bytes for size in found.values())
        raise UnfitError(
            f"{who} does not fit the checkpoint: the network that facts and configuration describe is far larger than its "
            f"{len(found)} tensors of {num_bytes:,} bytes"
        ) from error


def _needed(make: Callable[[], nn.Module], found: Sizes) -> Needed:
    try:
        with torch.device("meta"), Allowance(found):
            return needed_by(make())
    except (AllowanceError, GenError):
        raise
    except Exception:  # networks that look at values while they are made cannot be made without values
        with Allowance(found):
            return needed_by(make())


def reason(error: Exception) -> str:
    """Say in one line why something failed."""
    said = " ".join(str(error).split())
    return said if isinstance(error, ValueError | OSError | GenError) and said else f"{type(error).__name__}: {said}"
