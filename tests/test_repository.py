"""Workflows, issue forms, hooks, the Docker image and the citation name only files and commands that exist."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))


def read(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def jobs(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from read(path)["jobs"].items()


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for _, job in jobs(path):
        yield from job.get("steps", [])


def run_lines(path: Path) -> str:
    return "\n".join(step["run"] for step in steps(path) if "run" in step)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_four_workflows_are_here() -> None:
    assert [path.name for path in WORKFLOWS] == ["drift.yml", "release.yml", "tests.yml", "wheel.yml"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_a_workflow_may_only_read_unless_a_job_says_more(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    for name, job in jobs(path):
        wanted = {"id-token": "write"} if (path.name, name) == ("release.yml", "publish") else {"contents": "read"}
        assert job["permissions"] == wanted, name


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_every_job_has_a_time_limit(path: Path) -> None:
    for name, job in jobs(path):
        # A job that calls another workflow cannot have one; the jobs of the other workflow have theirs.
        assert ("timeout-minutes" in job) != ("uses" in job), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_actions_are_pinned(path: Path) -> None:
    named = [step["uses"] for step in steps(path) if "uses" in step]
    assert [name for name in named if not re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+|[0-9a-f]{40})", name)] == []
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_files_that_a_workflow_names_exist(path: Path) -> None:
    called = [job["uses"] for _, job in jobs(path) if "uses" in job]
    uploaded = "\n".join(step["with"]["path"] for step in steps(path) if step.get("uses", "").startswith("actions/upload-"))
    named = re.findall(r"(?:trial/)?((?:tools|\.ci)/[\w.]+|constraints[\w-]*\.txt)", run_lines(path) + "\n" + uploaded)
    assert [name for name in [*called, *named] if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=name_of)
def test_commands_that_a_workflow_names_exist(path: Path) -> None:
    text = run_lines(path)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    made = re.findall(r"^make ((?:[\w-]+ )+)PYTHON=", text, re.MULTILINE)
    assert {target for line in made for target in line.split()} <= targets
    assert set(re.findall(r"\.\[(\w+)\]", text)) <= set(PROJECT["project"]["optional-dependencies"])
    modules = set(re.findall(r" -m (\w+)", text))
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_tests_run_on_every_python_and_system_that_is_supported() -> None:
    matrix = read(".github/workflows/tests.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert matrix == {"os": ["ubuntu-latest", "macos-latest", "windows-latest"], "python": PYTHONS}
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"


@pytest.mark.parametrize(("name", "job"), [("drift", "drift"), ("wheel", "try")])
def test_other_workflows_run_the_oldest_and_the_newest_python(name: str, job: str) -> None:
    assert read(f".github/workflows/{name}.yml")["jobs"][job]["strategy"]["matrix"]["python"] == [PYTHONS[0], PYTHONS[-1]]


def test_tests_run_with_the_command_of_the_readme() -> None:
    (command,) = re.findall(r"^ {4}(python -m venv .*pytest)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    text = run_lines(ROOT / ".github" / "workflows" / "tests.yml")
    assert command in re.sub(r'"\$bin/(\w+)"', r".venv/bin/\1", text)


def test_the_trial_of_a_wheel_calls_commands_that_exist() -> None:
    specification = importlib.util.spec_from_file_location("tools_smoke", ROOT / "tools" / "smoke.py")
    assert specification is not None and specification.loader is not None
    smoke: Any = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(smoke)
    called = {arguments[0] for arguments in smoke.commands() if not arguments[0].startswith("-")}
    assert called == {"plugins", "env", "train", "sample"}
    page = subprocess.run([sys.executable, str(ROOT / "cli.py"), "--help"], capture_output=True, text=True, check=True).stdout
    assert called <= set(re.findall(r"^\W*(\w+) ", page, re.MULTILINE))


def test_only_a_tag_of_the_tested_version_is_published() -> None:
    workflow = read(".github/workflows/release.yml")
    # YAML 1.1 reads the key `on` as true.
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    publish = workflow["jobs"]["publish"]
    assert publish["environment"] == "pypi" and set(publish["needs"]) == {"tests", "wheel"}
    assert {workflow["jobs"][name]["needs"] for name in publish["needs"]} == {"version"}
    assert not [step for step in publish["steps"] if "run" in step]


@pytest.mark.parametrize("path", FORMS, ids=name_of)
def test_an_issue_form_is_whole(path: Path) -> None:
    form = read(path)
    assert form["name"] and form["description"] and form["labels"]
    asked = [item for item in form["body"] if item["type"] != "markdown"]
    assert {item["type"] for item in asked} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert all(item["attributes"]["label"] for item in asked)
    assert len({item["id"] for item in asked}) == len(asked)
    assert any(item.get("validations", {}).get("required") for item in asked)


@pytest.mark.parametrize("name", ["bug", "plugin"])
def test_whoever_reports_a_fault_is_asked_for_the_environment(name: str) -> None:
    asked = {item["attributes"]["label"]: item for item in read(f".github/ISSUE_TEMPLATE/{name}.yml")["body"] if "id" in item}
    assert asked["Output of `gen env --json`"]["validations"]["required"]


def test_hooks_run_the_tools_of_the_environment() -> None:
    developed = {re.split("[>=]", text)[0] for text in PROJECT["project"]["optional-dependencies"]["dev"]}
    (local,) = read(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    for hook in local["hooks"]:
        assert hook["language"] == "system" and hook["entry"].split()[:2] == ["python", "-m"]
        assert hook["entry"].split()[2] in developed


def test_the_citation_is_of_this_version() -> None:
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == PROJECT["project"]["version"]
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_image_copies_what_exists_installs_the_tested_set_and_is_not_run_by_root() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    admitted = [line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists() and any(fnmatch(name, pattern) for pattern in admitted), name
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["advgen"]
    assert "cp constraints.txt used.txt" in text and " -c used.txt " in text
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    python = re.findall(r"^FROM python:(3\.\d+)-slim$", text, re.MULTILINE)
    assert python and set(python) <= set(PYTHONS)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```|`[^`]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), target
        if anchor:
            assert anchor in headings(page), target


def headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
