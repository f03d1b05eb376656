"""Copies between main memory and a device, in the precision of a network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def float_type(network: nn.Module) -> torch.dtype:
    """Return a network's precision, taken from its first float parameter; frozen tables may hold integers."""
    kinds = (parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    return next(kinds, torch.get_default_dtype())


def to_device(tensor: Tensor, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor on a device, in another type where one is given; no copy when it is there already.

    To a GPU by way of page-locked memory, so that nobody waits for the copy. From one, the call waits: memory that can be read
    before the copy has come would hold anything.
    """
    target = torch.device(device)
    tensor = tensor if dtype is None else tensor.to(dtype)
    if target.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(target, non_blocking=True)
    return tensor.to(target)
