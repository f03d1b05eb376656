"""Hugging Face data sets as tables: saved by ``save_to_disk``, parquet or arrow files, or fetched from the hub.

No code of a data set is run; rows stay in the mapped tables of the package ``datasets``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from advgen.cache import cache_folder
from advgen.data.manifest import split_of
from advgen.errors import DataError
from advgen.optional_imports import needed_import

TABLES = {".parquet": "parquet", ".arrow": "arrow"}


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
        return datasets.load_from_disk(str(place))
    cache = str(cache_folder() / "hub")
    if place.is_dir():
        return datasets.load_dataset(str(place), subset, cache_dir=cache)
    return datasets.load_dataset(TABLES[place.suffix.lower()], data_files=str(place), cache_dir=cache)


def _refusal(place: Path | str, error: Exception) -> str:
    told = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and isinstance(place, str):
        return (
            f"{place} is not in the cache of the package datasets and cannot be fetched ({told}); check the name and the "
            "network, or fetch it elsewhere, keep it with its save_to_disk and give that folder"
        )
    return f"{place} cannot be read as a Hugging Face data set ({type(error).__name__}: {told})"
