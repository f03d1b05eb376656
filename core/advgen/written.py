"""Which samples of a folder ``gen sample`` wrote itself, so that it can take old ones away and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

RECORD = ".gen-samples.sha256"


class Written:
    """The record of a folder: a line ``SHA256  NAME`` for each file, as ``sha256sum --check`` reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.record = folder, folder / RECORD

    def add(self, files: Iterable[Path]) -> None:
        """Note files that were just written; those outside of the folder are nobody's to take away."""
        own = [path for path in files if path.is_relative_to(self.folder)]
        with self.record.open("a", encoding="utf-8") as record:
            record.writelines(f"{_digest(path)}  {path.relative_to(self.folder).as_posix()}\n" for path in own)

    def clear(self) -> list[Path]:
        """Remove the noted files that are still what was written, and the record; returns them."""
        found = [path for path, digest in self._noted().items() if path.is_file() and _digest(path) == digest]
        for path in found:
            path.unlink()
        self.record.unlink(missing_ok=True)
        return found

    def names(self) -> list[str]:
        """The noted files, below the folder."""
        return [path.relative_to(self.folder).as_posix() for path in self._noted()]

    def _noted(self) -> dict[Path, str]:
        """Each file's last digest; lines that are not ours, and names that lead out of the folder, are passed over."""
        if not self.record.is_file():
            return {}
        lines = self.record.read_text(encoding="utf-8", errors="replace").splitlines()
        pairs = [line.split("  ", 1) for line in lines if len(line) > 66 and line[64:66] == "  "]
        return {self.folder / name: digest for digest, name in pairs if not {"..", ""} & set(name.split("/"))}


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
