"""The run folder: what is where, and one writer at a time. Imports no torch."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from advgen.config.load import from_toml
from advgen.config.model import RunConfig
from advgen.errors import CheckpointError, ConfigError, nearest


class RunFolder:
    """Paths and small files of one run."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "log.txt"

    @classmethod
    def existing(cls, path: Path | str) -> RunFolder:
        """A run that is there.

        Raises:
            CheckpointError: where the folder is no run, with the runs beside it.
        """
        folder = cls(path)
        if not (folder.path / "run.json").is_file():
            around = [each["name"] for each in list_runs(folder.path.parent)]
            raise CheckpointError(f"{folder.path} is not a run folder (no run.json); {nearest(folder.path.name, around)}")
        return folder

    def create(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: where it already holds a run, or cannot be made.
        """
        if (self.path / "run.json").exists():
            raise ConfigError(f"{self.path} already holds a run; choose another --out, or go on with: gen resume {self.path}")
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.samples.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {self.path}: {error.strerror}; choose another --out") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the lock dies with the process.

        Raises:
            CheckpointError: where another process holds it.
        """
        with (self.path / ".lock").open("a+") as handle:
            if not _try_lock(handle.fileno()):
                handle.seek(0)
                owner = handle.read().strip() or "unknown"
                raise CheckpointError(f"{self.path} is in use by process {owner}; wait for it to end")
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            yield

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        write_text(self.path / name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file.

        Raises:
            CheckpointError: naming the file, where it is missing or damaged.
        """
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text())
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path / name} cannot be read ({error}); the run folder is damaged") from error
        return content

    def config(self) -> RunConfig:
        """The resolved configuration that the run was started with."""
        return from_toml((self.path / "config.toml").read_text())

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        with self.metrics.open("a") as handle:
            handle.write(json.dumps(row) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Drop rows after a step, so that a resumed run does not log it twice."""
        if self.metrics.exists():
            rows = [line for line in self.metrics.read_text().splitlines() if line and json.loads(line)["step"] <= step]
            write_text(self.metrics, "".join(row + "\n" for row in rows))

    def note(self, text: str) -> None:
        """Add a dated line to log.txt."""
        with self.log.open("a") as handle:
            handle.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows has no flock; there the second writer is not refused
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file, so a crash leaves the old content."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)


def environment() -> dict[str, str]:
    """Versions of everything that decides a number."""
    packages = ["advgen", "torch", "torchaudio", "numpy", "scipy", "safetensors", "tokenizers", "soundfile"]
    packages += ["pillow", "pluggy", "pydantic"]
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def list_runs(folder: Path | str = "runs") -> list[dict[str, Any]]:
    """Every run directly below a folder: name, plugin, last saved step."""
    root = Path(folder)
    if not root.is_dir():
        return []
    return [describe_run(path) for path in sorted(root.iterdir()) if (path / "run.json").is_file()]


def describe_run(run: Path | str) -> dict[str, Any]:
    """What a run is and how far it came."""
    folder = RunFolder.existing(run)
    about = folder.read_json("run.json")
    steps = sorted(int(path.name.split("-")[1]) for path in folder.checkpoints.glob("step-*") if path.is_dir())
    best = folder.path / "best.json"
    return {
        "name": folder.path.name,
        "path": str(folder.path),
        "plugin": about["plugin"],
        "created": about["created"],
        "checkpoints": steps,
        "step": steps[-1] if steps else 0,
        "ended": about.get("ended"),
        "best": json.loads(best.read_text()) if best.exists() else None,
    }
