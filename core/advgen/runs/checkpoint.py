"""Checkpoints: safetensors and one JSON manifest with hashes, written whole or not at all. No pickle."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save_file
from torch import Tensor

from advgen.errors import CheckpointError
from advgen.files import file_sha256, replace_file, sync_file, sync_folder
from advgen.runs.folder import saved_steps

SCHEMA = 1
Tensors = dict[str, Tensor]


def save(folder: Path, step: int, parts: Mapping[str, Tensors], facts: Mapping[str, Any]) -> Path:
    """Write ``folder/step-<step>``: one safetensors file per part, then the manifest, then rename.

    Raises:
        CheckpointError: where the disk is full or not writable; what was saved before is untouched.
    """
    target, temporary = folder / f"step-{step:08d}", folder / f".tmp-{step:08d}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process that had the same number
        temporary.mkdir()
        files = {name: _write_part(temporary / f"{name}.safetensors", tensors) for name, tensors in parts.items()}
        manifest = {"schema": SCHEMA, "step": step, "files": files, **facts}
        text = json.dumps(manifest, indent=2, sort_keys=True)
        (temporary / "manifest.json").write_text(text, encoding="utf-8", newline="\n")
        sync_file(temporary / "manifest.json")
        if target.exists():
            shutil.rmtree(target)
        replace_file(temporary, target)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        way = "earlier checkpoints are untouched. Free space, then: gen resume"
        if not steps(folder):
            way = "nothing was saved. Free space or choose another --out, then start again"
        raise CheckpointError(f"checkpoint of step {step} could not be written to {folder} ({error}); {way}") from error
    return target


def _write_part(path: Path, tensors: Tensors) -> dict[str, Any]:
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, path)
    sync_file(path)
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}


def steps(folder: Path) -> list[int]:
    """Saved steps, oldest first."""
    return saved_steps(folder)


def load(folder: Path, step: int) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Parts and manifest of one checkpoint, every file checked against its hash.

    Raises:
        CheckpointError: naming the damaged file.
    """
    path = folder / f"step-{step:08d}"
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        if manifest["schema"] != SCHEMA:
            raise CheckpointError(f"{path} has schema {manifest['schema']}, this advgen reads {SCHEMA}")
        parts = {name: _read_part(path / f"{name}.safetensors", about) for name, about in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({error})") from error
    return parts, manifest


def _read_part(path: Path, about: Mapping[str, Any]) -> Tensors:
    if not path.is_file():
        raise CheckpointError(f"checkpoint file {path} is missing")
    content = path.read_bytes()  # not mapped: Windows neither renames nor deletes a file that is
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise CheckpointError(f"checkpoint file {path} is damaged: its sha256 is not the manifest's")
    try:
        tensors: Tensors = parse(content)
    except SafetensorError as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read ({error})") from error
    return tensors


def load_newest(folder: Path) -> tuple[dict[str, Tensors], dict[str, Any], list[str]]:
    """The newest checkpoint that is whole, and what was found damaged on the way to it.

    Raises:
        CheckpointError: where none is whole.
    """
    problems: list[str] = []
    for step in reversed(steps(folder)):
        try:
            return *load(folder, step), problems
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError(f"no whole checkpoint in {folder}; {'; '.join(problems) or 'none was saved'}")


def load_chosen(folder: Path, step: int | None) -> tuple[dict[str, Tensors], dict[str, Any], list[str]]:
    """The checkpoint of a step, or for None ``load_newest``.

    Raises:
        CheckpointError: where there is none of that step, with the saved ones, or it is damaged.
    """
    if step is None:
        return load_newest(folder)
    if step not in steps(folder):
        saved = ", ".join(map(str, steps(folder))) or "none"
        raise CheckpointError(f"{folder.parent} has no checkpoint of step {step}; saved: {saved}")
    return *load(folder, step), []


def rotate(folder: Path, keep: int, spare: set[int]) -> None:
    """Keep the newest ``keep`` checkpoints and those in ``spare``; sweep half-written ones."""
    for step in steps(folder)[:-keep]:
        if step not in spare:
            with contextlib.suppress(OSError):  # on Windows it stays, whole, while somebody reads it
                (folder / f"step-{step:08d}").rename(folder / f".tmp-{step:08d}-old")
    for leftover in folder.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def set_aside(folder: Path, step: int) -> None:
    """Rename checkpoints after ``step`` to ``damaged-...``: a run that went back to it must not count them as its own."""
    for later in [each for each in steps(folder) if each > step]:
        old, new = folder / f"step-{later:08d}", folder / f"damaged-step-{later:08d}"
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):  # not worth ending a run for
            old.rename(new)


def pack_optimizer(optimizer: torch.optim.Optimizer) -> Tensors:
    """An optimizer's state as named tensors: ``<parameter index>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, entry in state.items()
        for name, value in entry.items()
        if value is not None
    }


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put back what ``pack_optimizer`` took, each in its parameter's order of memory; groups stay as configured.

    Raises:
        CheckpointError: if other parameters train now.
    """
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        index, own = name.split(".", 1)
        like = parameters[int(index)] if int(index) < len(parameters) else None
        if like is None or value.shape not in ((), like.shape):
            raise CheckpointError(
                f"the optimizer's state of parameter {index} does not fit: the plugin trained other parameters then; "
                "use the version of the plugin that the run was made with"
            )
        # Fused updates walk through a parameter and its state side by side.
        ordered = torch.empty_like(like, dtype=value.dtype, device="cpu").copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[own] = ordered
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
