"""The processes of a run: one by default, several under torchrun."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from advgen.errors import ConfigError


@dataclass(frozen=True)
class World:
    """This process's place among ``size`` ranks, and its device."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """True on the one rank that writes."""
        return self.rank == 0

    @property
    def own_key(self) -> tuple[str | int, ...]:
        """What keeps this rank's draws inside networks (augmentation, dropout) apart; the first draws as one process."""
        return () if self.leads else ("rank", self.rank)

    def average_gradients(self, parameters: list[torch.nn.Parameter]) -> None:
        """One all-reduce over all gradients; a missing gradient counts as zero on every rank alike."""
        if self.size == 1:
            return
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for parameter, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            own = piece.view_as(parameter)
            # Fused updates walk through parameter and gradient side by side, so both lie in one order of memory.
            parameter.grad = own if parameter.is_contiguous() else torch.empty_like(parameter).copy_(own)

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over ranks; gradients flow to every rank's part."""
        if self.size == 1:
            return tensor
        summed: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
        return summed

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate along the first axis over ranks, without gradient."""
        if self.size == 1:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    def agree(self, value: float) -> float:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(box, 0)
        return float(box.item())

    def any(self, flag: bool) -> bool:
        """True if it is true on one rank at least."""
        if self.size == 1:
            return flag
        box = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(box, op=dist.ReduceOp.MAX)
        return bool(box.item())

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            dist.barrier()


class _Sum(torch.autograd.Function):
    """All-reduce whose backward is an all-reduce: each rank's input reached every rank's loss."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def pick_device(name: str) -> torch.device:
    """``auto`` is the first GPU where there is one.

    Raises:
        ConfigError: for a device that torch cannot use here.
    """
    if name == "auto":
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try --device cpu") from error
    return device


def join_world(device: str) -> World:
    """Join the ranks that torchrun started; alone without it."""
    chosen = pick_device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(0, 1, chosen)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return World(dist.get_rank(), size, chosen)
