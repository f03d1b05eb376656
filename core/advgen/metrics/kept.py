"""A judge's views of real samples, kept in the cache: nothing but their content and the judge decides them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from advgen.contracts import Batch, Judge
from advgen.data.memory import content_hash
from advgen.files import keep_file
from advgen.metrics.judging import View, blocks_of, see
from advgen.reading import told
from advgen.tensor_files import read_tensors
from advgen.weights import reason, value_fault

VERSION = "1"
PARTS = ("seen", "logits", "recognised", "labels")


def content_of(blocks: Iterable[Batch]) -> str:
    """sha256 over prepared samples: values, masks and conditions, with their types and shapes."""
    digest = hashlib.sha256()
    for block in blocks:
        named = {"values": block.values, "mask": block.mask, **block.condition}
        for name, tensor in sorted((name, tensor) for name, tensor in named.items() if tensor is not None):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    raw: memoryview = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
    return raw


def view_of_real(judge: Judge, batch: Batch, cache: Path) -> View:
    """The judge's view of real samples, from the cache where it is there.

    A judge says by an ``identity`` what decides its features (weights, resizing); without one nothing is kept.
    """
    return _kept("whole", judge, lambda: iter(blocks_of(batch)), lambda: see(judge, batch), cache)


def pooled_features(judge: Judge, read: Callable[[], Iterator[Batch]], cache: Path) -> Tensor:
    """(M, F) float64 features of samples that are never all in memory; kept as well.

    Read twice where they are not there yet: what the samples hold is known only after the last of them.
    """

    def pooled() -> View:
        return View(torch.cat([see(judge, block).seen for block in read()]))

    return _kept("features", judge, read, pooled, cache).features


def _kept(what: str, judge: Judge, read: Callable[[], Iterator[Batch]], make: Callable[[], View], cache: Path) -> View:
    """What ``make`` makes, named by ``what`` it holds: the same samples may be kept whole and as features alone."""
    identity = getattr(judge, "identity", None)
    if identity is None:
        return make()
    parts = (VERSION, what, judge.name, str(identity), content_of(read()))
    key = content_hash([part.encode() for part in parts])
    file = cache / "features" / f"{key}.safetensors"
    view = _read(file)
    if view is None:
        view = make()
        _write(view, file)
    return view


def _read(file: Path) -> View | None:
    """What was kept; None where there is nothing, or nothing whole."""
    try:
        tensors = read_tensors(file)[0]
        if fault := _fault(tensors):
            raise ValueError(fault)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logging.getLogger("advgen").warning("features in %s are computed again: %s", file, reason(error))
        return None
    return View(**tensors)


def _fault(tensors: Mapping[str, Tensor]) -> str:
    """Find a fault of tensors that should be a view of samples."""
    if surplus := [name for name in tensors if name not in PARTS]:
        return f"{told(surplus[0])} is not known"
    if "seen" not in tensors or tensors["seen"].dim() < 2:
        return "it holds no features (N, ...)"
    for name, tensor in tensors.items():
        if len(tensor) != len(tensors["seen"]):
            return f"{name} has {len(tensor)} rows, seen {len(tensors['seen'])}"
        if tensor.is_floating_point() != (name in ("seen", "logits")):
            return f"{name} is of type {tensor.dtype}"
        if fault := value_fault(tensor):
            return f"{name} holds {fault}"
    return ""


def _write(view: View, file: Path) -> None:
    found = {name: getattr(view, name) for name in PARTS}
    keep_file(file, save({name: tensor.contiguous() for name, tensor in found.items() if tensor is not None}), "features")
