"""Watches every test of this folder: what it executes, where it writes, how much memory it takes; counts the trials.

The end of the session prints a table with a line per file of tests: trials, executed, written outside, above limits. A test
fails if it executes code that it made, writes outside of the session's folder, or takes much memory.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MOST_MIB = 700
"""Growth of the peak memory during one test; the largest legitimate one is an import of a large library."""
TABLE = ("trials", "executed", "written outside", "above limits")
WRITES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.remove": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "shutil.rmtree": ((0, 1),),
    "shutil.move": ((0, None), (1, None)),
}
"""By audit event, the positions of each path that is written and of the folder's descriptor that it is relative to."""
FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """The audit hook's memory. It sees a test's own process, and only between ``begin`` and ``end``."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.written: list[str] = []
        self.executed: list[str] = []
        self.trials = 0

    def begin(self, inside: Path) -> None:
        self.inside, self.written, self.executed, self.trials = inside.resolve(), [], [], 0

    def end(self) -> None:
        self.inside = None

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event == "exec":
            source = getattr(arguments[0], "co_filename", "")
            if not source.startswith("<") and self._is_inside(source):  # <string> is what libraries make themselves
                self.executed.append(source)
        elif event == "open" and isinstance(arguments[2], int) and arguments[2] & FLAGS:
            self._note_write(event, arguments[0])
        elif event in WRITES:
            for place, descriptor in WRITES[event]:
                base = arguments[descriptor] if descriptor is not None and descriptor < len(arguments) else None
                if not isinstance(base, int) or base < 0:  # else it is below a folder that was opened, and so seen
                    self._note_write(event, arguments[place])

    def _is_inside(self, path: Any) -> bool:
        try:
            text = os.fsdecode(path)
        except TypeError:  # a descriptor: it was opened before
            return False
        # Links are followed by the file system, so they are followed here. Resolving opens nothing.
        return bool(text) and self.inside is not None and Path(os.path.realpath(text)).is_relative_to(self.inside)

    def _note_write(self, event: str, path: Any) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or path == "":
            return
        text = os.fsdecode(path)
        harmless = "__pycache__" in text or text.startswith(("/dev/", "/proc/")) or os.path.basename(text) == ""
        if not harmless and not self._is_inside(path):
            self.written.append(f"{event} {text}")


WATCH = Watch()
COUNTS: dict[str, Counter[str]] = {}
sys.addaudithook(WATCH)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "runs_code: names a plugin's file in the call, so its code may run")


@pytest.fixture
def count_trial() -> Callable[[], None]:
    """Count one more input; a test that never calls this counts as one."""

    def count() -> None:
        WATCH.trials += 1

    return count


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Watch the test itself, not the making of its inputs."""
    if Path(__file__).parent not in Path(str(item.path)).parents:
        return (yield)
    factory = item._request.getfixturevalue("tmp_path_factory")  # type: ignore[attr-defined]
    before, scratch = _peak_mib(), tempfile.tempdir
    tempfile.tempdir = str(factory.getbasetemp())  # scratch files are ours to write, so they are watched as inside
    WATCH.begin(factory.getbasetemp())
    try:
        result = yield
    finally:
        WATCH.end()
        tempfile.tempdir = scratch
    grown = _peak_mib() - before
    executed = [] if item.get_closest_marker("runs_code") else WATCH.executed
    found = {"executed": executed, "written outside": WATCH.written, "above limits": [grown] if grown > MOST_MIB else []}
    counts = {"trials": max(1, WATCH.trials), **{name: len(each) for name, each in found.items()}}
    item.user_properties.append(("hostile", counts))
    assert not any(found.values()), found
    return result


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, counts in report.user_properties:
        if name == "hostile" and report.when == "call":
            COUNTS.setdefault(Path(report.nodeid.partition("::")[0]).stem, Counter()).update(counts)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table; under pytest-xdist the process that reports has the counts of all."""
    if not COUNTS:
        return
    terminalreporter.write_sep("-", "hostile inputs")
    rows = [(name.removeprefix("test_").replace("_", " "), counts) for name, counts in sorted(COUNTS.items())]
    rows.append(("all", sum((counts for _, counts in rows), Counter())))
    for name, counts in rows:
        terminalreporter.write_line(f"{name:24}" + "".join(f"  {title} {counts[title]}" for title in TABLE))


def _peak_mib() -> float:
    """Return this process's peak memory so far; 0 on systems that do not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
