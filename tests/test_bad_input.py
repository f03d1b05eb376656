"""Bad data and bad configurations through the real command line: exit code, culprit, and the way out."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from advgen.cli import main

sys.path.insert(0, str(Path(__file__).parent))
from conftest import TINY

PLUGINS = ("image", "audio", "text")
NUM_GOOD = 60


class Command:
    """``gen`` in this process: what it printed and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str]:
        self.capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        streams = self.capsys.readouterr()
        return code, streams.err if code else streams.err + streams.out

    def train(self, plugin: str, data: Path, *more: object) -> tuple[int, str]:
        sets = [word for override in TINY[plugin] for word in ("--set", override)]
        plan = ["--steps", 1, "--set", "train.batch_size=4", "--device", "cpu", "--out", data.parent / "run"]
        return self("train", "--plugin", plugin, "--data", data, *sets, *plan, *more)


@pytest.fixture
def gen(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def picture(path: Path, number: int) -> None:
    pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def sound(path: Path, number: int) -> None:
    soundfile.write(path, 0.3 * np.random.default_rng(number).standard_normal(1024).astype(np.float32), 8000, subtype="FLOAT")


SUFFIX = {"image": ".png", "audio": ".wav", "text": ".jsonl"}


def good(plugin: str, folder: Path, count: int = NUM_GOOD) -> Path:
    """A folder of good samples."""
    folder.mkdir(parents=True, exist_ok=True)
    if plugin == "text":
        lines = [json.dumps({"text": f"the {i} cats sat on mat {i % 7}"}) for i in range(count)]
        (folder / "lines.jsonl").write_text("\n".join(lines) + "\n")
    for number in range(count if plugin != "text" else 0):
        (picture if plugin == "image" else sound)(folder / f"{number:03d}{SUFFIX[plugin]}", number)
    return folder


def truncated(plugin: str, folder: Path) -> str:
    if plugin == "text":
        (folder / "odd.jsonl").write_text('{"text": "the ca')
        return "odd.jsonl line 1"
    whole = folder / f"000{SUFFIX[plugin]}"
    (folder / f"odd{SUFFIX[plugin]}").write_bytes(whole.read_bytes()[: 200 if plugin == "image" else 20])
    return f"odd{SUFFIX[plugin]}"


def empty_file(plugin: str, folder: Path) -> str:
    (folder / f"odd{SUFFIX[plugin]}").write_bytes(b"")
    return f"odd{SUFFIX[plugin]}"


def wrong_format(plugin: str, folder: Path) -> str:
    (folder / f"odd{SUFFIX[plugin]}").write_bytes(b"%PDF-1.7 this is something else\n")
    return "odd" + SUFFIX[plugin]


def not_a_number(plugin: str, folder: Path) -> str:
    if plugin == "image":
        Image.fromarray(np.full((16, 16), np.nan, np.float32)).save(folder / "odd.tif")
        return "odd.tif"
    if plugin == "audio":
        soundfile.write(folder / "odd.wav", np.full(1024, np.nan, np.float32), 8000, subtype="FLOAT")
        return "odd.wav"
    (folder / "odd.jsonl").write_text('{"text": NaN}\n')
    return "odd.jsonl line 1"


def invalid_utf8(plugin: str, folder: Path) -> str:
    (folder / "odd.txt").write_bytes(b"caf\xe9 au lait\n")
    return "odd.txt line 1 is not UTF-8 at byte 4 of the line"


Spoil = Callable[[str, Path], str]
SPOILS = [(plugin, spoil) for plugin in PLUGINS for spoil in (truncated, empty_file, wrong_format, not_a_number)]
SPOILS = [case for case in SPOILS if case != ("text", empty_file)] + [("text", invalid_utf8)]


@pytest.mark.parametrize(("plugin", "spoil"), SPOILS)
def test_one_bad_file_is_named_and_skipped_up_to_max_bad(plugin: str, spoil: Spoil, gen: Command, tmp_path: Path) -> None:
    folder = good(plugin, tmp_path / "data")
    name = spoil(plugin, folder)
    code, said = gen.train(plugin, folder, "--max-bad", 0)
    assert code == 4 and name in said and "max_bad" in said, said
    assert not (tmp_path / "run").exists()
    code, said = gen.train(plugin, folder, "--max-bad", 1)
    assert code == 0 and f"skipped: {name}" in said.replace(f"{folder}/", ""), said
    (skipped,) = json.loads((tmp_path / "run" / "run.json").read_text())["skipped"]
    assert name in skipped


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_missing_path_is_named(plugin: str, gen: Command, tmp_path: Path) -> None:
    code, said = gen.train(plugin, tmp_path / "absent")
    assert code == 4 and f"{tmp_path}/absent does not exist" in said and "--data takes" in said


@pytest.mark.parametrize("plugin", PLUGINS)
def test_an_empty_folder_and_one_of_other_files_are_named_with_what_is_expected(
    plugin: str, gen: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    code, said = gen.train(plugin, folder)
    assert code == 4 and str(folder) in said and {"image": ".png", "audio": ".wav", "text": ".txt"}[plugin] in said
    (folder / "notes.pdf").write_bytes(b"%PDF")
    code, said = gen.train(plugin, folder)
    assert code == 4 and str(folder) in said


def test_an_empty_text_file_is_refused_by_name(gen: Command, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"")
    code, said = gen.train("text", tmp_path / "lines.txt")
    assert code == 4 and "lines.txt holds no text" in said


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_corpus_smaller_than_a_batch_is_refused_with_a_size_that_fits(plugin: str, gen: Command, tmp_path: Path) -> None:
    folder = good(plugin, tmp_path / "data")
    name = truncated(plugin, folder)
    code, said = gen.train(plugin, folder, "--set", "train.batch_size=64")
    assert code == 4 and "fewer than a batch of 64; use --set train.batch_size=" in said
    assert name in said.partition("left out: ")[2]
    code, said = gen.train(plugin, good(plugin, tmp_path / "few", 2))
    assert code == 4 and "samples leave nothing for" in said and "bring more data" in said


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_single_class_trains(plugin: str, gen: Command, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    good(plugin, folder if plugin == "text" else folder / "only")
    more = []
    if plugin == "text":
        lines = (json.dumps({"text": f"{i} cats sat on {i % 9} mats", "kind": "cats"}) for i in range(NUM_GOOD))
        (folder / "lines.jsonl").write_text("\n".join(lines))
        more = ["--options.label_field", "kind"]
    code, said = gen.train(plugin, folder, *more)
    assert code == 0, said
    code, said = gen("sample", tmp_path / "run", "-n", 2)
    assert code == 0, said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[train\nsteps = 1\n", "is not valid TOML"),
        (b"[train]\nstps = 1\n", "run.toml:2); did you mean 'steps'"),
        (b"loss = '\xff'\n", "is not UTF-8 text (byte 8)"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_an_unreadable_configuration_is_named(content: bytes | None, message: str, gen: Command, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.mkdir() if content is None else file.write_bytes(content)
    for command in (("train", "--out", tmp_path / "run"), ("config", "validate")):
        code, said = gen(*command, "--plugin", "image", "--config", file)
        assert code == 2 and "run.toml" in said and message in said, said
    assert not (tmp_path / "run").exists()


def test_a_configuration_without_permission_is_named(gen: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.toml").write_text("")

    opened = Path.open

    def refuse(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == "run.toml":
            raise PermissionError(13, "Permission denied")
        return opened(path, *given, **named)

    monkeypatch.setattr(Path, "open", refuse)  # a test may run as root, whom no mode keeps out
    code, said = gen("config", "validate", "--plugin", "image", "--config", tmp_path / "run.toml")
    assert code == 2 and "run.toml cannot be read: Permission denied" in said


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss=hnge", "did you mean 'hinge'?"),
        ("penalties.wgan_pg.weight=1", "did you mean 'wgan_gp'?"),
        ("estimator.name='path'", "path"),
    ],
)
def test_a_name_that_training_would_refuse_does_not_validate(override: str, message: str, gen: Command) -> None:
    code, said = gen("config", "validate", "--plugin", "image", "--set", override)
    assert code == 2 and message in said, said


def test_a_missing_plugin_is_answered_with_the_nearest(gen: Command, tmp_path: Path) -> None:
    code, said = gen("train", "--plugin", "imgae", "--out", tmp_path / "run")
    assert code == 3 and "did you mean 'image'" in said and "gen plugins list" in said
    code, said = gen("train", "--plugin", "./absent.py", "--out", tmp_path / "run")
    assert code == 3 and "absent.py cannot be read" in said
    assert not (tmp_path / "run").exists()


def pack(folder: Path, archive: Path) -> Path:
    """The files of a folder in one archive, below a folder of their own."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as whole:
            for file in sorted(folder.rglob("*")):
                whole.write(file, Path("mine") / file.relative_to(folder))
    else:
        with tarfile.open(archive, f"w:{archive.suffix[1:]}") as whole:
            whole.add(folder, "mine")
    return archive


@pytest.mark.parametrize(("plugin", "kind"), [("image", "data.zip"), ("audio", "data.tar.gz"), ("text", "data.tar.xz")])
def test_an_archive_is_as_good_as_its_folder(plugin: str, kind: str, gen: Command, tmp_path: Path) -> None:
    folder = good(plugin, tmp_path / "data")
    archive = pack(folder, tmp_path / kind)
    assert gen.train(plugin, folder, "--out", tmp_path / "one")[0] == 0
    code, said = gen.train(plugin, archive, "--out", tmp_path / "two", "--set", "train.steps=2", "--stop-after", 1)
    assert code == 0, said
    prints = [json.loads((tmp_path / run / "run.json").read_text())["fingerprint"] for run in ("one", "two")]
    assert prints[0] == prints[1]
    code, said = gen("resume", tmp_path / "two", "--device", "cpu")
    assert code == 0, said


def test_an_archive_with_bad_content_is_named_beside_the_complaint(gen: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.pdf").write_bytes(b"%PDF")
    (tmp_path / "data" / "more.pdf").write_bytes(b"%PDF")
    code, said = gen.train("image", pack(tmp_path / "data", tmp_path / "data.zip"))
    assert code == 4 and "data.zip, unpacked: " in said and "no images" in said


def evil_zip(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "w") as whole:
        whole.writestr(name, "x")
    return path


def evil_tar(path: Path, name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Path:
    with tarfile.open(path, "w") as whole:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
        whole.addfile(info, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize(
    "name", ["../outside.png", "/tmp/outside.png", "a/../../outside.png", "C:\\outside.png", "..\\outside.png"]
)
def test_an_archive_that_points_outside_of_itself_is_refused(name: str, gen: Command, tmp_path: Path) -> None:
    for archive in (evil_zip(tmp_path / "evil.zip", name), evil_tar(tmp_path / "evil.tar", name)):
        code, said = gen.train("image", archive)
        assert code == 4 and archive.name in said and "outside" in said and "points outside of the archive" in said
    assert not list(tmp_path.rglob("outside.png")) and not Path("/tmp/outside.png").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_an_archive_with_a_link_or_device_is_refused(kind: bytes, gen: Command, tmp_path: Path) -> None:
    code, said = gen.train("image", evil_tar(tmp_path / "evil.tar", "a.png", kind, "/etc/passwd"))
    assert code == 4 and "'a.png' is a link or device" in said


def test_a_link_in_a_zip_is_refused(gen: Command, tmp_path: Path) -> None:
    info = zipfile.ZipInfo("a.png")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as whole:
        whole.writestr(info, "/etc/passwd")
    code, said = gen.train("image", tmp_path / "evil.zip")
    assert code == 4 and "'a.png' is a link" in said


def test_an_archive_that_unpacks_to_too_much_is_refused_and_leaves_nothing(
    gen: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ADVGEN_MAX_UNPACKED_GIB", "0.00001")  # 10,737 bytes
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr("train-images-idx3-ubyte", b"\0" * 20_000)
    code, said = gen.train("image", tmp_path / "bomb.zip")
    assert code == 4 and "unpacks to more than" in said and "give the folder" in said
    assert not (tmp_path / "cache").exists()


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [truncate, flip, lambda content: b"", lambda content: b"not an archive at all"])
@pytest.mark.parametrize("kind", ["data.zip", "data.tar.gz", "data.tar.xz"])
def test_a_damaged_archive_is_refused_by_name(
    kind: str, damage: Callable[[bytes], bytes], gen: Command, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    for number in range(3):
        (tmp_path / "data" / f"{number}.png").write_bytes(np.random.default_rng(number).bytes(4000))
    archive = pack(tmp_path / "data", tmp_path / kind)
    archive.write_bytes(damage(archive.read_bytes()))
    code, said = gen.train("image", archive)
    assert code == 4 and kind in said, said
    # What is damaged inside of a zip, which is read in place, is damage of single images.
    reasons = ("damaged", "holds no files", "cannot be read", "none of the 3 images")
    assert any(reason in said for reason in reasons), said


def test_an_archive_of_one_file_is_that_file(tmp_path: Path) -> None:
    from advgen.data.archives import unpacked

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "points.csv").write_text("1,2\n")
    found = unpacked(pack(tmp_path / "mine", tmp_path / "points.zip"))
    assert found.name == "points.csv" and found.read_text() == "1,2\n"
    assert unpacked(tmp_path / "points.zip") == found


def test_a_truncated_idx_file_is_refused_by_name(gen: Command, tmp_path: Path) -> None:
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 100, 8, 8) + bytes(100))
    code, said = gen.train("image", tmp_path / "idx")
    assert code == 4 and "train-images-idx3-ubyte holds 100 bytes of data, expected 6400" in said


def test_a_run_to_start_from_that_does_not_exist_leaves_no_run_folder(gen: Command, tmp_path: Path) -> None:
    for _ in range(2):
        code, said = gen.train("image", good("image", tmp_path / "data"), "--from", tmp_path / "nope")
        assert code == 5 and f"{tmp_path}/nope is not a run folder" in said, said
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_plugin_of_which_nothing_fits_is_refused(gen: Command, tmp_path: Path) -> None:
    assert gen.train("image", good("image", tmp_path / "data"), "--out", tmp_path / "first")[0] == 0
    code, said = gen.train("text", good("text", tmp_path / "lines"), "--from", tmp_path / "first")
    assert code == 5 and "a run of plugin 'image', fits this run of plugin 'text'" in said, said
    assert not (tmp_path / "run").exists()


def test_resuming_on_changed_data_is_answered_with_a_command_that_works(gen: Command, tmp_path: Path) -> None:
    data, run = good("image", tmp_path / "data"), tmp_path / "run"
    assert gen.train("image", data, "--set", "train.steps=2", "--stop-after", 1)[0] == 0
    picture(data / "more.png", 999)
    code, said = gen("resume", run, "--device", "cpu")
    assert code == 5 and f"gen train --config {run / 'config.toml'} --data {data} --from {run}" in said, said
    anew = said.split("start anew with: gen ")[1].split()
    code, said = gen.train("image", data, *anew[1:], "--out", tmp_path / "anew")
    assert code == 0, said


def test_a_run_whose_data_is_gone_tells_where_it_was(gen: Command, tmp_path: Path) -> None:
    data, run = good("image", tmp_path / "data"), tmp_path / "run"
    assert gen.train("image", data, "--set", "train.steps=2", "--stop-after", 1)[0] == 0
    data.rename(tmp_path / "elsewhere")
    for command in ("resume", "evaluate"):
        code, said = gen(command, run, "--device", "cpu")
        assert code == 4 and f"{data} does not exist; the run was trained on what was there: put it back" in said, said
        assert "--data takes" not in said and "--from RUN" in said


def test_divergence_is_answered_with_the_learning_rates_of_both_players(gen: Command, tmp_path: Path) -> None:
    more = ("--set", "generator.learning_rate=1e30", "--steps", 20)
    code, said = gen.train("image", good("image", tmp_path / "data"), *more)
    assert code == 6 and "lower generator.learning_rate or discriminator.learning_rate" in said, said


def test_recordings_of_every_kind_train_a_vocoder_and_what_cannot_be_used_is_named(gen: Command, tmp_path: Path) -> None:
    folder = good("audio", tmp_path / "data", 30)
    wave = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    soundfile.write(folder / "stereo.wav", wave, 16000, subtype="PCM_24")
    soundfile.write(folder / "coarse.wav", wave[:, 0], 11025, subtype="PCM_U8")
    soundfile.write(folder / "clipped.wav", np.clip(50 * wave[:, 0], -1, 1), 8000)
    soundfile.write(folder / "above.wav", 300 * wave[:, 0], 8000, subtype="FLOAT")
    soundfile.write(folder / "short.wav", wave[:40, 0], 8000)
    soundfile.write(folder / "one.wav", wave[:1, 0], 8000)
    soundfile.write(folder / "silent.wav", np.zeros(2000), 8000)
    soundfile.write(folder / "infinite.wav", np.full(2000, np.inf, np.float32), 8000, subtype="FLOAT")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "a folder.wav").mkdir()
    small = ["options.vocoder_channels=16", "options.vocoder_blocks=1", "options.critics='small'", "options.segment=1024"]
    sets = [word for each in (*small, "train.log_every=1") for word in ("--set", each)]
    code, said = gen.train("audio", folder, "--preset", "vocos-small", *sets, "--steps", 2)
    assert code == 0, said
    skipped = json.loads((tmp_path / "run" / "run.json").read_text())["skipped"]
    assert sorted(skipped) == [
        "empty.wav: 0 bytes",
        "infinite.wav: holds samples that are not finite",
        "silent.wav: is silent",
    ]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2 and all(np.isfinite(value) for row in rows for value in row.values())


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="needs /dev/null")
def test_what_is_neither_file_nor_folder_is_no_text(gen: Command) -> None:
    code, said = gen("data", "inspect", "/dev/null", "--plugin", "text")
    assert code == 4 and "/dev/null is neither a file nor a folder" in said
