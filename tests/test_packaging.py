"""What the wheel holds, and that checkout and wheel both run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import advgen
from advgen.registry import BUILTIN

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_entry_points_and_the_built_in_table_agree(project: dict[str, Any]) -> None:
    assert project["project"]["entry-points"]["advgen.plugins"] == BUILTIN
    assert project["project"]["scripts"] == dict.fromkeys(["gen", "advgen"], "advgen.cli:command")


def test_the_version_stands_in_both_places(project: dict[str, Any]) -> None:
    assert project["project"]["version"] == advgen.__version__


def test_the_wheel_lists_every_package(project: dict[str, Any]) -> None:
    packages = {
        str(path.parent.relative_to(ROOT)) for path in [*ROOT.glob("core/*/__init__.py"), *ROOT.glob("plugins/*/__init__.py")]
    }
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == packages


def test_the_source_roots_are_no_packages() -> None:
    assert not [root for root in ("core", "plugins") if (ROOT / root / "__init__.py").exists()]


def test_files_that_the_metadata_names_exist(project: dict[str, Any]) -> None:
    for name in [project["project"]["readme"], *project["project"]["license-files"]]:
        assert (ROOT / name).is_file()


def test_every_dependency_has_its_reason(project: dict[str, Any]) -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text().lower()
    extras = [entry for entries in project["project"]["optional-dependencies"].values() for entry in entries]
    for requirement in [*project["project"]["dependencies"], *extras]:
        name = re.split(r"[<>=!~;\[ ]", requirement)[0]
        assert f"`{name.lower()}" in reasons, f"{name} has no reason in docs/dependencies.md"


def install_lines(page: str) -> list[str]:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("    ") and "pip install" in line and "-e " in line]


def test_the_two_commands_install_the_tested_set() -> None:
    run_it, test_it = install_lines("README.md")
    assert " pip install -c constraints.txt -e . && " in run_it.replace(".venv/bin/", " ")
    assert " pip install -c constraints.txt -e '.[dev]' && " in test_it.replace(".venv/bin/", " ")


def test_contributors_and_ci_install_the_tested_set() -> None:
    assert install_lines("CONTRIBUTING.md") == [
        "    python -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[dev]'"
    ]
    assert '\ncreate "$folder/tested" -c constraints.txt\n' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_source_distribution_holds_every_file_but_the_one_for_git(project: dict[str, Any]) -> None:
    included = project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    tops = {name.split("/")[0] for name in listed.stdout.splitlines()}
    assert tops - set(included) == {".gitignore", "pyproject.toml"} and set(included) <= tops


def plugins_of(command: list[str], folder: Path, environment: dict[str, str]) -> dict[str, str]:
    answer = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return {record["name"]: record["status"] for record in json.loads(answer.stdout)}


def test_a_checkout_that_is_not_installed_runs(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = plugins_of([sys.executable, str(ROOT / "cli.py"), "plugins", "list", "--json"], tmp_path, environment)
    assert {name: found[name] for name in BUILTIN} == dict.fromkeys(BUILTIN, "ok")


def test_the_wheel_holds_no_generic_top_level_package_and_runs_outside_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    top = {name.split("/")[0] for name in names}
    assert top == {"advgen", "advgen_image", "advgen_audio", "advgen_text", f"advgen-{advgen.__version__}.dist-info"}
    assert "advgen/py.typed" in names and f"advgen-{advgen.__version__}.dist-info/licenses/LICENSE" in names
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    found = plugins_of([sys.executable, "-m", "advgen", "plugins", "list", "--json"], tmp_path, environment)
    assert {name: found[name] for name in BUILTIN} == dict.fromkeys(BUILTIN, "ok")
