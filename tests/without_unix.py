"""A stand-in for Windows in a process on Linux: ``python without_unix.py FOLDER``.

Modules, names and signals that Windows lacks are taken away, and below FOLDER files obey its rules: no open or mapped file is
renamed, replaced or deleted, no name is one that Windows reserves, and no folder is opened. Then each plugin trains, resumes,
samples, evaluates and exports there, and a line of JSON for each says what came out.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import io
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MODULES = {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog", "crypt", "nis", "spwd", "readline"}
NAMES = {"fork", "forkpty", "getuid", "posix_fallocate", "posix_fadvise", "sched_getaffinity", "sched_setaffinity", "statvfs"}
NAMES |= {"O_DIRECTORY", "O_NOFOLLOW", "mkfifo", "mknod", "getpgid", "killpg", "setsid", "nice", "fchown", "chroot"}
SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM"}
RESERVED = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)


class Absent(importlib.abc.MetaPathFinder):
    """Import finder that hides Unix modules."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in MODULES:
            raise ImportError(f"no module named {name!r} on this system", name=name)


def take_away() -> None:
    """Hide what Windows lacks from everything that is imported from now on."""
    os.environ["USERNAME"] = "user"  # as Windows sets it
    sys.meta_path.insert(0, Absent())
    for name in MODULES:
        sys.modules.pop(name, None)
    for name in NAMES:
        if hasattr(os, name):
            delattr(os, name)
    for name in [name for name in vars(signal) if re.fullmatch(r"SIG[A-Z0-9]+", name) and name not in SIGNALS]:
        delattr(signal, name)


def held(path: str) -> bool:
    """Return whether this process has the path, or a file below it, open or mapped."""
    found = set[str]()
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(entry.path))
    with open("/proc/self/maps", encoding="utf-8") as maps:
        found |= {line.split(maxsplit=5)[5].strip() for line in maps if "/" in line}
    return any(each == path or each.startswith(f"{path}{os.sep}") for each in found)


class Rules:
    """Rules of Windows below a folder, enforced in this process."""

    def __init__(self, root: str) -> None:
        self.root, self.rename, self.sync = root, os.rename, os.fsync
        os.rename, os.fsync = self.rename_to_nothing, self.sync_if_writable  # type: ignore[assignment]
        shutil._use_fd_functions = False  # type: ignore[attr-defined]
        sys.addaudithook(self.watch)

    def inside(self, path: Any) -> str | None:
        """Return the whole path, if it is below the folder."""
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        whole = os.path.abspath(os.fsdecode(path))
        return whole if whole.startswith(f"{self.root}{os.sep}") else None

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Refuse a call before it is made."""
        if event in ("os.rename", "os.remove", "os.rmdir"):
            paths = [self.inside(path) for path in arguments[: 2 if event == "os.rename" else 1]]
            for path in filter(None, paths):
                if held(path):
                    raise PermissionError(13, "a process has the file open", path)
            if len(paths) == 2 and paths[1] is not None and os.path.isdir(paths[1]):
                raise PermissionError(13, "a folder is in the place", paths[1])
        elif event in ("open", "os.mkdir") and (path := self.inside(arguments[0])) is not None:
            if odd := [part for part in path[len(self.root) :].split(os.sep) if RESERVED.search(part)]:
                raise OSError(22, f"the name {odd[0]!r} is not valid", path)
            if event == "open" and arguments[1] is None and os.path.isdir(path):  # by os.open
                raise PermissionError(13, "a folder cannot be opened", path)

    def rename_to_nothing(self, source: Any, target: Any, **more: Any) -> None:
        """Rename, but over no file."""
        if self.inside(target) and os.path.exists(target):
            raise FileExistsError(17, "the file exists", os.fspath(target))
        self.rename(source, target, **more)

    def sync_if_writable(self, descriptor: int) -> None:
        """Sync, but no file that is open for reading only."""
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="utf-8") as about:
            flags = next(int(line.split()[1], 8) for line in about if line.startswith("flags:"))
        if flags & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "not open for writing")
        self.sync(descriptor)


def write_data(folder: Path) -> dict[str, Path]:
    """Write a little data set for each plugin."""
    import numpy as np
    import soundfile
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(60):
        label = ("round", "square")[number % 2]
        for kind in ("image", "audio"):
            (folder / kind / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / "image" / label / f"{number}.png")
        soundfile.write(folder / "audio" / label / f"{number}.wav", 0.5 * random.uniform(-1, 1, 1024), 8000)
    (folder / "text").mkdir()
    words = ["one", "two", "three", "four", "five", "six"]
    lines = [" ".join(random.choice(words, 5)) for _ in range(300)]
    (folder / "text" / "lines.txt").write_text("\n".join(lines), encoding="utf-8", newline="\n")
    archive = shutil.make_archive(str(folder / "lines"), "zip", folder / "text")
    return {"image": folder / "image", "audio": folder / "audio", "text": Path(archive)}


def map_all() -> None:
    """Send data of any size through the files of the cache, and train judges for a moment only."""
    import advgen_audio.data.loading
    import advgen_audio.measures.judge
    import advgen_image.judge
    import advgen_text.data

    advgen_audio.data.loading.MAX_MEMORY_BYTES = 0
    advgen_audio.measures.judge.NUM_STEPS = advgen_image.judge.STEPS = 3
    advgen_text.data.MOST_IN_MEMORY = 0


def live(plugin: str, data: Path, folder: Path) -> dict[str, Any]:
    """Train in two sittings, then sample, evaluate, project and export; most of it twice, so that files are replaced."""
    from conftest import tiny

    import advgen
    from advgen.evaluation import evaluate_run
    from advgen.export import export_run
    from advgen.latent.projecting import project_run
    from advgen.latent.search import Search
    from advgen.sampling import sample_run

    more = ["train.checkpoint_every=1", "train.keep=1", "train.sample_every=2", "train.evaluate_every=2", "data.test_share=0.2"]
    more += ["phases=[{kind='adversarial'}]", *(["options.memory_mib=0"] if plugin == "image" else [])]
    overrides, run = tiny(plugin, *more), folder / plugin
    place: dict[str, Any] = {"device": "cpu", "progress": False}
    advgen.train(plugin, data=data, out=run, overrides=overrides, steps=4, stop_after=2, **place)
    result = advgen.resume(run, **place)
    for seed, count in enumerate((3, 2)):
        sampled = sample_run(run, count, seed, out=folder / f"{plugin}-samples", device="cpu")
        report = evaluate_run(run, 8, device="cpu", seed=seed)
    if plugin == "image":
        for steps in (1, 2):
            found = project_run(run, data / "round" / "0.png", Search(steps, 1), device="cpu", label="round")
            sample_run(run, latent=found.latent, device="cpu")
    exported = export_run(run, "huggingface", folder / f"{plugin}-shipped", device="cpu")
    again = advgen.load_generator(exported.path, device="cpu").draw(1)
    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir())
    kept = sorted({path.suffix or path.name for path in (Path(os.environ["XDG_CACHE_HOME"]) / "advgen").rglob("*")})
    left = sorted(path.name for path in run.iterdir() if path.name.startswith("."))
    facts = {"step": result.step, "checkpoints": checkpoints, "files": len(sampled.files), "removed": len(sampled.removed)}
    facts |= {"distance": report["generated"]["frechet_distance"], "again": list(again.values.shape), "cache": kept}
    return facts | {"left": left, "best": result.best}


def main(folder: Path) -> Iterator[dict[str, Any]]:
    """Prepare, then yield the outcome for each plugin."""
    take_away()
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    tempfile.tempdir = str(folder / "temporary")
    Path(tempfile.tempdir).mkdir()
    data = write_data(folder / "data")
    Rules(str(folder))
    map_all()
    for plugin, place in data.items():
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                facts = live(plugin, place, folder / "runs")
            yield {"plugin": plugin, **facts}
        except Exception:
            yield {"plugin": plugin, "error": traceback.format_exc()}


if __name__ == "__main__":
    for line in main(Path(sys.argv[1]).resolve()):
        print(json.dumps(line), flush=True)
