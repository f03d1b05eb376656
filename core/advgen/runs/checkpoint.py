"""Checkpoints: safetensors and one JSON manifest with hashes, written whole or not at all. No pickle."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from advgen.errors import CheckpointError
from advgen.files import file_sha256, replace_file, sync_file, sync_folder
from advgen.reading import read_json, told
from advgen.runs.folder import saved_steps
from advgen.tensor_files import Sizes, Stored, TensorFile, open_file, sizes_of
from advgen.weights import SAVED_TYPES, UnfitError, reason, value_fault

SCHEMA = 1
MOST_PARTS = 100
MOST_STEPS = 10**12
NEVER_NEGATIVE = ("step", "exp_avg_sq", "max_exp_avg_sq", "square_avg")
OTHER_PLUGIN = "the plugin trained other parameters when it was saved: use the plugin version that made the run"
Tensors = dict[str, Tensor]
Chosen = Mapping[str, Collection[str] | None]
Check = Callable[[Mapping[str, TensorFile]], Chosen]
"""Map the parts of a checkpoint, with types and shapes, to the tensor names to read from each needed part; None: all.
Raise if a part does not fit, before tensors are read."""


def save(folder: Path, step: int, parts: Mapping[str, Tensors], facts: Mapping[str, Any]) -> Path:
    """Write ``folder/step-<step>``: one safetensors file per part, then the manifest, then rename.

    Raises:
        CheckpointError: where the disk is full or not writable; what was saved before is untouched.
    """
    target, temporary = folder / f"step-{step:08d}", folder / f".tmp-{step:08d}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process with the same process id
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


def load(folder: Path, step: int, check: Check | None = None) -> tuple[dict[str, Stored], dict[str, Any]]:
    """Read parts and manifest of one checkpoint, every file checked against its hash.

    Args:
        check: compares types and shapes first, and chooses the tensors to read; None reads all.

    Raises:
        CheckpointError: naming the damaged file.
        UnfitError: if the checkpoint is whole but ``check`` refuses it.
    """
    path = folder / f"step-{step:08d}"
    try:
        manifest = read_json(path / "manifest.json")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path} cannot be read ({reason(error)})") from error
    if fault := _manifest_fault(manifest, step):
        raise CheckpointError(f"checkpoint {path} cannot be read (manifest.json: {fault})")
    with contextlib.ExitStack() as opened:
        files = {name: _open_part(path / f"{name}.safetensors", about, opened) for name, about in manifest["files"].items()}
        chosen: Chosen = dict.fromkeys(files) if check is None else check(files)
        try:
            return {name: files[name].read(names) for name, names in chosen.items()}, manifest
        except (OSError, ValueError) as error:
            raise CheckpointError(f"checkpoint {path} cannot be read ({reason(error)})") from error


def _manifest_fault(manifest: Mapping[str, Any], step: int) -> str:
    """Find a missing or malformed entry of a manifest."""
    if manifest.get("schema") != SCHEMA:
        return f"it has schema {told(manifest.get('schema'))}, this advgen reads {SCHEMA}"
    if type(manifest.get("step")) is not int or manifest["step"] != step:
        return f"its step is {told(manifest.get('step'))}, expected {step} as in the folder's name"
    files = manifest.get("files")
    if not isinstance(files, dict) or not 0 < len(files) <= MOST_PARTS:
        return f"its files are {told(files)}, expected a table of names"
    for name, about in files.items():
        if not re.fullmatch(r"\w{1,100}", name, re.ASCII):
            return f"it names the file {told(name)!r}, expected letters, digits and underscores"
        if not isinstance(about, dict) or not isinstance(about.get("sha256"), str):
            return f"files.{name} is {told(about)}, expected a table with sha256 and bytes"
        if type(about.get("bytes")) is not int:
            return f"files.{name}.bytes is {told(about.get('bytes'))}, expected a number of bytes"
    return ""


def _open_part(path: Path, about: Mapping[str, Any], opened: contextlib.ExitStack) -> TensorFile:
    """Open a part and check it against the manifest. It stays open, as another process may remove its folder meanwhile."""
    if not path.is_file():
        raise CheckpointError(f"checkpoint file {path} is missing")
    try:
        handle = opened.enter_context(open_file(path))
        if (num_bytes := os.fstat(handle.fileno()).st_size) != about["bytes"]:
            raise CheckpointError(f"checkpoint file {path} is damaged: it has {num_bytes} bytes, the manifest {about['bytes']}")
        if hashlib.file_digest(handle, "sha256").hexdigest() != about["sha256"]:
            raise CheckpointError(f"checkpoint file {path} is damaged: its sha256 is not the manifest's")
        handle.seek(0)
        return TensorFile(path, handle)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint file {path} cannot be read ({reason(error)})") from error


def load_newest(folder: Path, check: Check | None = None) -> tuple[dict[str, Stored], dict[str, Any], list[str]]:
    """Read the newest whole checkpoint; also return the damage found in newer ones.

    Raises:
        CheckpointError: if none is whole.
        UnfitError: if ``check`` refuses the newest whole one.
    """
    problems: list[str] = []
    for step in reversed(steps(folder)):
        try:
            return *load(folder, step, check), problems
        except UnfitError:
            raise
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError(f"no whole checkpoint in {folder}; {'; '.join(problems) or 'none was saved'}")


def load_chosen(
    folder: Path, step: int | None, check: Check | None = None
) -> tuple[dict[str, Stored], dict[str, Any], list[str]]:
    """Read the checkpoint of a step, or the newest one if the step is None.

    Raises:
        CheckpointError: if it is damaged, or missing; then the message lists the saved steps.
    """
    if step is None:
        return load_newest(folder, check)
    if step not in steps(folder):
        saved = ", ".join(map(str, steps(folder))) or "none"
        raise CheckpointError(f"{folder.parent} has no checkpoint of step {step}; saved: {saved}")
    return *load(folder, step, check), []


def rotate(folder: Path, keep: int, spare: set[int]) -> None:
    """Keep the newest ``keep`` checkpoints and those in ``spare``; sweep half-written ones."""
    for step in steps(folder)[:-keep]:
        if step not in spare:
            with contextlib.suppress(OSError):  # on Windows it stays, whole, while another process reads it
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


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors, who: str, *, updated: bool = False) -> None:
    """Restore the state saved by ``pack_optimizer``, in each parameter's memory format; groups stay as configured.

    Args:
        who: name of the optimizer in refusals.
        updated: True if it has taken updates and so must have a state, if its kind keeps one.

    Raises:
        UnfitError: if other parameters train now, or a value is missing, unknown, of another type or impossible.
    """
    if fault := optimizer_fault(optimizer, sizes_of(tensors), updated=updated) or _state_fault(tensors):
        raise UnfitError(f"{who} does not fit the checkpoint: {fault}")
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, value in tensors.items():
        index, own = name.split(".", 1)
        like = parameters[int(index)]
        # Fused updates walk through a parameter and its state side by side.
        ordered = torch.empty_like(like, dtype=value.dtype, device="cpu").copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[own] = ordered
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def optimizer_fault(optimizer: torch.optim.Optimizer, sizes: Sizes, *, updated: bool = False) -> str:
    """Find entries of an optimizer's state that do not match its parameters, by name, type and shape."""
    parameters, kept = [each for group in optimizer.param_groups for each in group["params"]], _kept_by(optimizer)
    found: dict[int, set[str]] = {}
    for name, size in sizes.items():
        index, _, own = name.partition(".")
        if not re.fullmatch(r"0|[1-9]\d{0,8}", index, re.ASCII) or int(index) >= len(parameters):
            return f"{told(name)} belongs to none of the {len(parameters)} parameters that train; {OTHER_PLUGIN}"
        if own not in kept:
            return f"{told(name)} is not known, expected {' and '.join(kept) or 'nothing'} of {type(optimizer).__name__}"
        like = parameters[int(index)]
        scalar, types = kept[own]
        shape = () if scalar else tuple(like.shape)
        if size.shape != shape or size.dtype not in types:
            expected = f"{str(like.dtype if not scalar else torch.float32).removeprefix('torch.')} {shape}"
            return f"{name} is {size}, expected {expected}; {OTHER_PLUGIN}"
        found.setdefault(int(index), set()).add(own)
    for number, names in found.items():
        if missing := [own for own in kept if own not in names]:
            return f"{number}.{missing[0]} is missing"
    return "its state is missing" if updated and kept and not found else ""


def _kept_by(optimizer: torch.optim.Optimizer) -> dict[str, tuple[bool, tuple[torch.dtype, ...]]]:
    """List the state that this kind of optimizer keeps per parameter: by name, a scalar or not, and its types.

    They are found by one update of a parameter with a single number.
    """
    group = {name: value for name, value in optimizer.param_groups[0].items() if name != "params"}
    trial = torch.nn.Parameter(torch.zeros(1, 1))
    trial.grad = torch.ones(1, 1)
    kind: Any = type(optimizer)
    known = inspect.signature(kind).parameters
    small = kind([trial], **{name: value for name, value in group.items() if name in known})
    small.step()
    kept = {name: value for name, value in small.state[trial].items() if isinstance(value, Tensor)}
    return {name: (value.dim() == 0, SAVED_TYPES) for name, value in kept.items()}


def _state_fault(tensors: Tensors) -> str:
    """Find values in an optimizer's state that no update can produce."""
    for name, value in tensors.items():
        if fault := value_fault(value):
            return f"{name} holds {fault}"
        if name.partition(".")[2] in NEVER_NEGATIVE and bool((value < 0).any()):
            return f"{name} holds {float(value.min()):g}, expected numbers of at least 0"
    return ""
