"""Files in a folder that may hold the user's own: ours come there together, take away old ones of ours, and nothing else."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from advgen import interrupts
from advgen.errors import ConfigError
from advgen.files import append_text, file_sha256, is_below, replace_file, sorted_paths, write_file

RECORD = ".gen-samples.sha256"


class Written:
    """The record of a folder: a line ``SHA256  NAME`` for each file, as ``sha256sum --check`` reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / RECORD

    def add(self, files: Iterable[Path], base: Path) -> None:
        """Note files below ``base`` under their names there."""
        lines = "".join(_line(path, base) for path in files)
        append_text(self.record, lines)

    def write(self, files: Iterable[Path]) -> None:
        """Note these files of the folder and no others."""
        write_file(self.record, "".join(_line(path, self.folder) for path in files))

    def unchanged(self) -> list[Path]:
        """The noted files that are still what was written."""
        found = [path for path, digest in self._noted() if path.is_file() and file_sha256(path) == digest]
        return list(dict.fromkeys(found))

    def names(self) -> list[str]:
        """The noted files, below the folder."""
        return list(dict.fromkeys(path.relative_to(self.folder).as_posix() for path, _ in self._noted()))

    def _noted(self) -> list[tuple[Path, str]]:
        """Files with their digests; lines that are not ours, and names that lead out of the folder, are passed over."""
        if not self.record.is_file():
            return []
        lines = self.record.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = [line.split("  ", 1) for line in lines if len(line) > 66 and line[64:66] == "  "]
        noted = [(self.folder / name, digest) for digest, name in pairs if _leads_inside(name)]
        return [(path, digest) for path, digest in noted if is_below(path, self.folder)]


class Draft:
    """Files on their way into a folder.

    Args:
        folder: where they are written meanwhile.
        target: where they are to go.
    """

    def __init__(self, folder: Path, target: Path) -> None:
        self.folder, self.target, self.removed = folder, target, list[Path]()
        self._written = Written(target)
        self._own = set(self._written.unchanged())

    def place(self, files: Iterable[Path]) -> list[Path]:
        """Where drafted files will be; those that a plugin wrote elsewhere are there already.

        Raises:
            ConfigError: naming the first whose place is taken by a file that is not ours, or was changed since.
        """
        places = [self.target / path.relative_to(self.folder) if path.is_relative_to(self.folder) else path for path in files]
        drafted = (path for path in places if path.is_relative_to(self.target))
        if taken := next((path for path in drafted if os.path.lexists(path) and path not in self._own), None):
            raise ConfigError(
                f"{taken} would be overwritten, and is a file of your own or was changed since it was written; "
                "move it away, or choose another --out"
            )
        return places

    def publish(self) -> None:
        """Put the files in their places, and take away what an earlier call left; nothing, where nothing was drafted.

        The record knows new and old files meanwhile, so a killed process leaves none that the next call takes for the user's.

        Raises:
            ConfigError: as for ``place``, before anything was changed.
        """
        made = sorted_paths(path for path in self.folder.rglob("*") if path.is_file())
        if not made:
            return
        places = self.place(made)
        for path in places:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_relative_to(self.target) and not is_below(path.parent, self.target):
                raise ConfigError(f"{path.parent} is a link that leaves {self.target}; remove it, or choose another --out")
        self._written.add(made, self.folder)
        for path, place in zip(made, places, strict=True):
            replace_file(path, place)
        self.removed = sorted(self._own - set(places))
        for path in self.removed:
            path.unlink()
        self._written.write(places)


@contextlib.contextmanager
def written_anew(folder: Path) -> Iterator[Draft]:
    """A draft of a folder's files, which come there at the end; after a Ctrl-C those that there are by then.

    Raises:
        ConfigError: where the folder cannot be written, or a file of the user's is in the way.
    """
    with writing(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".draft-") as scratch:
        draft = Draft(Path(scratch), folder)
        try:
            yield draft
        except KeyboardInterrupt:
            with interrupts.held():
                draft.publish()
            raise
        with interrupts.held():
            draft.publish()


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make the folder; refuse where the system does.

    Raises:
        ConfigError: with the reason, and that another folder may be named.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"cannot write samples to {folder}: {error.strerror or error}; choose another --out") from error


def _leads_inside(name: str) -> bool:
    """Return whether a name stays below a folder by this system's rules: on Windows ``..\\x`` and ``C:x`` leave it too."""
    path = Path(name)
    return bool(path.parts) and not path.anchor and ".." not in path.parts


def _line(path: Path, base: Path) -> str:
    return f"{file_sha256(path)}  {path.relative_to(base).as_posix()}\n"
