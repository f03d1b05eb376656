"""Trial imports in a child process, so that one that hangs, crashes or ends the interpreter affects nothing else.

The child gets one question per argument, such as ``module:scipy``, and answers each with a line of JSON. The first question
without an answer is the one that ended the child.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import IO, Any

LIMIT_SECONDS = 60.0
SHOWN_BYTES, MOST_BYTES = 4096, 2**24
Answer = dict[str, Any]


def ask(questions: Sequence[str], limit_seconds: float = LIMIT_SECONDS) -> list[Answer]:
    """Answer questions in one child process, starting another after each question that ends the child.

    Args:
        questions: ``KIND:NAME`` with a kind from :data:`KINDS`.
        limit_seconds: time limit of one child.

    Returns:
        One answer per question, in order; ``{"failed": reason}`` if the question ended the child or took too long.
    """
    answers: list[Answer] = []
    while len(answers) < len(questions):
        left = questions[len(answers) :]
        found, reason = _run_child(left, limit_seconds)
        answers += found
        if len(found) < len(left):
            answers.append({"failed": reason})
    return answers


def ask_apart(questions: Sequence[str], limit_seconds: float = LIMIT_SECONDS) -> list[Answer]:
    """Answer each question in its own child, a few at a time."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return [answers[0] for answers in pool.map(lambda question: ask([question], limit_seconds), questions)]


def _run_child(questions: Sequence[str], limit_seconds: float) -> tuple[list[Answer], str]:
    """Run one child; return its answers and the reason why it stopped."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-P", "-m", "advgen.probing", *questions]
    environment = {**os.environ, "PYTHONPATH": paths}
    # Files instead of pipes: a pipe would stay open until every process started by the child has ended.
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as complaints:
        child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=answers, stderr=complaints)
        try:
            code = child.wait(limit_seconds)
            last = (_end_of(complaints).strip().splitlines() or ["it said nothing"])[-1]
            reason = f"it ended the process with exit code {code} ({last[:200]})"
        except subprocess.TimeoutExpired:
            reason = f"it did not finish within {limit_seconds:g} seconds; on a busy machine, try again"
        finally:
            child.kill()
            child.wait()
        answers.seek(0)
        said = answers.read(MOST_BYTES).decode(errors="replace")
    lines = [line for line in said.split("\n")[:-1] if line.startswith("{")]  # a line that was cut short is no answer
    return [json.loads(line) for line in lines[: len(questions)]], reason


def _end_of(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - SHOWN_BYTES))
    return file.read().decode(errors="replace")


def _answer_module(name: str) -> Answer:
    """Import a module and look up the version of its distribution."""
    from advgen.optional_imports import try_import

    attempt = try_import(name)
    return {"loads": bool(attempt), "missing": attempt.missing, "reason": attempt.reason}


class _Remarks(logging.Handler):
    """Log handler that collects the core's warnings about a plugin for the answer."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().removeprefix("warning: "))


def _answer_plugin(qualified_name: str) -> Answer:
    """Load a plugin's entry module, ask it for its spec, and import what it needs."""
    from advgen.errors import PluginError
    from advgen.optional_imports import import_requirements
    from advgen.registry import load_installed

    remarks = _Remarks()
    logging.getLogger("advgen").addHandler(remarks)
    record = load_installed(qualified_name)
    facts = record.as_dict() | {"remarks": remarks.lines}
    if record.status != "ok":
        return facts
    try:
        return facts | {"remarks": [*import_requirements(record), *remarks.lines]}
    except PluginError as error:
        return facts | {"status": "broken", "reason": str(error)}


def _answer_offer(qualified_name: str) -> Answer:
    """Load a plugin's entry module and return its offer."""
    from advgen.offers import describe_offer

    return describe_offer(qualified_name)


def _answer_sampling(qualified_name: str) -> Answer:
    """Load a plugin and the model of its ``gen sample`` options, and return the names of the options."""
    from advgen.config.sampling import describe_sampling

    return describe_sampling(qualified_name)


def _answer_devices(_: str) -> Answer:
    """Ask torch for its devices and number of threads."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cuda": gpus,
        "cuda_build": torch.version.cuda,
        "bfloat16": bool(gpus) and torch.cuda.is_bf16_supported(),
        "mps": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
    }


KINDS: dict[str, Callable[[str], Answer]] = {
    "module": _answer_module,
    "plugin": _answer_plugin,
    "offer": _answer_offer,
    "sampling": _answer_sampling,
    "devices": _answer_devices,
}


def module_of(distribution: str) -> str:
    """Return the module name of a distribution: PIL for pillow, xdist for pytest-xdist."""
    plain = distribution.replace("-", "_").lower()
    names = sorted(name for name, owners in _owners().items() if distribution.lower() in map(str.lower, owners))
    alike = [name for name in names if name.lower() == plain]
    return (alike or [name for name in names if not name.startswith("_")] or [plain])[0]


@functools.cache
def _owners() -> dict[str, list[str]]:
    """Map each top-level module to the distributions that install it."""
    return dict(packages_distributions())


def installed_version(distribution: str) -> str | None:
    """Look up the version of a distribution in its metadata, without importing it."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _answer_all(questions: Sequence[str]) -> None:
    """Answer on the original standard output; everything that imports print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for question in questions:
        kind, _, name = question.partition(":")
        try:
            answer = KINDS[kind](name)
        except Exception as error:
            answer = {"failed": " ".join(f"{type(error).__name__}: {error}".split())}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    _answer_all(sys.argv[1:])
    os._exit(0)  # threads started by imports would keep the process alive
