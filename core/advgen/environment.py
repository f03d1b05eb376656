"""Report of ``gen env``: packages that load, devices, and a remedy for each thing that does not work.

Nothing here imports torch or a plugin into this process, because the report has to cover packages that crash.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from advgen import __version__
from advgen.cache import cache_folder
from advgen.errors import ConfigError
from advgen.optional_imports import try_import
from advgen.probing import Answer, ask, ask_apart, installed_version, module_of

NOT_SHOWN = ("dev",)  # extras of those who change advgen
PLUGIN_LIMIT_SECONDS = 30.0
VARIABLES = ("ADVGEN_", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "WORLD_SIZE", "XDG_CACHE_HOME")
MISMATCH = (
    "a torchaudio wheel is linked to one torch: install the torchaudio for this torch, from the same index, for the same CUDA "
    "or for the CPU. Everything works without it"
)


@dataclass(frozen=True)
class Dependency:
    """One line of the project's requirements.

    Args:
        name: of the distribution, such as ``pillow``.
        requirement: with its bounds, such as ``pillow>=10.1``.
        extra: the extra that installs it; empty if every installation has it.
    """

    name: str
    requirement: str
    extra: str = ""

    @property
    def remedy(self) -> str:
        """Return the command that installs it."""
        return f'pip install "{self.requirement}"' if not self.extra else f'pip install "advgen[{self.extra}]"'


def describe_environment() -> dict[str, Any]:
    """Collect the report, JSON-able: versions, packages, the torch pair, devices, cache, plugins, variables."""
    listed = dependencies()
    answers = ask([*(f"module:{module_of(each.name)}" for each in listed), "devices:"])
    packages = {each.name: _package(each, answer) for each, answer in zip(listed, answers, strict=False)}
    return {
        "advgen": __version__,
        "python": sys.version.split()[0],
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": packages,
        "pair": _pair(packages),
        "devices": answers[-1],
        "processors": os.cpu_count(),
        "cache": _cache(),
        "plugins": describe_plugins() if try_import("advgen.registry") else [],
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)},
    }


def describe_plugins() -> list[dict[str, Any]]:
    """Describe every plugin. Each is loaded with its imports in its own process, under a time limit."""
    from advgen.registry import discover

    records = discover(load=False).records
    found = [record for record in records if record.status == "found"]
    answers = ask_apart([f"plugin:{record.qualified_name}" for record in found], PLUGIN_LIMIT_SECONDS)
    loaded = {record.qualified_name: answer for record, answer in zip(found, answers, strict=True)}
    return [_plugin(record.as_dict(), loaded.get(record.qualified_name, {})) for record in records]


def dependencies() -> list[Dependency]:
    """List the project's requirements, including those of user-facing extras, from the installation or the checkout."""
    try:
        lines = requires("advgen") or []
    except PackageNotFoundError:
        lines = _checkout_requirements()
    parsed = [_parse(line) for line in lines]
    kept = [each for each in parsed if each.extra not in NOT_SHOWN]
    return list({each.name: each for each in reversed(kept)}.values())[::-1]


def _checkout_requirements() -> list[str]:
    """Read the requirements of a checkout that is not installed, in the format of package metadata."""
    try:
        project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return []
    extras = project.get("optional-dependencies", {})
    return [*project["dependencies"], *(f'{line}; extra == "{name}"' for name, lines in extras.items() for line in lines)]


def _parse(line: str) -> Dependency:
    requirement, _, marker = (part.strip() for part in line.partition(";"))
    extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)['\"]", marker)
    name = re.match(r"[\w.-]+", requirement)
    return Dependency(name[0] if name else requirement, requirement, extra[1] if extra else "")


def _package(dependency: Dependency, answer: Answer) -> dict[str, Any]:
    """Join the outcome of an import with the version, and say what to do if it did not load."""
    found = installed_version(dependency.name)
    reason = str(answer.get("reason") or answer.get("failed") or "")
    status = "ok" if answer.get("loads") else "missing" if found is None else "does not load"
    remedy = "" if status == "ok" else dependency.remedy
    if status == "ok" and not _fits(dependency, found):
        status, reason, remedy = "other version", f"advgen is made for {dependency.requirement}", dependency.remedy
    elif status == "does not load":
        remedy = MISMATCH if dependency.name == "torchaudio" else f'pip install --force-reinstall "{dependency.requirement}"'
    facts = {"version": found, "wanted": dependency.requirement, "extra": dependency.extra, "status": status}
    return facts | {"reason": "" if status in ("ok", "missing") else reason, "remedy": remedy}


def _fits(dependency: Dependency, found: str | None) -> bool:
    """Return whether a version is within the bounds; True if it is unknown or ``packaging`` is not installed."""
    requirements: Any = try_import("packaging.requirements").module
    if requirements is None or found is None:
        return True
    return bool(requirements.Requirement(dependency.requirement).specifier.contains(found, prereleases=True))


def _pair(packages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Say whether torch and torchaudio, which are linked to each other, work together."""
    torch, torchaudio = packages.get("torch", {}), packages.get("torchaudio", {})
    works = torchaudio.get("status") in ("ok", "other version") and torch.get("status") in ("ok", "other version")
    audio = "with torchaudio" if works else "with its own code and the same numbers"
    return {
        "torch": torch.get("version"),
        "torchaudio": torchaudio.get("version"),
        "works": works,
        "audio": f"the audio plugin resamples and makes mel filters {audio}",
    }


def _cache() -> dict[str, Any]:
    """Report the cache folder and whether it is writable, without creating it."""
    remedy, folder = "set XDG_CACHE_HOME to a folder that you can write to", None
    try:
        folder = cache_folder()
        place = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=place):
            return {"folder": str(folder), "writable": True}
    except (OSError, ConfigError) as error:
        return {"folder": str(folder or "unknown"), "writable": False, "reason": str(error), "remedy": remedy}


def _plugin(facts: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Merge the facts from discovery with the outcome of loading the plugin."""
    if "failed" in answer:
        reason = f"loading it failed: {answer['failed']}"
        return facts | {"status": "broken", "reason": reason, "remarks": []}
    return {"remarks": []} | facts | answer


def environment_lines(report: Mapping[str, Any]) -> list[str]:
    """Format the report as text: the machine, a line per package and plugin, and the remedies last."""
    devices, cache = report["devices"], report["cache"]
    lines = [
        f"advgen {report['advgen']}, Python {report['python']}, {report['platform']}",
        f"executable: {report['executable']}",
        f"devices: {_device_text(devices)}; processors {report['processors']}, threads {devices.get('threads', 'unknown')}",
        f"cache: {cache['folder']}{'' if cache['writable'] else ' (not writable)'}",
        f"torch {report['pair']['torch']} with torchaudio {report['pair']['torchaudio']}: {report['pair']['audio']}",
        *(f"{name}={value}" for name, value in report["variables"].items()),
    ]
    return lines


def remedies(report: Mapping[str, Any]) -> list[str]:
    """List everything that does not work, each with its remedy. Extras that are not installed do not count."""
    found = [
        f"{name} {each['status']}{': ' + each['reason'] if each['reason'] else ''}. {each['remedy']}"
        for name, each in report["packages"].items()
        if each["status"] != "ok" and not (each["status"] == "missing" and each["extra"])
    ]
    plugins: Sequence[Mapping[str, Any]] = report["plugins"]
    found += [
        f"plugin {each['name']} {each['status']}: {each['reason']}"
        for each in plugins
        if each["status"] not in ("ok", "disabled")
    ]
    if failed := report["devices"].get("failed"):
        found.append(f"devices: {failed}")
    if not report["cache"]["writable"]:
        found.append(f"cache folder {report['cache']['folder']}: {report['cache']['reason']}. {report['cache']['remedy']}")
    return found


def _device_text(devices: Mapping[str, Any]) -> str:
    if "failed" in devices:
        return "unknown, because torch does not load"
    gpus = ", ".join(f"cuda:{index} {name}" for index, name in enumerate(devices["cuda"]))
    build = f"torch is built for CUDA {devices['cuda_build']}" if devices["cuda_build"] else "torch is built for the CPU"
    apple = "; Apple's GPU (mps) is not used" if devices["mps"] else ""
    return f"cpu{', ' + gpus if gpus else ''} ({build}{apple})"
