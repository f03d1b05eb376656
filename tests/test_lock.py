"""The tested set and the lowest set: their files against pyproject.toml, and the script that writes them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent


def load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


lock: Any = load("lock")
TESTED: dict[str, Any] = lock.read(lock.TESTED)
LOWEST: dict[str, Any] = lock.read(lock.LOWEST)
DIRECT = sorted({str(requirement) for requirement in lock.direct()})


@pytest.mark.parametrize("text", DIRECT)
def test_the_tested_set_meets_every_bound_of_the_project(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.specifier.contains(TESTED[canonicalize_name(requirement.name)].version, prereleases=True)


@pytest.mark.parametrize("text", DIRECT)
def test_the_lowest_set_is_the_lower_bounds(text: str) -> None:
    name, bound = text.split(">=")
    assert Version(LOWEST[canonicalize_name(name)].version) == Version(bound.split(",")[0])


def test_the_lowest_set_has_nothing_else() -> None:
    assert set(LOWEST) == {canonicalize_name(Requirement(text).name) for text in DIRECT}


def test_bounds_in_the_documentation_are_those_of_the_project() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    written = dict(re.findall(r"`([\w-]+) >=([\d.]+)`", page))
    bounds = {Requirement(text).name: text.split(">=")[1] for text in DIRECT}
    assert written == {name: bounds[name] for name in written}
    assert {re.split(">=", text)[0] for text in lock.project()["project"]["dependencies"]} <= set(written)


@pytest.mark.parametrize("text", DIRECT)
def test_an_upper_bound_has_its_reason(text: str) -> None:
    name = Requirement(text).name
    for specifier in Requirement(text).specifier:
        if specifier.operator in ("<", "<=", "==", "~=", "!="):
            reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
            assert f"{name} {specifier}" in reasons or f"{name}{specifier}" in reasons


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_every_constraint_is_one_exact_version_in_order(name: str) -> None:
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_the_build_is_pinned_to_the_tested_set() -> None:
    pinned = dict(line.split("==") for line in lock.project()["build-system"]["requires"])
    assert pinned == {name: TESTED[name].version for name in pinned}
    assert set(lock.BUILD) <= set(pinned)


def test_installed_packages_of_the_tested_set_need_nothing_that_it_lacks() -> None:
    installed = {canonicalize_name(found.metadata["Name"]): found for found in distributions()}
    pins = {
        name: lock.Pin(pin.version, tuple(installed[name].requires or ()) if same_version(installed.get(name), pin) else ())
        for name, pin in TESTED.items()
    }
    assert [fault for environment in lock.environments() for fault in lock.unsatisfied(pins, environment)] == []


def same_version(found: Any, pin: Any) -> bool:
    return found is not None and found.version.split("+")[0] == pin.version


def test_supported_pythons_are_the_classifiers_and_start_at_requires_python() -> None:
    assert lock.pythons() == ["3.11", "3.12", "3.13", "3.14"]
    assert lock.project()["project"]["requires-python"] == f">={lock.pythons()[0]}"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return a project that needs `front`, which needs a package on Windows, one from Python 3.13 on and one for an extra."""
    monkeypatch.setattr(lock, "roots", lambda: [Requirement("front[more]>=1")])
    needs = (
        'paint; sys_platform == "win32"',
        'glue<2; python_version >= "3.13"',
        'nails>=3; extra == "more"',
        'ink; extra == "x"',
    )
    return {"front": lock.Pin("1.5", needs), "nails": lock.Pin("3.1"), "paint": lock.Pin("7"), "glue": lock.Pin("2.0")}


def place(python: str, system: str) -> Any:
    return next(found for found in lock.environments() if (found.python, found.system.name) == (python, system))


def test_markers_hold_for_the_named_environment_not_for_the_one_that_runs(planted: dict[str, Any]) -> None:
    assert lock.names_brought(planted, place("3.11", "Windows")) == {"front", "nails", "paint"}
    assert lock.names_brought(planted, place("3.14", "Linux")) == {"front", "nails", "glue"}
    assert lock.names_brought(planted, place("3.12", "Darwin")) == {"front", "nails"}


def test_pins_that_do_not_meet_a_requirement_are_named_with_who_asks(planted: dict[str, Any]) -> None:
    (fault,) = lock.unsatisfied(planted, place("3.13", "Linux"))
    assert fault == 'Python 3.13 on Linux: front needs glue<2; python_version >= "3.13", pinned is 2.0'
    del planted["paint"]
    (fault,) = lock.unsatisfied(planted, place("3.11", "Windows"))
    assert fault == 'Python 3.11 on Windows: front needs paint; sys_platform == "win32", which is not pinned'


def test_packages_that_only_another_system_brings_are_pinned_too(
    planted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def resolve(requirements: list[str], constraints: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
        asked.append((requirements, list(constraints)))
        return {name: pin for name, pin in planted.items() if name in ("front", "nails") or name in requirements}

    monkeypatch.setattr(lock, "resolve", resolve)
    assert set(lock.resolve_everywhere()) == {"front", "nails", "paint", "glue"}
    assert asked[1] == (["front[more]>=1", "glue", "paint"], ["front==1.5", "nails==3.1"])


def test_a_bound_that_differs_between_extras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "direct", lambda: [Requirement("front>=1"), Requirement("front>=2")])
    with pytest.raises(SystemExit, match=r"front>=2 should have one lower bound"):
        lock.lower_bounds()


@pytest.mark.parametrize("plugin", ["image", "audio", "text"])
def test_the_settings_of_the_trial_are_options_of_their_plugins(plugin: str) -> None:
    settings = [part for override in load("smoke").OVERRIDES[plugin] for part in ("--set", override)]
    show = [sys.executable, str(ROOT / "cli.py"), "config", "show", "--plugin", plugin, *settings]
    assert subprocess.run(show, capture_output=True, text=True, check=True).stdout.count("# --set") == len(settings) // 2


def test_the_tests_of_the_trial_exist() -> None:
    smoke: Any = load("smoke")
    assert [name for name in smoke.TESTS if not (ROOT / "tests" / name).is_file()] == []
