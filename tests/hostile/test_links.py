"""Links and special files inside a run or an output folder: nothing outside is read as the run's, written or removed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny

import advgen
from advgen.cli import main
from advgen.errors import CheckpointError, ConfigError
from advgen.files import append_text, drafted, strange_entries, write_file
from advgen.runs import RunFolder
from advgen.written import RECORD, Written, written_anew

PLACES = (
    ".lock",
    ".owner",
    "run.json.part",
    "log.txt",
    "metrics.jsonl",
    "best.json",
    "facts.json",
    "environment.json",
    "evaluation.json",
    "samples/step-00000002.png",
    "samples/.gen-samples.sha256",
    "checkpoints/step-00000001/manifest.json",
    "plugin/mine.py",
    "deep/er/file",
)
FOLDERS = ("samples", "checkpoints", "checkpoints/step-00000002", "events", "export", "plugin")
COMMANDS = ("resume RUN", "sample RUN -n 1", "evaluate RUN", "interpolate RUN --seeds 0-1", "export RUN --format huggingface")


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("genuine") / "run"
    advgen.train("image", steps=2, stop_after=1, out=folder, overrides=tiny("image"), progress=False)
    return folder


@pytest.fixture
def theirs(genuine: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of a run beside a folder of the user's own, which must be as it was at the end."""
    shutil.copytree(genuine, tmp_path / "theirs")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("mine")
    yield tmp_path / "theirs"
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious.txt": "mine"}


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], count_trial: Callable[[], None]) -> Callable[[Path, str], None]:
    """Run every command on a run; each must end with the expected refusal in one line."""

    def check(run: Path, expected: str) -> None:
        for line in COMMANDS:
            count_trial()
            _refused_by(line, run, capsys, expected)

    return check


def _refused_by(line: str, run: Path, capsys: pytest.CaptureFixture[str], expected: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(run) if word == "RUN" else word for word in line.split()])
    told = capsys.readouterr().err
    assert ended.value.code == 5 and expected in told and len(told.splitlines()) == 1, (line, told)


@pytest.mark.parametrize("place", PLACES)
def test_a_link_in_a_files_place_is_refused(theirs: Path, place: str, refused: Any) -> None:
    link = theirs / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(theirs.parent / "outside" / "precious.txt")
    refused(theirs, f"{link} is a link that leaves the folder")


@pytest.mark.parametrize("place", FOLDERS)
def test_a_link_in_a_folders_place_is_refused(theirs: Path, place: str, refused: Any) -> None:
    shutil.rmtree(theirs / place, ignore_errors=True)
    (theirs / place).symlink_to("../outside" if "/" not in place else "../../outside")
    refused(theirs, "is a link that leaves the folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("place", ["log.txt", "metrics.jsonl", "samples/x", "facts.json"])
def test_a_pipe_is_refused_instead_of_waited_for(theirs: Path, place: str, refused: Any) -> None:
    (theirs / place).unlink(missing_ok=True)
    os.mkfifo(theirs / place)
    refused(theirs, "is neither a file nor a folder")


def test_links_that_stay_inside_are_no_reason_to_refuse(theirs: Path) -> None:
    (theirs / "samples" / "latest").symlink_to("../log.txt")
    assert not list(strange_entries(theirs)) and RunFolder.existing(theirs).path == theirs
    (theirs / "samples" / "dangling").symlink_to("/no/such/place")
    with pytest.raises(CheckpointError, match="dangling is a link that leaves the folder"):
        RunFolder.existing(theirs)


def test_writing_replaces_a_link_and_appending_refuses_it(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for write in (lambda path: write_file(path, "new"), lambda path: _through_draft(path, "new")):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to("mine")
        write(tmp_path / "link")
        assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / "link").read_text() == "new"
        assert not (tmp_path / "link").is_symlink()
    (tmp_path / "log").symlink_to("mine")
    with pytest.raises(OSError, match="link"):
        append_text(tmp_path / "log", "more")
    assert (tmp_path / "mine").read_text() == "mine" and {path.name for path in tmp_path.iterdir()} == {"link", "log", "mine"}


def _through_draft(path: Path, text: str) -> None:
    with drafted(path) as draft:
        draft.write_text(text)


def test_a_draft_that_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), drafted(tmp_path / "a") as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_draft_never_takes_a_name_that_is_there(tmp_path: Path) -> None:
    seen = set()
    for _ in range(3):
        with drafted(tmp_path / "a") as draft:
            with drafted(tmp_path / "a") as other:
                assert draft != other
            seen |= {draft, other}
    assert len(seen) == 6


RECORDS: dict[str, Callable[[Path], str]] = {
    "upwards": lambda outside: "../outside/precious.txt",
    "absolute": lambda outside: str(outside / "precious.txt"),
    "by a link": lambda outside: "linked/precious.txt",
    "twice upwards": lambda outside: "a/../../outside/precious.txt",
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_of_samples_cannot_have_files_outside_removed(theirs: Path, kind: str) -> None:
    import hashlib

    folder, outside = theirs.parent / "out", theirs.parent / "outside"
    folder.mkdir()
    (folder / "linked").symlink_to(outside)
    digest = hashlib.sha256(b"mine").hexdigest()
    (folder / RECORD).write_text(f"{digest}  {RECORDS[kind](outside)}\n")
    assert Written(folder).unchanged() == []
    with written_anew(folder) as draft:
        (draft.folder / "new.txt").write_text("new")
    assert (folder / "new.txt").read_text() == "new"


def test_samples_do_not_go_through_a_linked_folder(theirs: Path) -> None:
    folder = theirs.parent / "out"
    folder.mkdir()
    (folder / "classes").symlink_to(theirs.parent / "outside")
    with pytest.raises(ConfigError, match="is a link that leaves"), written_anew(folder) as draft:
        (draft.folder / "classes").mkdir()
        (draft.folder / "classes" / "new.txt").write_text("new")


def test_a_record_that_is_a_link_is_replaced_or_refused(theirs: Path) -> None:
    folder = theirs.parent / "out"
    folder.mkdir()
    (folder / RECORD).symlink_to(theirs.parent / "outside" / "precious.txt")
    with pytest.raises(ConfigError, match="link"), written_anew(folder) as draft:
        (draft.folder / "new.txt").write_text("new")


def test_the_run_is_still_listed_with_its_fault(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (theirs / "log.txt").unlink()
    (theirs / "log.txt").symlink_to(theirs.parent / "outside" / "precious.txt")
    with pytest.raises(SystemExit) as ended:
        main(["runs", "list", str(theirs.parent), "--json"])
    (listed,) = json.loads(capsys.readouterr().out)
    assert ended.value.code == 0 and "is a link that leaves the folder" in listed["ended"]
