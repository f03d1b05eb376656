"""What is written of samples: lines of text, JSON lines, a numbered table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


def write_samples(rows: Sequence[Row], folder: Path, file_format: str, start: int) -> list[Path]:
    """samples.txt or samples.jsonl; ``start`` 0 begins the file anew, later blocks are added to it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples.{file_format}"
    lines = [row["text"] if file_format == "txt" else json.dumps(row, ensure_ascii=False) for row in rows]
    with path.open("a" if start else "w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in lines)
    return [path]


def write_table(rows: Sequence[Row], stem: Path) -> list[Path]:
    """Number, class and log-probability where known, and text, a line each beside ``stem``."""
    width = max((len(row.get("class", "")) for row in rows), default=0)
    path = stem.with_name(stem.name + ".txt")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(_line(number, row, width) for number, row in enumerate(rows)), encoding="utf-8", newline="\n")
    return [path]


def _line(number: int, row: Row, width: int) -> str:
    score = f"{row['log_prob']:10.3f}  " if "log_prob" in row else ""
    return f"{number:4d}  {row.get('class', ''):<{width}}  {score}{row['text']}".rstrip() + "\n"
