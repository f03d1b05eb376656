"""``gen plugins``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from advgen.cli.options import default_text, range_text, type_text
from advgen.cli.output import JsonFlag, say, say_json, table, to_stderr
from advgen.cli.usage import Commands

if TYPE_CHECKING:
    from advgen.registry import PluginRecord

app = typer.Typer(cls=Commands, help="List and describe plugins.", no_args_is_help=True)


@app.command("list")
def list_plugins(
    show_all: Annotated[bool, typer.Option("--all", help="List disabled plugins too.")] = False,
    no_load: Annotated[bool, typer.Option("--no-load", help="Import no plugin code.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List every plugin with its status and, if it cannot be used, the reason.

    Each plugin is loaded in its own process, together with the packages that it needs.
    """
    from advgen.environment import describe_plugins
    from advgen.registry import discover, refuse_if_strict

    with to_stderr():
        found = [record.as_dict() for record in discover(load=False).records] if no_load else describe_plugins()
        refuse_if_strict(found)
    shown = [facts for facts in found if show_all or facts["status"] != "disabled"]
    if as_json:
        say_json(shown)
    elif not shown:
        say("no plugins")
    else:
        say(*table([_row(facts) for facts in shown], ["name", "status", "from", "about"]))


@app.command("show")
def show(name: Annotated[str, typer.Argument(metavar="NAME", help="Plugin, or a file.")], as_json: JsonFlag = False) -> None:
    """Presets, options and table entries of a plugin."""
    from advgen.registry import find_plugin

    with to_stderr():
        record = find_plugin(name)
        facts = _facts(record)
    if as_json:
        say_json(facts)
    else:
        say(*_description(record, facts))


def _row(facts: dict[str, Any]) -> list[str]:
    about = facts["reason"] or facts["summary"] or ""
    remarks = "".join(f" ({remark})" for remark in facts.get("remarks", []))
    return [facts["name"], facts["status"], f"{facts['distribution']} {facts['version']}".strip(), about + remarks]


def _facts(record: PluginRecord) -> dict[str, Any]:
    from advgen.config.load import options_model

    assert record.spec is not None  # find_plugin returns loaded records
    fields = options_model(record).model_fields
    options = {
        name: {
            "type": type_text(field),
            "range": range_text(field),
            "default": default_text(field),
            "description": field.description or "",
        }
        for name, field in fields.items()
    }
    tables = {
        table: sorted(getattr(record.spec, table))
        for table in ("losses", "penalties", "metrics", "loggers", "importers", "datasets")
    }
    return record.as_dict() | {"presets": {k: dict(v) for k, v in record.spec.presets.items()}, "options": options} | tables


def _description(record: PluginRecord, facts: dict[str, Any]) -> list[str]:
    lines = [
        f"{record.name}: {facts['summary']}",
        f"from {record.origin}",
        "",
        f"presets: {', '.join(facts['presets']) or 'none'}",
    ]
    kinds = ("losses", "penalties", "metrics", "loggers", "importers", "datasets")
    lines += [f"{name}: {', '.join(facts[name])}" for name in kinds if facts[name]]
    rows = [[name, o["type"], o["range"], o["default"], o["description"]] for name, o in facts["options"].items()]
    return [*lines, "", *table(rows, ["option", "type", "range", "default", "about"])]
