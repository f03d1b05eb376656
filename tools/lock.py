"""Update and check of constraints.txt and constraints-lowest.txt.

    python tools/lock.py            # make lock: resolve, write both files and the pins of the build, check
    python tools/lock.py --check    # make lock-check: check the files as they are

Run it with the oldest supported Python: one version of a package serves all Pythons, and new releases drop the oldest first.
pip evaluates environment markers only for the Python that runs it, so this script evaluates them for every other one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
TESTED = ROOT / "constraints.txt"
LOWEST = ROOT / "constraints-lowest.txt"
# The build backend, and a package that it requires only after an editable install has begun.
BUILD = ("hatchling", "editables")
# Published only as source, and compiled on installation.
SOURCE_ONLY = {"pesq"}
HEADERS = {
    TESTED: "# The tested set: every package that advgen and its extras bring, on every supported Python and system.\n"
    "# Use: pip install -c constraints.txt -e .    Written by `make lock`; other versions: docs/dependencies.md.\n",
    LOWEST: "# The lower bounds of pyproject.toml. Written by `make lock`.\n",
}


@dataclass(frozen=True)
class System:
    """An operating system: the wheel tags that it accepts, and its values for environment markers."""

    name: str
    tags: tuple[str, ...]
    markers: tuple[tuple[str, str], ...]


def system(name: str, sys_platform: str, os_name: str, machine: str, tags: Iterable[str]) -> System:
    """Return the record of one system."""
    markers = {"platform_system": name, "sys_platform": sys_platform, "os_name": os_name, "platform_machine": machine}
    return System(name, tuple(tags), tuple(markers.items()))


MANYLINUX = ["manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
# Systems with torch wheels: glibc 2.28 or newer, Apple silicon, 64-bit Windows.
SYSTEMS = [
    system("Linux", "linux", "posix", "x86_64", [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + MANYLINUX),
    system("Darwin", "darwin", "posix", "arm64", ["macosx_14_0_arm64"]),
    system("Windows", "win32", "nt", "AMD64", ["win_amd64"]),
]


@dataclass(frozen=True)
class Environment:
    """A supported Python on a supported system."""

    python: str
    system: System

    def __str__(self) -> str:
        return f"Python {self.python} on {self.system.name}"

    def holds(self, requirement: Requirement, extras: Iterable[str] = ()) -> bool:
        """Return whether the marker of `requirement` is true here for any of the requested `extras`."""
        values = {"python_version": self.python, "python_full_version": f"{self.python}.99", "implementation_name": "cpython"}
        values |= {"platform_python_implementation": "CPython", "implementation_version": f"{self.python}.99"}
        values |= dict(self.system.markers)
        marker = requirement.marker
        return marker is None or any(marker.evaluate(values | {"extra": extra}) for extra in ("", *extras))


@dataclass(frozen=True)
class Pin:
    """A package's version and the requirements that this version declares."""

    version: str
    requires: tuple[str, ...] = ()


Pins = dict[str, Pin]


def project() -> dict[str, Any]:
    """Read pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pythons() -> list[str]:
    """Return the supported Pythons, oldest first, from the classifiers."""
    found = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", text) for text in project()["project"]["classifiers"]]
    return [match[1] for match in found if match]


def environments() -> list[Environment]:
    """Return every supported Python on every supported system."""
    return [Environment(*pair) for pair in itertools.product(pythons(), SYSTEMS)]


def direct() -> list[Requirement]:
    """Return the project's dependencies, including those of all extras, each once."""
    described = project()["project"]
    texts = [*described["dependencies"], *itertools.chain(*described["optional-dependencies"].values())]
    return [Requirement(text) for text in dict.fromkeys(texts)]


def roots() -> list[Requirement]:
    """Return the direct dependencies and those of the build."""
    return [*direct(), *map(Requirement, BUILD)]


def lower_bounds() -> Pins:
    """Return every direct dependency at its lower bound."""
    bounds: Pins = {}
    for requirement in direct():
        name, found = (
            canonicalize_name(requirement.name),
            [part.version for part in requirement.specifier if part.operator == ">="],
        )
        if len(found) != 1 or bounds.setdefault(name, Pin(found[0])) != Pin(found[0]):
            raise SystemExit(f"pyproject.toml: {requirement} should have one lower bound, the same wherever {name} is named")
    return bounds


def lines(pins: Pins, names: Iterable[str] | None = None) -> list[str]:
    """Return `name==version` for each pin, or for the named ones, sorted."""
    return [f"{name}=={pins[name].version}" for name in sorted(pins if names is None else names)]


def read(file: Path) -> Pins:
    """Read a constraints file."""
    kept = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): Pin(version) for name, version in (line.split("==") for line in kept)}


def pip(*arguments: str) -> str:
    """Run pip without installing anything; return its error output if it failed, else an empty string."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--disable-pip-version-check", *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return (answer.stdout + answer.stderr).strip() if answer.returncode else ""


def resolve(requirements: Sequence[str], constraints: Sequence[str] = ()) -> Pins:
    """Return the set that pip would install for `requirements` under `constraints`, for this Python and system."""
    with tempfile.TemporaryDirectory() as folder:
        report, limits = Path(folder) / "report.json", Path(folder) / "limits.txt"
        limits.write_text("\n".join(constraints), encoding="utf-8")
        if fault := pip("--ignore-installed", "--report", str(report), "-c", str(limits), *requirements):
            raise SystemExit(f"pip finds no set for {', '.join(requirements)}:\n{fault}")
        found = [entry["metadata"] for entry in json.loads(report.read_text(encoding="utf-8"))["install"]]
    return {canonicalize_name(entry["name"]): Pin(entry["version"], tuple(entry.get("requires_dist", ()))) for entry in found}


@cache
def parsed(text: str) -> Requirement:
    """Parse a requirement, cached because every environment needs the same ones."""
    return Requirement(text)


def brought(pins: Pins, environment: Environment) -> Iterator[tuple[str, Requirement]]:
    """Yield (requiring package, requirement) for everything that is installed in `environment`."""
    waiting = [("advgen", requirement) for requirement in roots() if environment.holds(requirement)]
    seen = set()
    while waiting:
        who, requirement = waiting.pop()
        yield who, requirement
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if name in pins and (name, extras) not in seen:
            seen.add((name, extras))
            inner = map(parsed, pins[name].requires)
            waiting += [(name, other) for other in inner if environment.holds(other, extras)]


def names_brought(pins: Pins, environment: Environment) -> set[str]:
    """Return the names of the packages that are installed in `environment`."""
    return {canonicalize_name(requirement.name) for _, requirement in brought(pins, environment)}


def resolve_everywhere() -> Pins:
    """Return one set for all environments: this machine's, plus packages that only other systems or Pythons need."""
    requirements = [str(requirement) for requirement in roots()]
    pins = resolve(requirements)
    while absent := set().union(*(names_brought(pins, environment) for environment in environments())) - set(pins):
        pins = resolve([*requirements, *sorted(absent)], lines(pins))
    return pins


def unsatisfied(pins: Pins, environment: Environment) -> list[str]:
    """Return a sentence for each requirement that the pins do not satisfy in `environment`."""
    faults = []
    for who, requirement in brought(pins, environment):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None:
            faults.append(f"{environment}: {who} needs {requirement}, which is not pinned")
        elif not requirement.specifier.contains(Version(pin.version), prereleases=True):
            faults.append(f"{environment}: {who} needs {requirement}, pinned is {pin.version}")
    return faults


def without_wheels(pins: Pins, names: Iterable[str], environment: Environment) -> list[str]:
    """Return pip's complaint if any of the named pins has no wheel for `environment`."""
    wanted = lines(pins, set(names) - SOURCE_ONLY)
    tags = itertools.chain(*(("--platform", tag) for tag in environment.system.tags))
    with tempfile.TemporaryDirectory() as target:
        options = ["--no-deps", "--only-binary=:all:", "--target", target, "--python-version", environment.python, *tags]
        fault = pip(*options, *wanted)
    return [f"{environment}: {fault}"] if fault else []


def check_tested(environment: Environment, pins: Pins) -> list[str]:
    """Return the faults of the tested set in `environment`: unsatisfied requirements, packages without a wheel."""
    return unsatisfied(pins, environment) or without_wheels(pins, names_brought(pins, environment), environment)


def check_lowest(environment: Environment, pins: Pins) -> list[str]:
    """Return the faults of the lower bounds in `environment`: bounds without a wheel, bounds that exclude each other."""
    names = [canonicalize_name(requirement.name) for requirement in direct() if environment.holds(requirement)]
    if faults := without_wheels(pins, names, environment):
        return faults
    if environment.system is not SYSTEMS[0]:
        return []
    tags = itertools.chain(*(("--platform", tag) for tag in environment.system.tags))
    with tempfile.TemporaryDirectory() as target:
        options = ["--only-binary=:all:", "--target", target, "--python-version", environment.python, *tags]
        fault = pip(*options, *lines(pins, set(names) - SOURCE_ONLY))
    return [f"{environment}: {fault}"] if fault else []


def resolve_written() -> Pins:
    """Return the packages of constraints.txt with their requirements; refuse a package that nothing requires."""
    written = read(TESTED)
    pins = resolve([*(str(requirement) for requirement in roots()), *lines(written)], lines(written))
    if idle := set(written).difference(*(names_brought(pins, environment) for environment in environments())):
        raise SystemExit(
            f"{TESTED.name} pins packages that nothing brings: {', '.join(sorted(idle))}; make lock leaves them out"
        )
    return pins


def check() -> int:
    """Check both files in every environment and print a line for each; return the number of environments with faults."""
    tested = resolve_written()
    places = environments()
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for file, task in ((TESTED, partial(check_tested, pins=tested)), (LOWEST, partial(check_lowest, pins=read(LOWEST)))):
            for place, faults in zip(places, pool.map(task, places), strict=True):
                failed += bool(faults)
                print(f"{file.name}: {place}: {'; '.join(faults) or 'installs'}", flush=True)
    return failed


def write(file: Path, pins: Pins) -> None:
    """Write a constraints file."""
    file.write_text(HEADERS[file] + "\n".join(lines(pins)) + "\n", encoding="utf-8", newline="\n")


def write_build_pins(pins: Pins) -> None:
    """Pin the build backend and its dependencies in pyproject.toml, as `pip -c` does not reach an isolated build."""
    backend = resolve(BUILD, lines(pins))
    listed = "".join(f'    "{line}",\n' for line in lines(pins, backend))
    path = ROOT / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(
        r"(?s)(\[build-system\]\n(?:#[^\n]*\n)*)requires = \[.*?\]\n", rf"\1requires = [\n{listed}]\n", text
    )
    if count != 1:
        raise SystemExit("pyproject.toml has no `requires = [...]` right below [build-system]; write it there")
    path.write_text(changed, encoding="utf-8", newline="\n")


def renew() -> None:
    """Resolve the requirements, and write both files and the pins of the build."""
    tested = resolve_everywhere()
    write(TESTED, tested)
    write(LOWEST, lower_bounds())
    write_build_pins(tested)
    print(f"{TESTED.name}: {len(tested)} packages; {LOWEST.name}: {len(lower_bounds())}", flush=True)


def main() -> int:
    """Update the files unless `--check` is given, then check them; return 1 if an environment has a fault."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true", help="check the files as they are")
    wanted = options.parse_args()
    here, oldest = f"{sys.version_info.major}.{sys.version_info.minor}", pythons()[0]
    if here != oldest:
        raise SystemExit(
            f"tools/lock.py runs on Python {here}, expected {oldest}, the oldest supported; make lock PYTHON=python{oldest}"
        )
    if not wanted.check:
        renew()
    return 1 if check() else 0


if __name__ == "__main__":
    sys.exit(main())
