"""``gen data``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from advgen.cli.output import JsonFlag, PluginOption, PresetOption, SetOption, fact_lines, say, say_json, table, to_stderr

if TYPE_CHECKING:
    from advgen.spec import DataSet

app = typer.Typer(help="Look through data, and list named data sets.", no_args_is_help=True)

SHOWN = 20


@app.command("inspect")
def inspect(
    data: Annotated[str, typer.Argument(metavar="PATH", help="File, folder, archive, list of files, or named set.")],
    plugin: PluginOption = None,
    preset: PresetOption = None,
    overrides: SetOption = None,
    as_json: JsonFlag = False,
) -> None:
    """What is in a data set: counts, bad files, duplicates, classes, splits, and the modality's own figures.

    Read as training with the same options would read it. Where no plugin is named, the files tell which one it is.
    """
    from advgen.data.survey import inspect_data

    with to_stderr():
        found = inspect_data(data, plugin, preset=preset, overrides=overrides or [])
    facts = found.as_dict()
    if as_json:
        say_json(facts)
    else:
        say(*_lines(facts))


@app.command("list")
def list_sets(as_json: JsonFlag = False) -> None:
    """Public data sets that --data NAME fetches."""
    from advgen.data.datasets import named_sets

    with to_stderr():
        rows = [_about(name, plugin, entry) for name, (plugin, entry) in sorted(named_sets().items())]
    if as_json:
        say_json(rows)
    elif not rows:
        say("no named data sets")
    else:
        columns = ["name", "plugin", "checked", "fetched", "licence", "about"]
        say(*table([[_word(row[name]) for name in columns] for row in rows], columns))
        say(*(f"terms of {row['name']}: {row['terms']}" for row in rows if row["terms"]))


def _about(name: str, plugin: str, entry: DataSet) -> dict[str, Any]:
    """One set's row."""
    from advgen.data.datasets import is_fetched

    return {
        "name": name,
        "plugin": plugin,
        "about": entry.summary,
        "licence": entry.licence,
        "terms": entry.terms,
        "home": entry.home,
        "files": [{"url": file.url, "sha256": file.sha256} for file in entry.files],
        "checked": all(file.sha256 for file in entry.files),
        "fetched": is_fetched(name, entry),
    }


def _word(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else "yes" if value else "no"


def _lines(facts: dict[str, Any]) -> list[str]:
    """The report for readers: what matters first, long lists cut."""
    lines = [f"plugin: {facts['plugin']} ({facts['chosen']})", f"{facts['unit']}: {facts['count']} in {facts['path']}"]
    lines += [f"bad: {facts['num_bad']}", *(f"  {reason}" for reason in facts["bad"][:SHOWN])]
    if facts["num_bad"] > SHOWN:
        lines.append(f"  ... {facts['num_bad'] - min(SHOWN, len(facts['bad']))} more; --json names more of them")
    repeats = facts["duplicates"]
    lines.append(f"duplicates: {repeats.get('count', 0)} of {repeats.get('compared', 0)}")
    pairs = repeats.get("pairs", [])[:SHOWN]
    lines += [f"  {name}" + (f" = {before}" if before != name else "") for name, before in pairs]
    if pairs and repeats["count"] > len(pairs):
        lines.append(f"  ... {repeats['count'] - len(pairs)} more; --json names more of them")
    for name in ("classes", "splits"):
        counts = list(facts[name].items())
        shown = ", ".join(f"{key} {number}" for key, number in counts[: 2 * SHOWN])
        lines.append(f"{name}: {shown or 'none'}" + (f", ... {len(counts)} in all" if len(counts) > 2 * SHOWN else ""))
    return [*lines, *fact_lines(facts["details"]), *(f"note: {remark}" for remark in facts["remarks"])]
