"""Shipping a trained generator: as an ONNX file, or as a folder in Hugging Face layout that advgen loads again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advgen.errors import ConfigError, nearest

if TYPE_CHECKING:
    from advgen.sampling import LoadedRun

LICENCE_NOT_STATED = "unknown"


@dataclass(frozen=True)
class ExportRequest:
    """What is asked for.

    Args:
        target: the file or folder to make.
        licence: of the model, for its card.
        tolerance: largest difference from eager that a checked file may have.
        intended_use: what the model is for, for its card; empty: the plugin's text.
    """

    target: Path
    licence: str = LICENCE_NOT_STATED
    tolerance: float = 1e-4
    intended_use: str = ""


@dataclass(frozen=True)
class ExportResult:
    """What was made; ``about`` has what the format tells of it."""

    run: Path
    step: int
    kind: str
    path: Path
    files: list[Path]
    about: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        names = {"run": str(self.run), "path": str(self.path), "files": [str(file) for file in self.files]}
        return {**names, "step": self.step, "format": self.kind, **self.about}


def export_run(
    run: Path | str,
    kind: str,
    out: Path | str | None = None,
    *,
    licence: str | None = None,
    tolerance: float = 1e-4,
    step: int | None = None,
    device: str = "cpu",
    plugin: str | None = None,
    intended_use: str | None = None,
) -> ExportResult:
    """Write a run's generator (its average, where it keeps one) in a format for use elsewhere.

    Args:
        kind: ``onnx`` or ``huggingface``.
        out: the file or folder to make; None: below ``export/`` in the run.
        licence: of the model, for its card; None: not stated.
        intended_use: what the model is for, for its card; None: the plugin's text.

    Raises:
        GenError: the format is unknown, the target exists, a package is missing, the run has no whole checkpoint, or its
            generator cannot be exported.
    """
    from advgen.sampling import load_run

    write, name = _format(kind)
    target = Path(out) if out is not None else Path(run) / "export" / (name or Path(run).resolve().name)
    for made in (target, *([target.with_suffix(".json")] if kind == "onnx" else [])):
        if made.exists():
            raise ConfigError(f"{made} exists; remove it, or choose another place with --out")
    if tolerance <= 0:
        raise ConfigError(f"--tolerance {tolerance}: expected a number above 0")
    loaded = load_run(run, device, plugin, step)
    loaded.generator.requires_grad_(False)
    return write(loaded, ExportRequest(target, licence or LICENCE_NOT_STATED, tolerance, intended_use or ""))


def _format(kind: str) -> tuple[Callable[[LoadedRun, ExportRequest], ExportResult], str]:
    """What writes a format, and the usual name of the result; empty: the run's."""
    if kind == "onnx":
        from advgen.export.onnx_file import check_packages, write_onnx

        check_packages()
        return write_onnx, "generator.onnx"
    if kind == "huggingface":
        from advgen.export.folder import write_folder

        return write_folder, ""
    raise ConfigError(f"--format {kind}: unknown; {nearest(kind, ('onnx', 'huggingface'))}")
