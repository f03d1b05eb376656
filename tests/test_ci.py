"""The script for fresh machines, with a stand-in for Python: the verdict is that of the tests, whatever other packages do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or shutil.which("timeout") is None,
    reason="the script is for bash and the timeout of GNU or BusyBox",
)

# `python -m venv FOLDER` puts itself there, as python and as pip; what it is asked to do is logged.
STAND_IN = """#!/bin/bash
echo "$(basename "$(dirname "$(dirname "$0")")")/$(basename "$0") $*" >> "$LOGGED"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && cp "$0" "$3/bin/pip" ;;
    "-m pytest"*) echo "7 passed in 0.01s"; exit "${TESTS:-0}" ;;
    "tools/smoke.py --tests") echo "9 failed in 0.01s"; echo "the trial's last line"; exit "${TRIAL:-0}" ;;
esac
"""


def run(folder: Path, *arguments: str, **variables: str) -> tuple[int, list[str], list[str]]:
    """Return the exit code, the lines that were printed, and the commands that ran."""
    python, logged = folder / "stand-in", folder / "logged.txt"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTHON")}
    environment |= {"PYTHON": str(python), "LOGGED": str(logged), "TMPDIR": str(folder), **variables}
    bash = shutil.which("bash")
    assert bash is not None
    answer = subprocess.run([bash, str(ROOT / ".ci" / "run"), *arguments], env=environment, capture_output=True, text=True)
    return answer.returncode, answer.stdout.splitlines(), logged.read_text().splitlines()


def test_the_tests_run_on_the_tested_set_with_the_options_that_are_given(tmp_path: Path) -> None:
    code, printed, commands = run(tmp_path, "-x", "tests/test_losses.py")
    assert (code, printed) == (0, ["7 passed in 0.01s"])
    assert "tested/pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]" in commands
    assert commands[-1] == "tested/python -m pytest -x tests/test_losses.py"


@pytest.mark.parametrize("code", [1, 5])
def test_a_failure_of_the_tests_is_the_exit_code_and_nothing_is_tried_after_it(tmp_path: Path, code: int) -> None:
    found, printed, commands = run(tmp_path, CI="true", TESTS=str(code))
    assert (found, printed) == (code, ["7 passed in 0.01s"])
    assert not [line for line in commands if "smoke" in line]


def test_ci_then_tries_the_newest_and_the_lowest_packages_a_line_each(tmp_path: Path) -> None:
    code, printed, commands = run(tmp_path, CI="true")
    assert code == 0
    assert printed[1:] == ["newest packages: the trial's last line", "lowest packages: the trial's last line"]
    installed = [line for line in commands if "-e .[dev]" in line]
    assert [("constraints.txt" in line, "constraints-lowest.txt" in line) for line in installed] == [
        (True, False),
        (False, False),
        (False, True),
    ]


def test_a_trial_that_fails_changes_no_verdict_and_shows_no_closing_line_of_its_own(tmp_path: Path) -> None:
    code, printed, _ = run(tmp_path, "--drift", TRIAL="3")
    assert code == 0
    assert printed[0] == "7 passed in 0.01s"
    assert printed[1:] == [
        f"{name} packages (not part of the verdict): exit code 3, the trial's last line" for name in ("newest", "lowest")
    ]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    run(tmp_path, "--drift")
    assert {path.name for path in tmp_path.iterdir()} == {"stand-in", "logged.txt"}


def test_a_trial_without_a_result_in_time_says_so(tmp_path: Path) -> None:
    code, printed, _ = run(tmp_path, "--drift", TRIAL="124")
    assert code == 0 and printed[1] == "newest packages: no result in four minutes"
