"""The watch of this folder sees what it is there to see."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Watch


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    (tmp_path / "inside").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "old").write_text("old")
    found = Watch()
    found.begin(tmp_path / "inside")
    return found


def flags_of(mode: str) -> int:
    return {"w": os.O_WRONLY | os.O_CREAT | os.O_TRUNC, "a": os.O_WRONLY | os.O_APPEND, "r": os.O_RDONLY}[mode]


PLANTED: dict[str, Callable[[Watch, Path], None]] = {
    "write": lambda watch, outside: watch("open", (str(outside / "x"), "w", flags_of("w"))),
    "append": lambda watch, outside: watch("open", (str(outside / "x"), "a", flags_of("a"))),
    "write by bytes": lambda watch, outside: watch("open", (os.fsencode(outside / "x"), "w", flags_of("w"))),
    "upwards": lambda watch, outside: watch("open", (str(outside / ".." / "outside" / "x"), "w", flags_of("w"))),
    "remove": lambda watch, outside: watch("os.remove", (str(outside / "old"), -1)),
    "rename": lambda watch, outside: watch("os.rename", (str(outside.parent / "inside" / "x"), str(outside / "x"), -1, -1)),
    "folder": lambda watch, outside: watch("os.mkdir", (str(outside / "new"), 0o777, -1)),
    "tree": lambda watch, outside: watch("shutil.rmtree", (str(outside), None)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_write_is_seen(watch: Watch, tmp_path: Path, name: str) -> None:
    PLANTED[name](watch, tmp_path / "outside")
    assert len(watch.written) == 1, watch.written


def test_a_write_through_a_link_is_seen_and_one_inside_is_not(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    watch("open", (str(tmp_path / "inside" / "link" / "x"), "w", flags_of("w")))
    assert len(watch.written) == 1
    watch("open", (str(tmp_path / "inside" / "fine"), "w", flags_of("w")))
    watch("open", (str(tmp_path / "outside" / "old"), "r", flags_of("r")))
    assert len(watch.written) == 1


def test_code_from_the_watched_folder_is_seen_and_other_code_is_not(watch: Watch, tmp_path: Path) -> None:
    watch("exec", (compile("1", str(tmp_path / "inside" / "evil.py"), "exec"),))
    watch("exec", (compile("1", shutil.__file__, "exec"),))
    assert watch.executed == [str(tmp_path / "inside" / "evil.py")]
