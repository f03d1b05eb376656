"""Escapes for foreign text in Markdown with YAML front matter, so that it is shown literally. Torch-free."""

from __future__ import annotations

import json
import re
import shlex
from urllib.parse import quote

from advgen.terminal import visible, visible_json

HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])|:(?=/)|(?<=\bwww)\.|@")
"""Characters with a meaning inside a line: code, emphasis, links, tables, formulas, and addresses that become links."""
STARTS = re.compile(r"^(\s*)([#+=-]|\d+(?=[.)]))")
"""Characters with a meaning at the start of a line: headings, lists and rules."""

UNPRINTABLE = re.compile("[\ufeff\ufffe\uffff]")
"""Characters that YAML allows only as escapes, in addition to those that are escaped everywhere."""


def plain(text: object) -> str:
    """Escape text for the inside of a Markdown line, so that it is shown literally."""
    marked = MARKS.sub(lambda found: f"\\{found[0]}", visible(text).strip())
    marked = STARTS.sub(_escape_start, marked)
    return "".join(HTML.get(character, character) for character in marked)


def code(text: object) -> str:
    """Return text as a code span, fenced by more backticks than any run in it."""
    shown = visible(text)
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    space = " " if shown[:1] in ("`", " ", "") or shown[-1:] in ("`", " ") else ""
    return f"{fence}{space}{shown}{space}{fence}"


def quoted_lines(text: str) -> str:
    """Return the lines of a text as a code block, which has to follow an empty line."""
    return "\n".join(f"    {visible(line)}".rstrip() for line in text.split("\n"))


def address(path: str) -> str:
    """Escape a relative path for the target of a link or the value of an attribute."""
    return quote(path.encode(errors="surrogateescape"), safe="/")


def yaml_text(text: object) -> str:
    """Return text as a YAML value in double quotes, with printable characters only."""
    return UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(visible(text), ensure_ascii=False))


def python_text(text: object) -> str:
    """Return text as a Python literal in double quotes."""
    return visible_json(json.dumps(str(text), ensure_ascii=False))


def shell_word(text: object) -> str:
    """Return text quoted as one word of a shell command."""
    return visible(shlex.quote(str(text)))


def _escape_start(found: re.Match[str]) -> str:
    digits = found[2].isdigit()
    return f"{found[1]}{found[2]}\\" if digits else f"{found[1]}\\{found[2]}"
