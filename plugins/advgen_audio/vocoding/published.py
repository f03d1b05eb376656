"""Tensors under their published names, matched with networks of this plugin that have the same layers.

Source: Kong et al. 2020, https://arxiv.org/abs/2010.05646 and https://github.com/jik876/hifi-gan
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advgen import DataError

# Weight norm's and spectral norm's parts: published name, and that of torch's parametrization.
PARTS = {
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
    ".weight_orig": ".parametrizations.weight.original",
}
# The vectors of spectral norm's power iteration; the second one is named as weight norm's direction is.
VECTORS = {".weight_u": ".parametrizations.weight.0._u", ".weight_v": ".parametrizations.weight.0._v"}
MOST_NAMED = 5


def published_name(name: str) -> str:
    """What a tensor of a network of this plugin is called in published checkpoints."""
    for published, own in (*PARTS.items(), *VECTORS.items()):
        if name.endswith(own):
            return name.removesuffix(own) + published
    return name


def fitting(published: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str, what: str) -> dict[str, Tensor]:
    """Published tensors by the names of a network's state, as float32.

    Args:
        published: by published name.
        own: the network's tensors, by its names without what stands before those of the published network.
        where: the file, for refusals.
        what: that the tensors have to fit.

    Raises:
        DataError: naming, as published, those that are missing, unknown, of another shape, or not finite.
    """
    names = {published_name(name): name for name in own}
    tensors = dict(_with_weight_norm(published, names))
    wanted = {name: tuple(own[mine].shape) for name, mine in names.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [f"{n} is {shapes[n]}, expected {wanted[n]}" for n in sorted(wanted.keys() & shapes) if shapes[n] != wanted[n]]
    problems = [
        _some("missing", sorted(wanted.keys() - shapes)),
        _some("not known", sorted(shapes.keys() - wanted)),
        _some("of another shape", wrong),
    ]
    if any(problems):
        raise DataError(f"{where} does not fit {what}: {'; '.join(filter(None, problems))}")
    if odd := [f"{name} is {tensor.dtype}" for name, tensor in tensors.items() if not tensor.dtype.is_floating_point]:
        raise DataError(f"{where}: {_some('of another type than numbers with a point', odd)}")
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor.float()).all())]
    if bad:
        raise DataError(f"{where}: {_some('not finite', bad)}")
    return {names[name]: tensor.float() for name, tensor in tensors.items()}


def _some(what: str, names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{what}: {', '.join(names[:MOST_NAMED])}{more}" if names else ""


def _with_weight_norm(published: Mapping[str, Tensor], names: Mapping[str, str]) -> Mapping[str, Tensor]:
    """Weights that were saved without weight norm, split into length and direction as the others are."""
    found = dict[str, Tensor]()
    for name, tensor in published.items():
        if name.endswith(".weight") and f"{name}_g" in names and tensor.dim() >= 3:
            length = tensor.flatten(1).norm(dim=1).reshape(-1, *(1,) * (tensor.dim() - 1))
            found |= {f"{name}_g": length, f"{name}_v": tensor}
        else:
            found[name] = tensor
    return found
