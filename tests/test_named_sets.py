"""Named data sets: fetched from where they are published (here a server of the test), checked, kept, and refused offline."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from advgen import DataError, DataSet, RemoteFile
from advgen.cache import cache_folder
from advgen.cli import main
from advgen.data.datasets import fetch, is_fetched, named_sets, whole_path

PLUGIN = """
from advgen import DataSet, PluginConfig, PluginSpec, RemoteFile, hookimpl
from advgen_audio.config import AudioConfig
from advgen_audio.modality import AudioModality

@hookimpl
def advgen_register():
    files = (RemoteFile("clips.zip", "{url}/clips.zip", "{sha256}"),)
    return PluginSpec(name="mine", summary="Mine.", config="advgen_audio.config:AudioConfig",
        modality="advgen_audio.modality:AudioModality",
        datasets={{"clips": DataSet("clips", "{url}", "none", files, inside="wav")}},
        presets={{"default": {{"train": {{"steps": 2, "batch_size": 4}}}}}})
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder without a word; ``short.bin`` ends before its announced length."""

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if not self.path.endswith("short.bin"):
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address on this machine and the folder behind it."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def a_set(*files: RemoteFile, inside: str = "") -> DataSet:
    return DataSet("a set", "http://nowhere.invalid", "none", files, inside)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_path_is_kept_whole_and_without_steps_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real" / "inner")
    monkeypatch.chdir(tmp_path)
    assert whole_path("real/../x") == str(tmp_path.resolve() / "x")
    assert whole_path("link/../x") == str(tmp_path.resolve() / "real" / "x")  # as the system follows it
    assert whole_path("link") == str(Path.cwd() / "link")


def test_files_are_fetched_once_checked_and_kept(served: tuple[str, Path]) -> None:
    url, folder = served
    (folder / "a.txt").write_bytes(b"first")
    (folder / "b.txt").write_bytes(b"second")
    entry = a_set(
        RemoteFile("train.txt", f"{url}/a.txt", hashlib.sha256(b"first").hexdigest()), RemoteFile("test.txt", f"{url}/b.txt")
    )
    assert not is_fetched("mine", entry)
    place = fetch("mine", entry)
    assert {file.name: file.read_bytes() for file in place.iterdir()} == {"train.txt": b"first", "test.txt": b"second"}
    (folder / "a.txt").unlink()
    assert fetch("mine", entry) == place and is_fetched("mine", entry)


def test_a_file_that_is_not_the_published_one_is_refused_and_nothing_kept(served: tuple[str, Path]) -> None:
    url, folder = served
    (folder / "a.txt").write_bytes(b"tampered")
    entry = a_set(RemoteFile("train.txt", f"{url}/a.txt", hashlib.sha256(b"first").hexdigest()))
    with pytest.raises(DataError, match=r"gave 8 bytes with sha256 .* expected .*; nothing was kept"):
        fetch("mine", entry)
    assert not is_fetched("mine", entry) and not list((cache_folder() / "sets").iterdir())


def test_a_missing_file_a_cut_connection_and_no_network_are_told_with_the_way_out(served: tuple[str, Path]) -> None:
    url, _ = served
    with pytest.raises(DataError, match=r"absent.txt answers 404 .*yourself and give its place with --data PATH"):
        fetch("mine", a_set(RemoteFile("a", f"{url}/absent.txt")))
    with pytest.raises(DataError, match=r"ended after 4 of 1000 bytes"):
        fetch("mine", a_set(RemoteFile("a", f"{url}/short.bin")))
    with pytest.raises(DataError, match=r"no network .*download http://127.0.0.1:9/a yourself"):
        fetch("mine", a_set(RemoteFile("a", "http://127.0.0.1:9/a")))
    assert not list((cache_folder() / "sets").iterdir())


def gen(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def packed(folder: Path) -> str:
    """Forty clips in an archive, in a folder beside other things; its sha256."""
    with zipfile.ZipFile(folder / "clips.zip", "w") as whole:
        for number in range(40):
            soundfile.write(folder / "a.wav", 0.3 * np.random.default_rng(number).standard_normal(1100), 8000)
            whole.write(folder / "a.wav", f"clips-1.0/wav/{number}.wav")
        whole.writestr("clips-1.0/README.md", "about")
    return hashlib.sha256((folder / "clips.zip").read_bytes()).hexdigest()


def test_a_run_on_a_named_set_fetches_it_and_resumes_on_it(
    served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, folder = served
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN.format(url=url, sha256=packed(folder)))
    monkeypatch.chdir(tmp_path)
    small = [f"--options.{name}" for name in ("channels", "blocks", "wave_critic_channels", "spectral_critic_channels")]
    words = [word for pair in zip(small, (8, 1, 2, 2), strict=True) for word in pair]
    code = gen("train", "--plugin", plugin, "--data", "clips", *words, "--stop-after", 1, "--device", "cpu", "--out", "run")
    said = capsys.readouterr().err
    assert code == 0 and f"fetching clips: {url}/clips.zip" in said, said
    assert 'path = "clips"' in (tmp_path / "run" / "config.toml").read_text()
    (folder / "clips.zip").unlink()  # once is enough
    assert gen("resume", "run", "--plugin", "run/plugin/mine.py", "--device", "cpu") == 0
    capsys.readouterr()
    assert gen("data", "inspect", "clips", "--plugin", plugin, "--json") == 0
    assert json.loads(capsys.readouterr().out)["count"] == 40


def test_a_folder_of_that_name_comes_before_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fsdd").mkdir()
    for number in range(3):
        soundfile.write(tmp_path / "fsdd" / f"{number}.wav", 0.3 * np.random.default_rng(number).standard_normal(1100), 8000)
    assert gen("data", "inspect", "fsdd", "--plugin", "audio", "--json") == 0


def test_the_sets_of_the_built_in_plugins_are_listed_and_named_where_a_path_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert gen("data", "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert {name: row["plugin"] for name, row in rows.items()} == {"mnist": "image", "fsdd": "audio", "coco-captions": "text"}
    assert not any(row["fetched"] for row in rows.values())
    for _, entry in named_sets().values():
        assert entry.licence and all(file.url.startswith("https://") for file in entry.files)
        assert all(file.sha256 is None or len(file.sha256) == 64 for file in entry.files)
    assert gen("train", "--plugin", "image", "--data", "minst", "--out", tmp_path / "run") == 4
    assert "or a named set: mnist" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train", "--plugin", "text", "--data"], ["data", "inspect"]])
def test_a_name_near_that_of_a_set_is_answered_with_the_set(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert gen(*command, "coco_captions") == 4
    assert "coco_captions does not exist; did you mean the data set 'coco-captions'? " in capsys.readouterr().err
    assert gen(*command, "elsewhere/coco_captions") == 4
    assert "did you mean" not in capsys.readouterr().err
