"""The conformance suite on the three built-ins and on the example."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from advgen.testing import Check, check_plugin, conformance_checks

sys.path.insert(0, str(Path(__file__).parent))
from conftest import TINY

SOURCE = Path(__file__).parents[1] / "examples" / "advgen-points" / "src"
POINTS = ["options.num_points=2000", "options.width=16"]
JUDGES = ("image", "audio")  # that take a minute to train
BUILT_IN = [
    pytest.param(
        check, id=f"{name}-{check}", marks=[pytest.mark.slow] if name in JUDGES and "judge_gives" in str(check) else []
    )
    for name, overrides in TINY.items()
    for check in conformance_checks(name, overrides=overrides)
]


def points_checks() -> list[Check]:
    sys.path.insert(0, str(SOURCE))
    try:
        return conformance_checks(importlib.import_module("advgen_points"), overrides=POINTS)
    finally:
        sys.path.remove(str(SOURCE))


@pytest.mark.parametrize("check", BUILT_IN)
def test_built_in_keeps_the_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize("check", points_checks(), ids=str)
def test_example_keeps_the_contract(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SOURCE))
    check()


def tutorial(folder: Path) -> Path:
    """The single-file plugin as the tutorial prints it."""
    page = (SOURCE.parents[2] / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    plugin = folder / "my_plugin.py"
    plugin.write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    return plugin


def test_the_single_file_plugin_of_the_tutorial_keeps_the_contract(tmp_path: Path) -> None:
    passed = check_plugin(str(tutorial(tmp_path)))
    assert "resumes_exactly" in passed and "trains_with[relativistic]" in passed


def test_every_check_stands_in_the_tutorial() -> None:
    page = (SOURCE.parents[2] / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    names = {check.name.split("[")[0] for check in conformance_checks("image")}
    assert not [name for name in names if f"`{name}" not in page]
