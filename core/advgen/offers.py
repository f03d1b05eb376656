"""Facts of installed plugins, collected without running third-party code in this process. Torch-free.

Each third-party plugin is loaded in its own process, with a time limit. Built-in plugins are loaded in place.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advgen.inspection import PluginRecord
from advgen.probing import Answer, ask_apart
from advgen.registry import discover, is_builtin, load_installed, refuse_if_strict
from advgen.spec import DataSet, RemoteFile

LIMIT_SECONDS = 20.0
SWITCHES = ("ADVGEN_PLUGINS", "ADVGEN_DISABLE_PLUGINS", "ADVGEN_STRICT_PLUGINS")


@dataclass(frozen=True, eq=False)
class Offer:
    """Facts that a usable plugin declares and that help to choose one.

    Args:
        name: the name that users write after ``--plugin``.
        qualified_name: ``distribution:name``, by which ``find_plugin`` finds exactly this one.
        builtin: True for a plugin of this project, which may be loaded in any process.
        sampling: True if it has options of ``gen sample``.
        metrics, importers: names in these tables of its spec; the other fields are as in ``PluginSpec``.
    """

    name: str
    qualified_name: str
    reads: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    importers: tuple[str, ...] = ()
    sampling: bool = False
    builtin: bool = False
    datasets: Mapping[str, DataSet] = dataclasses.field(default_factory=dict)


def offers() -> tuple[Offer, ...]:
    """List the offers of all usable plugins. One that crashes or hangs is named in a warning and left out.

    Raises:
        PluginError: under ``ADVGEN_STRICT_PLUGINS=1``, if a plugin cannot be used.
    """
    switches = tuple(os.environ.get(name) for name in SWITCHES)
    return _offers(discover(load=False).records, tuple(sys.path), switches)


@functools.lru_cache(maxsize=8)
def _offers(records: tuple[PluginRecord, ...], paths: tuple[str, ...], switches: tuple[str | None, ...]) -> tuple[Offer, ...]:
    """Ask once per process and set of arguments; the answer depends on nothing else."""
    found = [record for record in records if record.status == "found"]
    foreign = [record for record in found if not is_builtin(record)]
    answers = dict(zip(foreign, ask_apart([f"offer:{each.qualified_name}" for each in foreign], LIMIT_SECONDS), strict=True))
    described = [(record, answers[record] if record in answers else describe_offer(record.qualified_name)) for record in found]
    for record, answer in described:
        if "failed" in answer:
            logging.getLogger("advgen").warning(
                "warning: plugin %r of %s is left out because loading it failed: %s; ADVGEN_DISABLE_PLUGINS=%s skips it",
                *(record.name, record.origin, answer["failed"], record.name),
            )
    refuse_if_strict([record.as_dict() | _judged(answer) for record, answer in described])
    settled = [record.as_dict() for record in records if record not in found]
    refuse_if_strict(settled)
    return tuple(_offer(answer["offer"]) for _, answer in described if answer.get("offer"))


def describe_offer(qualified_name: str) -> Answer:
    """Load a plugin in this process; return its status and, if it is usable, the fields of its :class:`Offer`."""
    record = load_installed(qualified_name)
    facts: Answer = {"status": record.status, "reason": record.reason}
    if record.status != "ok" or record.spec is None:
        return facts
    spec = record.spec
    offer = {
        "name": record.name,
        "qualified_name": qualified_name,
        "reads": list(spec.reads),
        "addresses": list(spec.addresses),
        "metrics": list(spec.metrics),
        "importers": list(spec.importers),
        "sampling": bool(spec.sampling),
        "builtin": is_builtin(record),
        "datasets": {name: dataclasses.asdict(entry) for name, entry in spec.datasets.items()},
    }
    return facts | {"offer": offer}


def _judged(answer: Answer) -> dict[str, Any]:
    if "failed" in answer:
        return {"status": "broken", "reason": f"loading it failed: {answer['failed']}"}
    return {"status": answer["status"], "reason": answer["reason"]}


def _offer(fields: dict[str, Any]) -> Offer:
    datasets = {
        name: DataSet(**(entry | {"files": tuple(RemoteFile(**file) for file in entry["files"])}))
        for name, entry in fields["datasets"].items()
    }
    lists = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Offer(**(lists | {"datasets": datasets}))
