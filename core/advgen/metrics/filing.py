"""Reports as files of a run: the newest under its name, those under other protocols beside it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from advgen.errors import GenError
from advgen.files import drafted, replace_file
from advgen.reading import read_json

Report = Mapping[str, Any]


def keep_report(report: Report, path: Path, chosen: Callable[[Report], Any]) -> None:
    """Write the newest report; an earlier one under another protocol moves beside it, and under the same one goes.

    Args:
        path: where the newest is; an earlier one stays as ``STEM-DIGEST.json``.
        chosen: what of a report was chosen, not measured.

    Raises:
        GenError: where the file cannot be written.
    """
    own, earlier = _beside(path, chosen(report)), None
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # none there, or none that can be read
        earlier = _beside(path, chosen(read_json(path, not_finite=True)))
    _write(report, path, earlier if earlier != own else None)
    own.unlink(missing_ok=True)


def chosen_protocol(report: Report) -> dict[str, Any]:
    """A report's protocol without the judge's accuracy, which is measured."""
    return {name: value for name, value in report["protocol"].items() if name != "judge_accuracy"}


def _beside(path: Path, chosen: Any) -> Path:
    """Where a report stays once another protocol's takes its place."""
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]
    return path.with_stem(f"{path.stem}-{digest}")


def _write(report: Report, path: Path, earlier: Path | None) -> None:
    """Replace the file at once, so that a full disk leaves the old one; what was there moves to ``earlier``, where given."""
    try:
        with drafted(path) as draft:
            draft.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8", newline="\n")
            if earlier is not None:
                replace_file(path, earlier)
    except OSError as error:
        raise GenError(
            f"{path} cannot be written: {error.strerror or error}; free space or make the folder writable"
        ) from error
