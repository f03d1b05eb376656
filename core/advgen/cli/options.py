"""A plugin's options as readers see them, and the panel of them below a command's own in ``--help``."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand

from advgen.terminal import visible, visible_lines

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from rich.panel import Panel

NAMES = {int: "integer", float: "number", bool: "true|false", str: "text"}
ABSENT = "not set"


PREFIX = "option_"  # keeps a plugin's option apart from a core flag of the same name


def train_flag(name: str) -> str:
    """A plugin's option of ``gen train``."""
    return f"--options.{name}"


def sample_flag(name: str) -> str:
    """A plugin's option of ``gen sample``."""
    return f"--{name.replace('_', '-')}"


class PluginCommand(TyperCommand):
    """A command with a plugin's options: their long names and texts get lines of their own, whole at any width."""

    plugin = ""
    fields: Mapping[str, FieldInfo] = {}
    flag: Callable[[str], str] = staticmethod(train_flag)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The core's options as typer prints them, then the plugin's."""
        core = copy.copy(self)
        own = {self.flag(name) for name in self.fields}
        core.params = [parameter for parameter in self.params if not own.intersection(parameter.opts)]
        TyperCommand.format_help(core, ctx, formatter)
        if self.fields:
            from rich.console import Console

            Console().print(options_panel(self.plugin, self.fields, self.flag))


def plugin_command(
    name: str, function: Callable[..., None], plugin: str, fields: Mapping[str, FieldInfo], flag: Callable[[str], str]
) -> Any:
    """The parser of a command: its own flags, and one for each of a plugin's ``fields``, whose texts ``given`` reads."""
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    parameters += [_parameter(own, field, flag) for own, field in fields.items()]

    def command(**values: Any) -> None:
        function(**{name: value for name, value in values.items() if not name.startswith(PREFIX)})

    command.__doc__ = function.__doc__
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(name, cls=PluginCommand)(command)
    parser: Any = typer.main.get_command(app)
    parser.plugin, parser.fields, parser.flag = plugin, fields, flag
    return parser


def given(parameters: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """The plugin's options among a command's parameters as values; text stays text where the option is text."""
    from advgen.config.toml import parse_value

    own = {name.removeprefix(PREFIX): text for name, text in parameters.items() if name.startswith(PREFIX)}
    found = {name: text for name, text in own.items() if text is not None}
    return {name: text if fields[name].annotation in (str, str | None) else parse_value(text) for name, text in found.items()}


def values_of(args: list[str], *flags: str) -> list[str]:
    """Values of a flag among arguments that are not parsed yet, written ``--flag value`` or ``--flag=value``."""
    own = args[: args.index("--")] if "--" in args else args
    pairs = [after for flag, after in pairwise(own) if flag in flags]
    return pairs + [arg.split("=", 1)[1] for arg in own if arg.split("=", 1)[0] in flags and "=" in arg]


def _parameter(name: str, field: FieldInfo, flag: Callable[[str], str]) -> inspect.Parameter:
    option = typer.Option(flag(name), help=field.description or "")
    return inspect.Parameter(
        PREFIX + name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def options_panel(plugin: str, fields: Mapping[str, FieldInfo], flag: Callable[[str], str] = train_flag) -> Panel:
    """Name, type, range and default of each option on one line, its description below."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.text import Text

    lines: list[Any] = []
    for name, field in fields.items():
        values = ", ".join(filter(None, [type_text(field), range_text(field)]))
        parts = (flag(name), "bold cyan"), ("  " + values, "yellow"), (f"  default: {plain_default(field)}", "dim")
        lines.append(Text.assemble(*((visible(text), style) for text, style in parts)))
        if field.description:
            lines.append(Padding(Text(visible_lines(field.description)), (0, 0, 0, 4)))
    title = Text(f"Plugin '{visible(plugin)}' options")  # a string would be read as markup
    return Panel(Group(*lines), title=title, title_align="left", border_style="dim")


def type_text(field: FieldInfo) -> str:
    """An option's type for readers: ``integer``, ``batch|none``, ``[number, ...]``."""
    return _type_text(field.annotation)


def range_text(field: FieldInfo) -> str:
    """What numbers an option takes: ``4 to 1024``, ``1 or more``; empty where all."""
    from advgen.config import expected

    return expected.range_text(field.metadata)


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
