"""``gen env``, ``gen plugins list``, and imports that are checked before a run begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import environment

import advgen
from advgen.cli import main
from advgen.environment import Dependency, dependencies, environment_lines, remedies
from advgen.errors import PluginError
from advgen.inspection import PluginRecord
from advgen.optional_imports import import_requirements, needed_import, try_import
from advgen.probing import ask, module_of
from advgen.spec import PluginSpec

# Imports fail as the variables say: HIDDEN raises, CRASHING ends the process, HANGING never returns.
SABOTAGE = """
import os, sys, time

class Saboteur:
    def find_spec(self, name, path=None, target=None):
        if name in os.environ.get("HIDDEN", "").split(","):
            raise OSError(f"/usr/lib/{name}.so: undefined symbol: gone")
        if name in os.environ.get("CRASHING", "").split(","):
            os._exit(9)
        if name in os.environ.get("HANGING", "").split(","):
            time.sleep(1000)

sys.meta_path.insert(0, Saboteur())
"""


@pytest.fixture
def sabotaged(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment of a process in which imports fail as HIDDEN, CRASHING and HANGING say."""
    (tmp_path / "sabotage").mkdir()
    (tmp_path / "sabotage" / "sitecustomize.py").write_text(SABOTAGE)
    paths = os.pathsep.join([str(tmp_path / "sabotage"), environment(root)["PYTHONPATH"]])
    return environment(root) | {"PYTHONPATH": paths}


def gen(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "advgen", *arguments], env=variables, capture_output=True, text=True, check=False
    )


def test_a_module_that_crashes_or_hangs_is_named_and_the_others_are_answered(
    sabotaged: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (sabotaged | {"CRASHING": "colorsys", "HANGING": "wave"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(sabotaged["PYTHONPATH"].split(os.pathsep)[0])
    first, crashed, hung, absent, last = ask(
        ["module:json", "module:colorsys", "module:wave", "module:no_such_module", "module:csv"], limit_seconds=3.0
    )
    assert first["loads"] and last["loads"]
    assert "exit code 9" in crashed["failed"] and "did not finish within 3 seconds" in hung["failed"]
    assert absent["missing"] and not absent["loads"]


def test_env_reports_what_does_not_load_with_its_remedy(sabotaged: dict[str, str]) -> None:
    hidden = "torchaudio,tokenizers,datasets,transformers,onnx,onnxruntime,onnxscript"  # the last five only take time
    done = gen(sabotaged | {"HIDDEN": hidden}, "env", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    packages = report["packages"]
    assert report["advgen"] == advgen.__version__ and packages["numpy"]["status"] == "ok"
    assert packages["tokenizers"]["status"] == "does not load"
    assert packages["tokenizers"]["reason"] == "OSError: tokenizers.so: undefined symbol: gone"
    assert packages["tokenizers"]["remedy"].startswith('pip install --force-reinstall "tokenizers>=')
    assert report["pair"]["works"] is False and "own code" in report["pair"]["audio"]
    assert report["devices"]["threads"] >= 1 and report["cache"]["writable"]
    assert {each["name"]: each["status"] for each in report["plugins"]} == {"audio": "ok", "image": "ok", "text": "broken"}
    assert any(line.startswith("tokenizers does not load") for line in remedies(report))
    lines = "\n".join(environment_lines(report))
    for expected in (f"advgen {advgen.__version__}, Python 3", "devices: cpu", "cache: ", "with its own code"):
        assert expected in lines


def test_plugins_are_listed_truthfully_when_modules_do_not_load(sabotaged: dict[str, str]) -> None:
    done = gen(sabotaged | {"CRASHING": "soundfile", "HIDDEN": "tokenizers"}, "plugins", "list", "--json")
    assert done.returncode == 0, done.stderr
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert {name: each["status"] for name, each in found.items()} == {"audio": "broken", "image": "ok", "text": "broken"}
    assert "exit code 9" in found["audio"]["reason"]
    assert "tokenizers does not load (OSError: tokenizers.so: undefined symbol: gone)" in found["text"]["reason"]


def test_a_module_that_does_not_load_refuses_the_run_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "soundfile.py").write_text("raise OSError('/usr/lib/libsndfile.so: undefined symbol: gone')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "soundfile", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--plugin", "audio", "--out", str(tmp_path / "run")])
    told = capsys.readouterr().err
    assert ended.value.code == 3 and not (tmp_path / "run").exists() and len(told.splitlines()) == 1
    assert "soundfile does not load (OSError: libsndfile.so: undefined symbol: gone); pip install --force-reinstall" in told


def record(**fields: dict[str, str]) -> PluginRecord:
    spec = PluginSpec(name="fake", summary="", config="a:b", modality="a:b", **fields)
    return PluginRecord("fake", "ok", spec=spec)


def test_optional_modules_are_remarked_on_and_required_ones_refused() -> None:
    assert import_requirements(record(requires={"json": "json"}, optional={"csv": "never said"})) == []
    (line,) = import_requirements(record(optional={"no_such_module": "it is done by hand"}))
    assert line == "no_such_module is not installed: it is done by hand; gen env says what to do about it"
    with pytest.raises(PluginError, match=r"'fake' cannot run: no_such_module is not installed; pip install \"no>=2\""):
        import_requirements(record(requires={"no_such_module": "no>=2"}))


def test_a_needed_package_names_who_needs_it() -> None:
    assert needed_import("json", "--x", "pip install y").__name__ == "json"
    with pytest.raises(PluginError, match="--x needs the package no_such, which is not installed; pip install y"):
        needed_import("no_such.part", "--x", "pip install y")


def test_the_reason_is_the_first_cause_with_file_names_for_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = "raise OSError('/opt/lib/x.so: undefined symbol: f')"
    code = f"try:\n    {failing}\nexcept OSError as error:\n    raise RuntimeError('no') from error\n"
    (tmp_path / "chained_failure.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    attempt = try_import("chained_failure")
    assert not attempt and not attempt.missing and attempt.reason == "OSError: x.so: undefined symbol: f"


def test_dependencies_are_those_of_the_project_without_the_developers() -> None:
    found = {each.name: each for each in dependencies()}
    assert {"torch", "torchaudio", "pillow", "datasets", "tensorboard"} <= set(found) and "ruff" not in found
    assert found["datasets"].extra == "hub" and found["datasets"].remedy == 'pip install "advgen[hub]"'
    assert found["torch"].extra == "" and isinstance(found["torch"], Dependency)
    assert (module_of("pillow"), module_of("pytest-xdist"), module_of("no-such-thing")) == ("PIL", "xdist", "no_such_thing")
