"""How a run ended: kept in run.json, and told to whoever uses a run that diverged. Imports no torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from advgen.errors import CheckpointError, DivergedError
from advgen.runs.folder import RunFolder, saved_steps


def note_start(folder: RunFolder) -> None:
    """Forget the end of the sitting before; that it diverged is kept until one ends well."""
    folder.write_json("run.json", folder.read_json("run.json") | {"ended": None})


def note_end(folder: RunFolder, reason: str, *, as_planned: bool = True) -> None:
    """Remember how a sitting ended; one that went on ``as_planned`` after a divergence has overcome it."""
    about = folder.read_json("run.json") | {"ended": reason}
    folder.write_json("run.json", {name: value for name, value in about.items() if name != "diverged" or not as_planned})


def note_failure(folder: RunFolder, step: int, error: BaseException) -> None:
    """Remember what cut a sitting short at a step, where the disk still takes it."""
    noted: dict[str, Any] = {"ended": f"failed at step {step}: {error}"}
    if isinstance(error, DivergedError):
        noted = {"ended": f"diverged at step {step}", "diverged": {"step": step, "why": str(error)}}
    elif isinstance(error, KeyboardInterrupt):
        noted = {"ended": f"interrupted at step {step}"}
    with contextlib.suppress(CheckpointError):
        folder.write_json("run.json", folder.read_json("run.json") | noted)


def warning_of_divergence(run: Path | str, way: str = "--step {step} takes {it}") -> str | None:
    """One line about a run whose last sitting diverged, with the checkpoint to use instead; None for any other.

    Args:
        way: how the reader's command takes another checkpoint: ``{it}``, of step ``{step}``.
    """
    folder = RunFolder.existing(run)
    diverged = folder.read_json("run.json").get("diverged")
    if not diverged:
        return None
    if type(diverged.get("step")) is not int:
        raise CheckpointError(f"{folder.path / 'run.json'}: diverged has no step; the run folder is damaged")
    told = f"warning: {folder.path} diverged at step {diverged['step']}, so its newest weights may be useless"
    found = _earlier(folder, diverged["step"])
    if found is None:
        return f"{told}; no earlier checkpoint is left to use: gen runs show {folder.path} tells the remedy"
    step, it = found
    return f"{told}; " + way.replace("{step}", str(step)).replace("{it}", it)


def _earlier(folder: RunFolder, diverged: int) -> tuple[int, str] | None:
    """The best checkpoint by the validation metric, else the newest before the divergence, in words."""
    steps = saved_steps(folder.checkpoints)
    best = folder.best()
    if best is not None and best["step"] in steps:
        return best["step"], f"its best checkpoint ({best['metric']} {best['value']:.4g})"
    before = [step for step in steps if 0 < step < diverged]
    return (before[-1], "the checkpoint before that") if before else None
