"""``gen sample`` into folders that are not empty, and interrupted while it writes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import advgen
from advgen import ConfigError, interrupts
from advgen.cli import main
from advgen.contracts import Batch
from advgen.sampling import sample_run
from advgen.written import RECORD, Written

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

SUFFIX = {"image": ".png", "audio": ".wav"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One run of one step for each plugin, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), dict[str, Path]()

    def run(plugin: str) -> Path:
        if plugin not in made:
            result = advgen.train(plugin, out=folder / plugin, overrides=tiny(plugin), steps=1, device="cpu", progress=False)
            made[plugin] = result.folder
        return made[plugin]

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("plugin", ["image", "audio"])
@pytest.mark.parametrize("own_folder", [True, False])
def test_fewer_samples_leave_no_samples_of_an_earlier_call(
    plugin: str, own_folder: bool, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    out = None if own_folder else tmp_path / "out"
    many = sample_run(runs(plugin), 6, out=out, device="cpu")
    few = sample_run(runs(plugin), 2, out=out, device="cpu")
    assert names(few.files[0].parent) == sorted(path.name for path in [*few.files, *few.overview])
    assert few.removed == many.files[2:] and few.files == many.files[:2] and not many.removed


def test_text_samples_are_replaced_in_their_one_file(runs: Callable[[str], Path], tmp_path: Path) -> None:
    for count in (40, 2):
        result = sample_run(runs("text"), count, out=tmp_path, device="cpu")
        assert len((tmp_path / "samples.txt").read_text().splitlines()) == count
    assert not result.removed and names(tmp_path) == ["overview.txt", "samples.txt"]


def test_samples_of_another_modality_in_the_folder_are_replaced_too(runs: Callable[[str], Path], tmp_path: Path) -> None:
    for plugin in ("audio", "image", "text"):
        result = sample_run(runs(plugin), 3, out=tmp_path, device="cpu")
    assert names(tmp_path) == ["overview.txt", "samples.txt"] and len(result.removed) == 4


def test_files_that_are_not_of_an_earlier_call_stay(runs: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "00005.png").write_bytes(b"a picture of mine")
    sample_run(runs("image"), 4, out=tmp_path, device="cpu")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "00003.png").write_bytes(b"edited")
    sample_run(runs("image"), 2, out=tmp_path, device="cpu")
    assert names(tmp_path) == ["00000.png", "00001.png", "00003.png", "00005.png", "notes.txt", "overview.png"]
    assert (tmp_path / "00003.png").read_bytes() == b"edited"


@pytest.mark.parametrize(("plugin", "name"), [("image", "00003.png"), ("text", "samples.txt"), ("image", "overview.png")])
def test_a_file_of_the_users_with_the_name_of_a_new_sample_is_not_overwritten(
    plugin: str, name: str, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    sample_run(runs(plugin), 2, out=tmp_path, device="cpu")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()} | {name: b"mine"}
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(ConfigError, match=rf"{name} would be overwritten.*move it away, or choose another --out"):
        sample_run(runs(plugin), 20, seed=1, out=tmp_path, device="cpu")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_sample_changed_in_the_runs_own_folder_is_not_overwritten(runs: Callable[[str], Path]) -> None:
    first = sample_run(runs("image"), 2, seed=9, device="cpu").files[0]
    first.write_bytes(b"retouched")
    with pytest.raises(ConfigError, match="was changed since it was written"):
        sample_run(runs("image"), 2, seed=9, device="cpu")
    assert first.read_bytes() == b"retouched"
    first.unlink()
    assert sample_run(runs("image"), 2, seed=9, device="cpu").files[0] == first


def test_a_process_that_was_killed_while_files_moved_leaves_none_that_is_taken_for_the_users(
    runs: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_run(runs("image"), 3, out=tmp_path, device="cpu")
    monkeypatch.setattr(Written, "write", lambda *arguments: None)  # the last thing of a call
    sample_run(runs("image"), 2, seed=1, out=tmp_path, device="cpu")
    monkeypatch.undo()
    sample_run(runs("image"), 1, seed=2, out=tmp_path, device="cpu")
    assert names(tmp_path) == ["00000.png", "overview.png"]
    assert len((tmp_path / RECORD).read_text().splitlines()) == 2


def test_a_folder_with_the_name_of_a_sample_is_told(runs: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "overview.png").mkdir()
    with pytest.raises(ConfigError, match=r"overview\.png would be overwritten"):
        sample_run(runs("image"), 1, out=tmp_path, device="cpu")


def test_a_copied_folder_is_still_known(runs: Callable[[str], Path], tmp_path: Path) -> None:
    sample_run(runs("image"), 3, out=tmp_path / "one", device="cpu")
    (tmp_path / "two").mkdir()
    for path in (tmp_path / "one").iterdir():
        (tmp_path / "two" / path.name).write_bytes(path.read_bytes())
    sample_run(runs("image"), 1, out=tmp_path / "two", device="cpu")
    assert names(tmp_path / "two") == ["00000.png", "overview.png"]


@pytest.mark.parametrize("record", [b"", b"nonsense\n", b"\xff\xfe", b"0" * 64 + b"  "])
def test_a_damaged_record_removes_nothing(record: bytes, tmp_path: Path) -> None:
    (tmp_path / "00000.png").write_bytes(b"x")
    (tmp_path / RECORD).write_bytes(record)
    assert Written(tmp_path).unchanged() == [] and names(tmp_path) == ["00000.png"]


def test_a_record_that_leads_out_of_its_folder_removes_nothing_there(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.png", tmp_path / "out"
    folder.mkdir()
    outside.write_bytes(b"x")
    Written(tmp_path).write([outside])
    digest = (tmp_path / RECORD).read_text().split()[0]
    (folder / RECORD).write_text(f"{digest}  ../outside.png\n{digest}  {outside}\n")
    assert Written(folder).unchanged() == []


def test_a_folder_that_cannot_be_written_is_named(runs: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(advgen.GenError, match=r"cannot write samples to .*file/out.*choose another --out"):
        sample_run(runs("text"), 1, out=tmp_path / "file" / "out", device="cpu")


def interrupted(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    assert ended.value.code == interrupts.INTERRUPTED
    return capsys.readouterr().err


def test_ctrl_c_while_samples_are_written_tells_how_many_are_there_and_they_are_whole(
    runs: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from advgen_image.modality import ImageModality

    write = ImageModality.write

    def press(self: ImageModality, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        if start == 32:
            signal.raise_signal(signal.SIGINT)
        return write(self, batch, folder, start=start)

    monkeypatch.setattr(ImageModality, "write", press)
    said = interrupted(capsys, "sample", runs("image"), "-n", 100, "--out", tmp_path, "--device", "cpu")
    assert said == f"interrupted; 48 of 100 samples are in {tmp_path}\n"
    assert names(tmp_path) == [f"{number:05d}.png" for number in range(48)]
    monkeypatch.undo()
    sample_run(runs("image"), 2, out=tmp_path, device="cpu")
    assert names(tmp_path) == ["00000.png", "00001.png", "overview.png"]


def test_ctrl_c_while_files_are_converted_tells_how_many_are_there(
    runs: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from advgen_audio.generating import GeneratingModality

    def press(self: GeneratingModality, generator: object, paths: list[Path], folder: Path) -> list[Path]:
        (folder / "one.wav").write_bytes(b"1")
        (folder / "two.wav").write_bytes(b"2")
        os.utime(folder / "one.wav", (1, 1))
        signal.raise_signal(signal.SIGINT)
        return []

    monkeypatch.setattr(GeneratingModality, "convert", press)
    (tmp_path / "source.wav").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.wav").write_bytes(b"mine")
    given = ("--from", tmp_path / "source.wav", "--out", tmp_path / "out", "--device", "cpu")
    said = interrupted(capsys, "sample", runs("audio"), *given)
    assert said == f"interrupted; 2 files were written to {tmp_path / 'out'}; two.wav, the last, may be cut short\n"
