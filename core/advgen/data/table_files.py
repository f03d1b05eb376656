"""Which parquet and arrow files a folder has, and of which split: by their names only.

Nothing else in the folder is read: no card, no script, no address. Links that leave the folder are refused.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from advgen.data.manifest import SPLITS
from advgen.errors import DataError
from advgen.files import sorted_paths

TABLES = {".parquet": "parquet", ".arrow": "arrow"}
SHARD = re.compile(r"(?P<split>[\w.]+)-\d{5}-of-\d{5}.*")
WORDS = {**SPLITS, "training": "train", "testing": "test", "eval": "test", "evaluation": "test"}
PLAIN_FOLDER = "data"


def table_files(place: Path, subset: str | None) -> dict[str, list[Path]]:
    """Return the files of each split of a folder, or of one file, which is for training.

    Args:
        subset: the folder of a configuration, if there are several.

    Raises:
        DataError: if there are none, a file is a link to elsewhere, or the configuration is not clear.
    """
    if place.is_file():
        return {"train": [place]}
    found = [file for file in sorted_paths(place.rglob("*")) if file.suffix.lower() in TABLES and _is_shown(file, place)]
    for file in found:
        if not file.resolve().is_relative_to(place.resolve()):
            raise DataError(f"{file} is a link that leaves {place}; give the folder that it leads to, or replace it by a file")
    found = [file for file in found if file.is_file()]
    kinds = Counter(file.suffix.lower() for file in found)
    kind = max(TABLES, key=lambda suffix: kinds[suffix])
    splits: dict[str, list[Path]] = {}
    files = _of_subset([file for file in found if file.suffix.lower() == kind], place, subset)
    named = {file: _split_name(file.relative_to(place)) for file in files}
    for file, name in named.items():
        if name is not None or not any(named.values()):
            splits.setdefault(name or "train", []).append(file)
    return splits


def _is_shown(file: Path, place: Path) -> bool:
    return not any(part.startswith((".", "__")) for part in file.relative_to(place).parts)


def _of_subset(files: list[Path], place: Path, subset: str | None) -> list[Path]:
    """Return the files of a configuration, which is a folder of its own, as on the hub."""
    tops = {file: file.relative_to(place).parts[0] for file in files if len(file.relative_to(place).parts) > 1}
    known = sorted({top for top in tops.values() if top != PLAIN_FOLDER and _split_of(top) is None})
    if subset is not None:
        chosen = [file for file in files if tops.get(file) == subset]
        if not chosen:
            raise DataError(f"{place} has no configuration {subset!r}; it has {', '.join(known) or 'none'}: set options.subset")
        return chosen
    if len(known) > 1:
        raise DataError(f"{place} has the configurations {', '.join(known)}; choose one with options.subset")
    if not files:
        raise DataError(f"{place} holds no .parquet or .arrow file that can be read")
    return files


def _split_name(file: Path) -> str | None:
    """Return the split that a name says: of its shard, of a folder, or of a word; None if it says none."""
    if shard := SHARD.fullmatch(file.name):
        return shard["split"]
    return next((split for part in (*reversed(file.parts[:-1]), file.stem) if (split := _split_of(part))), None)


def _split_of(text: str) -> str | None:
    return next((WORDS[word] for word in re.split(r"[-._ 0-9]+", text.lower()) if word in WORDS), None)
