"""The processes of a run: one by default, several under torchrun."""

from __future__ import annotations

import os
import re
import warnings
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from advgen.errors import ConfigError, nearest

DEVICES = ("auto", "cpu", "cuda")


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
    """Return the device with a name: ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` is the first CUDA GPU, else the CPU.

    Raises:
        ConfigError: if the device is unknown, not supported, or not usable here.
    """
    if name == "auto":
        rank = os.environ.get("LOCAL_RANK", "0")
        return _gpu(f"cuda:{rank}", int(rank)) if torch.cuda.is_available() else torch.device("cpu")
    found = re.fullmatch(r"(cpu|cuda)(?::(\d+))?", name)
    if found is None:
        raise ConfigError(f"device {name!r} {_refusal(name.partition(':')[0])}; use --device cpu")
    return torch.device("cpu") if found[1] == "cpu" else _gpu(name, None if found[2] is None else int(found[2]))


def _refusal(kind: str) -> str:
    """Return the reason to refuse a device that is neither a CPU nor a CUDA GPU."""
    if kind == "mps":
        return "is Apple's GPU, which is not supported: it lacks double precision, and is untested"
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of names that it no longer uses
            torch.device(kind)
    except RuntimeError:
        close = "did you mean 'cuda'? known: auto, cpu, cuda, cuda:N" if kind in ("gpu", "nvidia") else nearest(kind, DEVICES)
        return f"is unknown; {close}"
    if kind in ("cpu", "cuda"):
        return f"is not a device; expected {kind}, or {kind}:N such as {kind}:0"
    return f"is not supported, though torch knows it; expected one of {', '.join(DEVICES)}"


def _gpu(name: str, index: int | None) -> torch.device:
    """Return a CUDA GPU.

    Raises:
        ConfigError: if it does not exist, or cannot be used.
    """
    if not torch.backends.cuda.is_built():
        raise ConfigError(f"device {name!r}: this torch was built without CUDA; install one with it, or use --device cpu")
    if not torch.cuda.is_available():
        raise ConfigError(f"device {name!r}: torch finds no CUDA GPU or no driver for it here; use --device cpu")
    count = torch.cuda.device_count()
    if index is not None and index >= count:
        there = "one GPU, cuda:0" if count == 1 else f"{count} GPUs, cuda:0 to cuda:{count - 1}"
        raise ConfigError(f"device {name!r}: this GPU does not exist here; found {there}; use one of these, or --device cpu")
    device = torch.device("cuda", index) if index is not None else torch.device("cuda")
    try:
        torch.empty(0, device=device)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); use --device cpu") from error
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
