"""Images of a Hugging Face data set: rows stay encoded in its mapped tables, and each is opened when it is decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from advgen import DataError, class_name, columns_of, kind_of, named_file, open_tables, split_of, whole_block
from advgen_image.config import ImageConfig

LABEL_NAMES = ("label", "labels", "class", "target")
NO_COLUMN = "none"
BLOCK = 10_000


@dataclass(frozen=True)
class Row:
    """One row that has an image."""

    name: str
    place: Path | Callable[[], IO[bytes]]
    label: str | None
    split: str | None
    num_bytes: int


@dataclass
class Rows:
    """All of them, those that have none, and the order of the classes."""

    rows: list[Row] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()


def find_rows(place: Path | str, config: ImageConfig) -> Rows:
    """Every row of a path or of an address ``hub:owner/name[@revision]``, its label and split.

    Raises:
        PluginError: where the package ``datasets`` is missing.
        DataError: where the set cannot be read or fetched, or its columns do not tell which one has the images.
    """
    found, classes = Rows(), dict[str, None]()
    parts = open_tables(place, config.subset)
    for name, table in parts.items():
        image, label = _columns(table, str(place), config)
        split = split_of(name) if len(parts) > 1 else None
        _add_rows(found, table, (image, label), name, split, place)
        classes |= dict.fromkeys(getattr(table.features[label], "names", None) or ()) if label else {}
    used = {row.label for row in found.rows if row.label is not None}
    numbers = sorted(used, key=int) if used and all(each.lstrip("-").isdigit() for each in used) else sorted(used)
    found.classes = tuple(name for name in classes if name in used) or tuple(numbers)
    return found


def _columns(table: Any, place: str, config: ImageConfig) -> tuple[str, str | None]:
    """Which column has the images and which the classes."""
    kinds = dict(table.features)
    listed = columns_of(table)
    for option in ("image_column", "label_column"):
        name = getattr(config, option)
        if name not in (None, *kinds) and not (option == "label_column" and name == NO_COLUMN):
            raise DataError(f"{place} has no column {name!r}, as options.{option} says; it has {listed}")
    able = [name for name, feature in kinds.items() if _has_images(feature)]
    image = config.image_column or (able[0] if len(able) == 1 else None)
    if image is None or image not in able:
        what = f"column {image} holds no encoded images" if image else f"{len(able)} columns hold images"
        raise DataError(f"{place}: {what}, expected one of images or their bytes; it has {listed}: set options.image_column")
    return image, _label_column(kinds, place, config)


def _label_column(kinds: Mapping[str, Any], place: str, config: ImageConfig) -> str | None:
    if config.label_column == NO_COLUMN and NO_COLUMN not in kinds:
        return None
    if (name := config.label_column) is not None:
        if not _has_labels(kinds[name]):
            raise DataError(f"{place}: column {name} holds {kind_of(kinds[name])}, expected classes, whole numbers or text")
        return name
    usual = [name for name in LABEL_NAMES if name in kinds and _has_labels(kinds[name])]
    named = [name for name, feature in kinds.items() if hasattr(feature, "names")]
    return usual[0] if usual else named[0] if len(named) == 1 else None


def _has_images(feature: Any) -> bool:
    """Encoded ones: what ``Image`` stores, the same as a plain structure, or bytes alone."""
    if isinstance(feature, Mapping):
        return "bytes" in feature
    return type(feature).__name__ == "Image" or kind_of(feature) in ("binary", "large_binary")


def _has_labels(feature: Any) -> bool:
    return hasattr(feature, "names") or kind_of(feature).startswith(("int", "uint", "string", "large_string", "bool"))


def _add_rows(
    found: Rows, table: Any, columns: tuple[str, str | None], part: str, split: str | None, whole: Path | str
) -> None:
    """Note each row of one split by size, without decoding it."""
    import datasets

    image, label = columns
    table = table.select_columns([name for name in columns if name is not None])
    if isinstance(table.features[image], datasets.Image):
        table = table.cast_column(image, datasets.Image(decode=False))
    labels = table.features[label] if label is not None else None
    single = table.select_columns([image])
    for index, (size, path, value) in enumerate(_entries(table, image, label, whole)):
        name = f"{part}/{index}"
        file = named_file(whole, path) if size is None and path else None
        if size is None and file is None:
            found.bad.append(
                f"{name}: has no image" + (f", and names {path[:200]}, which is not a file of this set" if path else "")
            )
            continue
        opened = file or partial(_open_row, single, image, index)
        found.rows.append(Row(name, opened, class_name(value, labels), split, size or 0))


def _entries(table: Any, image: str, label: str | None, place: Path | str) -> Iterator[tuple[int | None, str | None, Any]]:
    """Size of the encoded image, path and label of each row, read in blocks."""
    import pyarrow
    import pyarrow.compute as compute

    for block in table.with_format("arrow").iter(BLOCK):
        column = whole_block(block, place)[image]
        paths = [None] * len(block)
        if pyarrow.types.is_struct(column.type):
            if column.type.get_field_index("path") >= 0:
                paths = compute.struct_field(column, "path").to_pylist()
            column = compute.struct_field(column, "bytes")
        labels = block[label].to_pylist() if label is not None else [None] * len(block)
        yield from zip(compute.binary_length(column).to_pylist(), paths, labels, strict=True)


def _open_row(table: Any, column: str, index: int) -> IO[bytes]:
    value = table[index][column]
    return BytesIO(value["bytes"] if isinstance(value, Mapping) else value)
