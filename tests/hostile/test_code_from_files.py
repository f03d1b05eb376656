"""A run, an exported folder or a configuration that names a plugin by a path runs no code, in any command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny
from PIL import Image

import advgen
from advgen.cli import main
from advgen.errors import GenError
from advgen.export import export_run

PAYLOAD = """
from pathlib import Path
Path({mark!r}).write_text("ran")
from advgen import hookimpl

@hookimpl
def advgen_register():
    return None
"""
COMMANDS = (
    "sample RUN -n 1 --out OUT",
    "sample RUN --help",
    "resume RUN",
    "evaluate RUN",
    "export RUN --format huggingface --out OUT",
    "verify RUN --key 1",
    "interpolate RUN --seeds 0-1",
    "mix RUN --coarse 0 --fine 1",
    "project RUN FILE",
    "sweep RUN --over truncation=1",
    "runs show RUN",
)
CONFIG_COMMANDS = (
    "train --config FILE --out OUT",
    "config show --config FILE",
    "config validate --config FILE",
    "config schema --config FILE",
)
DISGUISES: dict[str, Callable[[Path], str]] = {
    "absolute": str,
    "upper case": lambda path: str(path.rename(path.with_suffix(".PY"))),
    "relative": lambda path: f"./{path.name}",
    "bare name": lambda path: path.name,
    "backslashes": lambda path: f".\\\\{path.name}",
    "with a distribution": lambda path: f"advgen:{path}",
}


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and an exported folder, both whole."""
    folder = tmp_path_factory.mktemp("genuine")
    advgen.train("image", steps=1, out=folder / "run", overrides=tiny("image"), progress=False)
    export_run(folder / "run", "huggingface", folder / "export")
    return folder


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plugin file that leaves a mark when it runs; nothing may have run at the end of the test."""
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "mark"
    (tmp_path / "evil.py").write_text(PAYLOAD.format(mark=str(mark)))
    yield tmp_path / "evil.py"
    assert not mark.exists(), "the file's code ran"


def refused(line: str, places: dict[str, Path], capsys: pytest.CaptureFixture[str], count_trial: Callable[[], None]) -> None:
    """Run a command that must end with a refusal in one line, or without touching the plugin."""
    count_trial()
    words = [str(places.get(word, word)) for word in line.split()]
    with pytest.raises(SystemExit) as ended:
        main(words)
    told = capsys.readouterr().err
    assert "Traceback" not in told and "unexpected" not in told, told
    assert ended.value.code in ((2, 3, 5) if line not in ("runs show RUN", "sample RUN --help") else (0, 2, 3, 5)), told


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("kind", ["run", "export"])
def test_a_folder_that_names_a_plugin_file_runs_nothing(
    genuine: Path, payload: Path, kind: str, disguise: str, tmp_path: Path, capsys: Any, count_trial: Any
) -> None:
    shutil.copytree(genuine / kind, tmp_path / "theirs")
    about = tmp_path / "theirs" / ("run.json" if kind == "run" else "config.json")
    content = json.loads(about.read_text()) | {"plugin": DISGUISES[disguise](payload), "plugin_distribution": None}
    about.write_text(json.dumps(content))
    Image.new("RGB", (32, 32)).save(tmp_path / "x.png")
    places = {"RUN": tmp_path / "theirs", "OUT": tmp_path / "out", "FILE": tmp_path / "x.png"}
    for line in COMMANDS:
        refused(line, places, capsys, count_trial)
    with pytest.raises(GenError):
        advgen.load_generator(tmp_path / "theirs")


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("line", CONFIG_COMMANDS)
def test_a_configuration_that_names_a_plugin_file_runs_nothing(
    payload: Path, disguise: str, line: str, tmp_path: Path, capsys: Any, count_trial: Any
) -> None:
    name = json.dumps(DISGUISES[disguise](payload))
    (tmp_path / "theirs.toml").write_text(f"plugin = {name}\ntrain.steps = 1\n")
    refused(line, {"FILE": tmp_path / "theirs.toml", "OUT": tmp_path / "out"}, capsys, count_trial)
    assert not (tmp_path / "out").exists()


@pytest.mark.runs_code
def test_a_plugin_named_in_the_call_still_runs(genuine: Path, payload: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plugins", "show", str(payload)])
    assert (payload.parent / "mark").exists()
    (payload.parent / "mark").unlink()  # the fixture forbids it everywhere else
