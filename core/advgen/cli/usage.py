"""Wrong usage, told like every other refusal: one line that names the culprit and the way out."""

from __future__ import annotations

import difflib
from typing import Any

import typer
from typer.core import TyperGroup

from advgen.errors import ConfigError, nearest

# typer exports no base class of its complaints, and brings its own copy of click or takes the installed one.
Complaint: Any = typer.BadParameter.__mro__[2]

WHERE = {"RUN": "gen runs list shows those in runs/", "NAME": "gen plugins list shows them"}


class Commands(TyperGroup):
    """A group of commands that answers an unknown one with the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the first argument names.

        Raises:
            ConfigError: with the known names and the nearest.
        """
        if args[0] not in self.commands and not args[0].startswith("-"):
            raise ConfigError(f"{ctx.command_path} has no command {args[0]!r}; {nearest(args[0], self.commands)}")
        return super().resolve_command(ctx, args)


def asks_for_help(complaint: Any) -> bool:
    """Whether a group was called without a command, which prints its help."""
    return type(complaint).__name__ == "NoArgsIsHelpError"


def explained(complaint: Any) -> str:
    """What is wrong with the arguments, and what to do."""
    context, kind = getattr(complaint, "ctx", None), type(complaint).__name__
    command = context.command_path if context else ""
    way = f"{command} --help shows what it takes".lstrip()
    text = _lower(" ".join(complaint.format_message().split()))
    if kind == "NoSuchOption":
        return f"{command} has no option {complaint.option_name}; {_right_option(complaint.option_name, context)}"
    if kind == "MissingParameter":
        name, about = _name(complaint.param), getattr(complaint.param, "help", None)
        told = f" ({_lower(about)})" if about and name.startswith("-") else ""
        return f"{command} got no {name}{told}, expected one; {WHERE.get(name, way)}"
    if kind == "BadParameter" and getattr(complaint, "param", None):
        return f"{command} {_name(complaint.param)}: {_refused(complaint)}; {way}"
    if "unexpected extra argument" in text and "--plugin" in _options(context):
        way = f"a plugin is named with --plugin NAME, and {way}"
    return f"{command}: {text}; {way}" if command else f"{text}; {way}"


def _refused(complaint: Any) -> str:
    """What was expected of a value and what came; typer leaves the latter out where pydantic has read it."""
    from advgen.config.expected import BOUNDS

    details = complaint.__cause__.errors() if hasattr(complaint.__cause__, "errors") else []
    if not details:
        return _lower(complaint.message)
    words = {"int_parsing": "an integer", "float_parsing": "a number"}
    bounds = [BOUNDS[name].format(f"{value:g}") for name, value in details[0].get("ctx", {}).items() if name in BOUNDS]
    told = words.get(details[0]["type"]) or "".join(bounds)
    expected = f"expected {told}" if told else _lower(details[0]["msg"]).replace("input should be", "expected")
    return f"{expected}, got {details[0]['input']}"


def _right_option(name: str, context: Any) -> str:
    known, command = _options(context), context.command_path
    own = name.startswith("--options.") and context.info_name == "train"
    way = f"{command}{' --plugin NAME' if own else ''} --help shows all"
    if own_option := _option_of_runs(name, context):
        return f"{own_option}; {way}"
    if close := difflib.get_close_matches(name, known, n=1):
        return f"did you mean {close[0]}? {way}"
    if "." in name and "--set" in known and not own:
        return f"did you mean --set {name.lstrip('-')}=VALUE? {way}"
    return way


def _option_of_runs(name: str, context: Any) -> str:
    """Where an option of ``gen sample`` that plugins bring belongs; empty where it is none, or another command's."""
    from advgen.config.sampling import plugins_with

    plugins = plugins_with(own := name.lstrip("-").replace("-", "_")) if context.info_name in ("sample", "evaluate") else []
    if not plugins:
        return ""
    if context.info_name == "evaluate":
        return f"gen sweep RUN --over {own}=VALUE,VALUE draws and evaluates at other values"
    return f"it is one of runs of plugin {' and '.join(plugins)}"


def _options(context: Any) -> list[str]:
    parameters = context.command.get_params(context) if context else []
    return [text for each in parameters for text in [*each.opts, *each.secondary_opts] if text.startswith("-")]


def _name(parameter: Any) -> str:
    """``--num-samples`` or ``RUN``, as the help writes it."""
    longest = str(max(parameter.opts, key=len, default=""))
    return longest if longest.startswith("-") else str(parameter.metavar or parameter.name)


def _lower(text: str) -> str:
    return (text[:1].lower() + text[1:]).rstrip(".")
