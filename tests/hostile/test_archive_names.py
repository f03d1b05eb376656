"""Members of archives are written below the cache, whatever they are called."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from advgen.data.archives import ZipFolder, unpacked
from advgen.errors import DataError

NAMES = (
    "//x/y",
    "\\\\host\\x",
    "///x",
    "/x",
    "/etc/x",
    "../x",
    "a/../../x",
    "a/..",
    "..\\x",
    "a\\..\\..\\x",
    "C:\\x",
    "c:x",
    "\\x",
    "//?/C:/x",
    "\\\\?\\C:\\x",
    "./../x",
)


def make(path: Path, name: str) -> Path:
    """Write an archive with one harmless and one hostile member."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("good.png", b"1")
            archive.writestr(zipfile.ZipInfo(name), b"2")
        return path
    with tarfile.open(path, "w") as archive:
        for each in ("good.png", name):
            info = tarfile.TarInfo(each)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"2"))
    return path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_a_member_that_points_outside_is_refused_and_nothing_is_written(
    name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = make(tmp_path / f"theirs.{suffix}", name)
    with pytest.raises(DataError, match="points outside of the archive"):
        unpacked(archive)
    if suffix == "zip":
        with pytest.raises(DataError, match="points outside of the archive"):
            ZipFolder(archive)
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]
    assert not outside and not Path("/x").exists() and not Path("/host").exists()
