"""Texts of others in a page of Markdown with YAML front matter: they show as they are and make nothing else. Torch-free."""

from __future__ import annotations

import json
import re
import shlex
from urllib.parse import quote

from advgen.terminal import visible, visible_json

HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=/)|(?<=\bwww)\.|@")
"""Characters with a meaning within a line: of code, emphasis, links, tables, formulas, and of addresses that become links."""
STARTS = re.compile(r"^(\s*)([#+=-]|\d+(?=[.)]))")
"""Characters with a meaning where a line begins: of headings, lists and rules."""

UNPRINTABLE = re.compile("[\ufeff\ufffe\uffff]")
"""Characters that YAML takes as escapes only, besides those that are escaped everywhere."""


def plain(text: object) -> str:
    """Return text for the inside of a line of Markdown, where it shows as it is."""
    marked = MARKS.sub(lambda found: f"\\{found[0]}", visible(text).strip())
    marked = STARTS.sub(_escape_start, marked)
    return "".join(HTML.get(character, character) for character in marked)


def code(text: object) -> str:
    """Return text as a span of code; a fence is longer than any run of backticks in it."""
    shown = visible(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown[:1] in ("`", " ", "") or shown[-1:] in ("`", " ") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def quoted_lines(text: str) -> str:
    """Return the lines of a text as a block of code, which begins after an empty line."""
    return "\n".join(f"    {visible(line)}".rstrip() for line in text.split("\n"))


def address(path: str) -> str:
    """Return a relative path as the target of a link or the value of an attribute."""
    return quote(path.encode(errors="surrogateescape"), safe="/")


def yaml_text(text: object) -> str:
    """Return text as a value of YAML: in double quotes, with printable characters only."""
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(visible(text), ensure_ascii=False))


def python_text(text: object) -> str:
    """Return text as a literal of Python in double quotes."""
    return visible_json(json.dumps(str(text), ensure_ascii=False))


def shell_word(text: object) -> str:
    """Return text as one word of a command."""
    return visible(shlex.quote(str(text)))


def _escape_start(found: re.Match[str]) -> str:
    digits = found[2].isdigit()
    return f"{found[1]}{found[2]}\\" if digits else f"{found[1]}\\{found[2]}"
