"""The run folder: what is where, and one writer at a time. Imports no torch."""

from __future__ import annotations

import contextlib
import difflib
import json
import math
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from advgen import files
from advgen.config.load import from_toml
from advgen.config.model import RunConfig
from advgen.errors import CheckpointError, ConfigError
from advgen.files import sorted_paths
from advgen.reading import read_json, read_text, told
from advgen.terminal import visible

LOCK, OWNER = ".lock", ".owner"
# If the system cannot lock files, the first try only clears the lock of a killed owner.
PATIENCE_SECONDS = 0.2
EXPORT_CONFIG, EXPORT_LIBRARY, EXPORT_SCHEMA = "config.json", "advgen", 1
RUNS = "runs"
BEST = "best.json"
STRICT = ("facts.json", EXPORT_CONFIG)
"""Files whose numbers networks and samples are made by."""
MOST_CONFIG_BYTES = 4 * 2**20
Kinds = tuple[type, ...]
NOTHING = type(None)
EXPECTED = {str: "a text", int: "a whole number", float: "a number", dict: "a table", list: "a list", NOTHING: "nothing"}
KINDS: Mapping[str, Mapping[str, Kinds]] = {
    "run.json": {
        "plugin": (str,),
        "plugin_distribution": (str, NOTHING),
        "plugin_version": (str, NOTHING),
        "plugin_sha256": (str, NOTHING),
        "plugin_file": (str, NOTHING),
        "fingerprint": (str,),
        "skipped": (list,),
        "created": (str,),
        "sources": (dict,),
        "networks": (dict,),
        "summary": (dict,),
        "imported": (dict,),
        "ended": (str, NOTHING),
        "diverged": (dict, NOTHING),
        "overfitting": (dict,),
    },
    BEST: {"step": (int,), "metric": (str,), "value": (int, float)},
    "facts.json": {"classes": (list, NOTHING), "class_counts": (list, NOTHING)},
    EXPORT_CONFIG: {
        "plugin": (str,),
        "plugin_distribution": (str, NOTHING),
        "plugin_sha256": (str, NOTHING),
        "plugin_file": (str, NOTHING),
        "config": (dict,),
        "facts": (dict,),
        "weights": (dict,),
        "step": (int,),
        "fingerprint": (str,),
    },
}
"""Types of the entries that are read from a run's files, if present."""
EXPORT_NEEDS = ("plugin", "config", "facts", "weights", "step", "fingerprint")


def is_run(path: Path | str) -> bool:
    """Whether a folder is a run; any text may be asked about."""
    return os.path.isfile(Path(path) / "run.json")


def is_export(path: Path | str) -> bool:
    """Whether a folder is what ``gen export --format huggingface`` made: a generator alone."""
    if is_run(path):
        return False
    try:
        return read_json(Path(path) / EXPORT_CONFIG).get("library_name") == EXPORT_LIBRARY
    except (OSError, ValueError):
        return False


def read_export(path: Path | str) -> dict[str, Any]:
    """What an exported folder says of its generator.

    Raises:
        CheckpointError: where it is damaged, or of another version.
    """
    about, name = RunFolder(path).read_json(EXPORT_CONFIG), Path(path) / EXPORT_CONFIG
    if about.get("schema") != EXPORT_SCHEMA:
        raise CheckpointError(f"{name} has schema {about.get('schema')}, this advgen reads {EXPORT_SCHEMA}")
    if missing := [key for key in EXPORT_NEEDS if key not in about]:
        raise CheckpointError(f"{name} lacks {' and '.join(missing)}; fetch or export it again")
    weights = about["weights"]
    if not all(isinstance(weights.get(key), str) for key in ("file", "sha256")):
        raise CheckpointError(f"{name}: weights is {told(weights)}, expected a table with file and sha256; fetch it again")
    return about


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
            CheckpointError: where the folder is no run, with the runs beside it and those in ``runs/``.
        """
        folder = cls(path)
        if not is_run(folder.path):
            if is_export(folder.path):
                raise CheckpointError(
                    f"{folder.path} is an exported generator, which has neither data nor training state; gen sample, "
                    "gen verify and gen export take it, this needs the run that it was exported from"
                )
            if inside := [str(folder.path / each["name"]) for each in list_runs(folder.path)]:
                raise CheckpointError(f"{folder.path} holds runs and is none itself; name one of them: {', '.join(inside)}")
            raise CheckpointError(f"{folder.path} is not a run folder (no run.json); {_nearest_run(folder.path)}")
        folder.refuse_strange_entries()
        return folder

    def refuse_strange_entries(self) -> None:
        """Refuse a run folder that could cause reads, writes or deletions outside of it.

        Raises:
            CheckpointError: naming a link that leaves the run, or an entry that is neither a file nor a folder.
        """
        for entry, what in files.strange_entries(self.path):
            raise CheckpointError(f"{entry} {what}; a run holds its files itself: remove it, or put a copy in its place")

    def create(self) -> None:
        """Make the folder.

        Raises:
            ConfigError: where it already holds a run or anything else, hidden files apart, or cannot be made.
        """
        if (self.path / "run.json").exists():
            way = f"go on with: gen resume {self.path}"
            if not saved_steps(self.checkpoints):
                way = "remove the folder, as nothing was saved in it and it cannot be resumed"
            raise ConfigError(f"{self.path} already holds a run; choose another --out, or {way}")
        try:
            if taken := sorted(path.name for path in self._visible()):
                names = ", ".join(taken[:3]) + (", ..." if len(taken) > 3 else "")
                raise ConfigError(f"{self.path} holds other files ({names}); choose another --out, such as {self.path / 'run'}")
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.samples.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the run folder {self.path}: {error.strerror}; choose another --out") from error

    @contextlib.contextmanager
    def discarded_where_nothing_is_saved(self, new: bool) -> Iterator[None]:
        """Take a run away that ended in the block without a checkpoint: the folder if ``new``, else what is in it."""
        try:
            yield
        except BaseException:
            if not saved_steps(self.checkpoints):
                for own in (
                    [self.path] if new else [*self._visible(), self.path / LOCK, self.path / OWNER]
                ):  # the folder is empty otherwise
                    shutil.rmtree(own, ignore_errors=True) if own.is_dir() else own.unlink(missing_ok=True)
            raise

    def _visible(self) -> list[Path]:
        """What is in the folder, hidden files apart."""
        return [path for path in self.path.iterdir() if not path.name.startswith(".")] if self.path.is_dir() else []

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing; the lock ends with the process.

        Raises:
            CheckpointError: if another process holds it, or another thread of this one, or it cannot be locked.
        """
        lock, owner = FileLock(self.path / LOCK, timeout=PATIENCE_SECONDS), self.path / OWNER
        try:
            lock.acquire()
        except Timeout as error:
            raise CheckpointError(f"{self.path} is in use by process {_number_in(owner)}; wait for it to end") from error
        except OSError as error:
            raise CheckpointError(
                f"{self.path / LOCK} cannot be locked ({error.strerror or error}); make the folder writable, or move the run "
                "to a disk that allows locks"
            ) from error
        try:
            # In its own file, because a locked file cannot be read on Windows. On a full disk the lock holds without it.
            with contextlib.suppress(OSError):
                owner.unlink(missing_ok=True)
                owner.write_text(f"{os.getpid()}\n", encoding="utf-8", newline="\n")
            yield
        finally:
            with contextlib.suppress(OSError):
                owner.unlink(missing_ok=True)
            lock.release()

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        write_text(self.path / name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Read a JSON file.

        Raises:
            CheckpointError: naming the file, where it is missing or damaged.
        """
        try:
            content = read_json(self.path / name, not_finite=name not in STRICT)  # a metric may be NaN
            if fault := _fault(content, KINDS.get(name, {})):
                raise ValueError(fault)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path / name} cannot be read ({error}); the run folder is damaged") from error
        return content

    def best(self) -> dict[str, Any] | None:
        """Read step, metric and value of the best checkpoint; None if none was measured.

        Raises:
            CheckpointError: naming the file, if it is damaged.
        """
        if not (self.path / BEST).exists():
            return None
        best = self.read_json(BEST)
        if missing := [name for name in KINDS[BEST] if name not in best]:
            raise CheckpointError(f"{self.path / BEST} lacks {' and '.join(missing)}; the run folder is damaged")
        return best

    def config(self) -> RunConfig:
        """The resolved configuration that the run was started with.

        Raises:
            CheckpointError: where it is missing or damaged.
        """
        path = self.path / "config.toml"
        try:
            return from_toml(read_text(path, MOST_CONFIG_BYTES), str(path))
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}); the run folder is damaged") from error

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl."""
        append_text(self.metrics, json.dumps(row) + "\n")

    def cut_metrics(self, step: int) -> None:
        """Drop rows after a step, so that a resumed run does not log it twice, and a row that a crash cut short."""
        if self.metrics.exists():
            rows = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(self.metrics, "".join(row + "\n" for row in rows if _step_of(row) <= step))

    def note(self, text: str) -> None:
        """Add a dated line to log.txt."""
        append_text(self.log, f"{datetime.now(UTC).isoformat(timespec='seconds')} {visible(text)}\n")


def _fault(content: Mapping[str, Any], kinds: Mapping[str, Kinds]) -> str:
    """Find the first entry whose type is not the one that a run writes."""
    for name, kind in kinds.items():
        value = content.get(name)
        if name in content and (not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind)):
            return f"{name} is {told(value)}, expected {' or '.join(EXPECTED[each] for each in kind)}"
    return ""


def _step_of(row: str) -> float:
    """A row's step; infinite where the row is not whole."""
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


def _number_in(owner: Path) -> str:
    """Return the id that the process holding a run has written."""
    try:
        return owner.read_text(encoding="utf-8", errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"


def write_text(path: Path, text: str) -> None:
    """Write a file of a run, whole or not at all.

    Raises:
        CheckpointError: where the disk is full or not writable; the old content stays.
    """
    with writing(path):
        files.write_file(path, text)


def append_text(path: Path, text: str) -> None:
    """Add to a file.

    Raises:
        CheckpointError: where the disk is full or not writable.
    """
    with writing(path):
        files.append_text(path, text)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into a refusal that names the file and the way out.

    Raises:
        CheckpointError: where the system refuses.
    """
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} could not be written ({error.strerror or error}); checkpoints already saved are untouched. Free space or "
            "make the folder writable, then: gen resume"
        ) from error


def environment() -> dict[str, str]:
    """Versions of everything that decides a number."""
    packages = ["advgen", "torch", "torchaudio", "numpy", "scipy", "safetensors", "tokenizers", "soundfile"]
    packages += ["pillow", "pluggy", "pydantic"]
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def list_runs(folder: Path | str = RUNS) -> list[dict[str, Any]]:
    """Every run directly below a folder: name, plugin, last saved step. A damaged one is told as such in ``ended``."""
    root = Path(folder)
    if not root.is_dir():
        return []
    return [_described(path) for path in sorted_paths(root.iterdir()) if (path / "run.json").is_file()]


def by_name(run: Path) -> Path:
    """A run's path where its name in ``runs/`` was given, and nothing here has that name; else what was given."""
    named = RUNS / run
    return named if len(run.parts) == 1 and not run.exists() and is_run(named) else run


def _nearest_run(path: Path) -> str:
    """Which runs there are beside a path and in ``runs/``, as paths, and whose name is the closest."""
    runs = {Path(each["path"]).resolve(): each for place in (Path(RUNS), path.parent) for each in list_runs(place)}
    close = difflib.get_close_matches(path.name, [each["name"] for each in runs.values()], n=1)
    hint = "".join([f"did you mean {each['path']!r}? " for each in runs.values() if each["name"] in close][:1])
    return f"{hint}known: {', '.join(sorted(each['path'] for each in runs.values())) or 'none'}"


def _described(path: Path) -> dict[str, Any]:
    try:
        return describe_run(path)
    except CheckpointError as error:
        steps = saved_steps(path / "checkpoints")
        facts = {"name": path.name, "path": str(path), "plugin": None, "created": None, "checkpoints": steps}
        return facts | {"step": steps[-1] if steps else 0, "ended": f"damaged: {error}", "diverged": None, "best": None}


def saved_steps(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints in a folder, oldest first."""
    whole = [path.name for path in checkpoints.glob("step-*") if (path / "manifest.json").is_file()]
    steps = [int(name[5:]) for name in whole if re.fullmatch(r"step-\d{8,13}", name, re.ASCII)]
    return sorted(step for step in steps if f"step-{step:08d}" in whole)


def describe_run(run: Path | str) -> dict[str, Any]:
    """What a run is and how far it came.

    Raises:
        CheckpointError: where the folder is no run, or is damaged.
    """
    folder = RunFolder.existing(run)
    about = folder.read_json("run.json")
    if missing := [name for name in ("plugin", "created") if name not in about]:
        raise CheckpointError(f"{folder.path / 'run.json'} lacks {' and '.join(missing)}; the run folder is damaged")
    steps = saved_steps(folder.checkpoints)
    return {
        "name": folder.path.name,
        "path": str(folder.path),
        "plugin": about["plugin"],
        "created": about["created"],
        "networks": about.get("networks", {}),
        "checkpoints": steps,
        "step": steps[-1] if steps else 0,
        "ended": about.get("ended"),
        "diverged": about.get("diverged"),
        "best": folder.best(),
    }
