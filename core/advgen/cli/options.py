"""A plugin's options as readers see them, and the panel of them below ``gen train --plugin NAME --help``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.panel import Panel

NAMES = {int: "integer", float: "number", bool: "true|false", str: "text"}
ABSENT = "not set"


class PluginCommand(TyperCommand):
    """``gen train`` with a plugin's options: their long names and texts get lines of their own, whole at any width."""

    plugin = ""
    fields: Mapping[str, FieldInfo] = {}

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The core's options as typer prints them, then the plugin's."""
        core = copy.copy(self)
        own = {f"--options.{name}" for name in self.fields}
        core.params = [parameter for parameter in self.params if not own.intersection(parameter.opts)]
        TyperCommand.format_help(core, ctx, formatter)
        if self.fields:
            from rich.console import Console

            Console().print(options_panel(self.plugin, self.fields))


def options_panel(plugin: str, fields: Mapping[str, FieldInfo]) -> Panel:
    """Name, type, range and default of each option on one line, its description below."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text

    lines: list[Any] = []
    for name, field in fields.items():
        values = ", ".join(filter(None, [type_text(field), range_text(field)]))
        parts = (f"--options.{name}", "bold cyan"), ("  " + values, "yellow"), (f"  default: {plain_default(field)}", "dim")
        lines.append(Text.assemble(*parts))
        if field.description:
            lines.append(Padding(Text(field.description), (0, 0, 0, 4)))
    return Panel(Group(*lines), title=f"Plugin '{plugin}' options", title_align="left", border_style="dim")


def type_text(field: FieldInfo) -> str:
    """An option's type for readers: ``integer``, ``batch|none``, ``[number, ...]``."""
    return _type_text(field.annotation)


def range_text(field: FieldInfo) -> str:
    """What numbers an option takes: ``4 to 1024``, ``1 or more``; empty where all."""
    bounds = {name: getattr(rule, name) for rule in field.metadata for name in ("ge", "gt", "le", "lt") if hasattr(rule, name)}
    if "ge" in bounds and "le" in bounds:
        return f"{bounds['ge']} to {bounds['le']}"
    words = {"ge": "{} or more", "gt": "above {}", "le": "{} or less", "lt": "below {}"}
    return " and ".join(words[name].format(bound) for name, bound in bounds.items())


def default_text(field: FieldInfo) -> str:
    """An option's default as it would be written in TOML."""
    from advgen.config.toml import value_text

    if field.is_required():
        return "required"
    default = _default(field)
    return ABSENT if default is None else value_text(default)


def plain_default(field: FieldInfo) -> str:
    """An option's default as it would be written on the command line."""
    default = None if field.is_required() else _default(field)
    return default if isinstance(default, str) and default else default_text(field)


def _default(field: FieldInfo) -> Any:
    return field.get_default(call_default_factory=False) if field.default_factory else field.default


def _type_text(annotation: Any) -> str:
    if annotation in NAMES:
        return NAMES[annotation]
    parts = [part for part in get_args(annotation) if part is not type(None) and part is not Ellipsis]
    if get_origin(annotation) is Literal:
        return "|".join(str(part) for part in parts)
    if get_origin(annotation) in (tuple, list):
        return f"[{_type_text(parts[0])}, ...]" if parts else "list"
    names = dict.fromkeys(_type_text(part) for part in parts)
    return " or ".join(names) if parts else getattr(annotation, "__name__", "value").lower()
