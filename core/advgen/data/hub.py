"""Hugging Face data sets as tables: saved by ``save_to_disk``, parquet or arrow files, or fetched from the hub.

No code of a data set runs, and rows stay in the mapped tables of the package ``datasets``. That package never scans a local
folder itself: it would follow addresses and paths in the card and choose among thirty readers by file name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from advgen.data.manifest import split_of
from advgen.data.table_cache import as_stream, check_stream
from advgen.data.table_files import TABLES, table_files
from advgen.errors import DataError, GenError
from advgen.optional_imports import needed_import

MOST_STATE_BYTES = 16 * 2**20
PLAIN_NAME = re.compile(r"[^/\\:\0]+")


def is_table_set(place: Path, has_own: bool = False) -> bool:
    """Whether a path is a saved data set, or a parquet or arrow file, or a folder of these and no files of the plugin's own."""
    if place.is_file():
        return place.suffix.lower() in TABLES
    return _is_saved(place) or (not has_own and any(file.suffix.lower() in TABLES for file in place.rglob("*")))


def open_tables(place: Path | str, subset: str | None) -> dict[str, Any]:
    """The tables of a path or of an address ``hub:owner/name[@revision]`` by split; what is neither training data nor held out
    is left aside.

    Args:
        subset: configuration of a set that has several.

    Raises:
        PluginError: where the package ``datasets`` is missing.
        DataError: where the set cannot be read or fetched, or has no split to train on.
    """
    datasets = _package(place)
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        whole = _open(datasets, place, subset)
    except GenError:
        raise
    except Exception as error:  # the package raises many kinds for what it cannot read or fetch
        raise DataError(_refusal(place, error)) from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    if not isinstance(whole, Mapping):
        return {"train": whole}
    if not any(split_of(name) == "train" for name in whole):
        raise DataError(f"{place} has the splits {', '.join(whole)}, expected one called train among them")
    return {name: table for name, table in whole.items() if split_of(name) is not None}


def named_file(place: Path | str, name: str) -> Path | None:
    """Return the file that a row of a data set names, if it is below the set's folder or, for an address, in the hub's cache.

    A table can name any file on this machine, so no other file is read.
    """
    if isinstance(place, str):
        config = _package(place).config
        roots = [Path(config.HF_DATASETS_CACHE), Path(config.HF_CACHE_HOME)]
    else:
        roots = [place if place.is_dir() else place.parent]
    try:
        found = (roots[0] / name).resolve()
        inside = any(found.is_relative_to(root.resolve()) for root in roots)
        return found if inside and found.is_file() else None
    except (OSError, ValueError):  # the system takes no such name
        return None


def whole_block(block: Any, place: Path | str) -> Any:
    """Return an arrow table after checking that every offset is inside it; a damaged one can point anywhere in memory.

    Raises:
        DataError: if it is damaged.
    """
    try:
        block.validate(full=True)
    except Exception as error:  # the package has errors of its own
        raise DataError(f"{place} holds a damaged table ({' '.join(str(error).split())[:200]}); fetch it again") from error
    return block


def columns_of(table: Any) -> str:
    """All columns of a table with their kinds, for messages."""
    return ", ".join(f"{name} ({kind_of(feature)})" for name, feature in dict(table.features).items())


def kind_of(feature: Any) -> str:
    """The kind of a column: that of its values, or of how they are stored."""
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


def class_name(value: Any, feature: Any) -> str | None:
    """A class's name; None where the row has none, which ``ClassLabel`` writes as -1."""
    names = getattr(feature, "names", None)
    if value is None or (names and not 0 <= value < len(names)):
        return None
    return str(names[value]) if names else str(value).strip() or None


def _is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` made this folder."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _package(place: Path | str) -> ModuleType:
    return needed_import("datasets", f"the Hugging Face data set {place}", 'pip install "advgen[hub]"')


def _open(datasets: Any, place: Path | str, subset: str | None) -> Any:
    if isinstance(place, str):
        name, _, revision = place.partition(":")[2].partition("@")
        return datasets.load_dataset(name, subset, revision=revision or None)
    place = place.absolute()
    if place.is_dir() and _is_saved(place):
        _check_saved(place)
        return datasets.load_from_disk(str(place))
    return {split: _joined(datasets, files, split) for split, files in table_files(place, subset).items()}


def _joined(datasets: Any, files: list[Path], split: str) -> Any:
    """Concatenate the tables of several files; the fingerprint is computed from their content."""
    parts = []
    for file in files:
        try:
            stream, mark = as_stream(file)
            table = datasets.table.MemoryMappedTable.from_file(str(stream))
        except OSError as error:
            told = error.strerror or " ".join(str(error).split())[:300]
            raise DataError(f"{file} cannot be read, or kept in the cache as a table: {told}") from error
        table.validate()
        parts.append(datasets.Dataset(table, fingerprint=f"{split}-{mark}"))
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def _check_saved(folder: Path) -> None:
    """Refuse a saved set that names files elsewhere, or compressed ones.

    Raises:
        DataError: naming the file.
        ValueError: if the set is damaged.
    """
    index = folder / "dataset_dict.json"
    names = _state(index)["splits"] if index.is_file() else [""]
    for name in names:
        part = _below(folder, name, folder) if name or index.is_file() else folder
        for entry in _state(part / "state.json")["_data_files"]:
            check_stream(_below(part, entry["filename"], folder))


def _below(part: Path, name: Any, folder: Path) -> Path:
    found = part / str(name)
    plain = isinstance(name, str) and PLAIN_NAME.fullmatch(name) and name not in (".", "..")
    if not plain or not found.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder} names {str(name)[:200]!r}, which is outside of it; save the set again with save_to_disk")
    return found


def _state(file: Path) -> Any:
    with file.open("rb") as stream:
        content = stream.read(MOST_STATE_BYTES + 1)
    if len(content) > MOST_STATE_BYTES:
        raise ValueError(f"{file.name} has more than {MOST_STATE_BYTES} bytes")
    return json.loads(content)


def _refusal(place: Path | str, error: Exception) -> str:
    told = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and isinstance(place, str):
        return (
            f"{place} is not in the cache of the package datasets and cannot be fetched ({told}); check the name and the "
            "network, or fetch it elsewhere, keep it with its save_to_disk and give that folder"
        )
    return f"{place} cannot be read as a Hugging Face data set ({type(error).__name__}: {told})"
