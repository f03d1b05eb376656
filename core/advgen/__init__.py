"""advgen: train, sample, examine and ship adversarial generators of any modality.

What a plugin author imports is here and nowhere else; names resolve on first use, so importing this module is torch-free.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from advgen.api import load_generator, resume, train
    from advgen.cache import cache_folder
    from advgen.contracts import (
        Batch,
        Corpus,
        DataRequest,
        Discriminator,
        Generator,
        Head,
        Judge,
        MetricNote,
        Modality,
        Mode,
        Sample,
        Source,
        Verdict,
    )
    from advgen.data.archives import ZipFolder, is_zip, unpacked
    from advgen.data.hub import class_name, columns_of, is_table_set, kind_of, named_file, open_tables, whole_block
    from advgen.data.labels import class_notes, counted, few_notes, listed
    from advgen.data.manifest import ManifestRow, is_manifest, read_manifest, split_of
    from advgen.data.memory import ArraySource, content_hash, split_indices
    from advgen.data.report import DataReport, Repeats, Show, Spread, Tally, most_common
    from advgen.errors import ConfigError, DataError, GenError, PluginError
    from advgen.estimators import gumbel, straight_through
    from advgen.files import drafted, file_sha256, keep_file, replace_file, sorted_paths, user_path
    from advgen.hooks import hookimpl
    from advgen.importing import Imported
    from advgen.limits import free_bytes, most_unpacked, size_text
    from advgen.losses import Loss
    from advgen.optional_imports import ImportAttempt, hide_unless_it_loads, needed_import, try_import
    from advgen.penalties import Penalty
    from advgen.reading import read_json
    from advgen.spec import API_VERSION, DataSet, PluginConfig, PluginSpec, RemoteFile
    from advgen.transfer import to_device
    from advgen.unpickling import read_pickled
    from advgen.weights import load_cached_weights, load_weights

__version__ = "0.1.0"

_HOME = {
    "advgen.api": ("load_generator", "resume", "train"),
    "advgen.data.archives": ("ZipFolder", "is_zip", "unpacked"),
    "advgen.cache": ("cache_folder",),
    "advgen.contracts": (
        "Batch",
        "Corpus",
        "DataRequest",
        "Discriminator",
        "Generator",
        "Head",
        "Judge",
        "MetricNote",
        "Modality",
        "Mode",
        "Sample",
        "Source",
        "Verdict",
    ),
    "advgen.data.hub": ("class_name", "columns_of", "is_table_set", "kind_of", "named_file", "open_tables", "whole_block"),
    "advgen.data.labels": ("class_notes", "counted", "few_notes", "listed"),
    "advgen.data.memory": ("ArraySource", "content_hash", "split_indices"),
    "advgen.errors": ("ConfigError", "DataError", "GenError", "PluginError"),
    "advgen.estimators": ("gumbel", "straight_through"),
    "advgen.files": ("drafted", "file_sha256", "keep_file", "replace_file", "sorted_paths", "user_path"),
    "advgen.hooks": ("hookimpl",),
    "advgen.importing": ("Imported",),
    "advgen.limits": ("free_bytes", "most_unpacked", "size_text"),
    "advgen.losses": ("Loss",),
    "advgen.data.manifest": ("ManifestRow", "is_manifest", "read_manifest", "split_of"),
    "advgen.optional_imports": ("ImportAttempt", "hide_unless_it_loads", "needed_import", "try_import"),
    "advgen.penalties": ("Penalty",),
    "advgen.reading": ("read_json",),
    "advgen.data.report": ("DataReport", "Repeats", "Show", "Spread", "Tally", "most_common"),
    "advgen.spec": ("API_VERSION", "DataSet", "PluginConfig", "PluginSpec", "RemoteFile"),
    "advgen.transfer": ("to_device",),
    "advgen.unpickling": ("read_pickled",),
    "advgen.weights": ("load_cached_weights", "load_weights"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "API_VERSION",
    "ArraySource",
    "Batch",
    "ConfigError",
    "Corpus",
    "DataError",
    "DataReport",
    "DataRequest",
    "DataSet",
    "Discriminator",
    "GenError",
    "Generator",
    "Head",
    "ImportAttempt",
    "Imported",
    "Judge",
    "Loss",
    "ManifestRow",
    "MetricNote",
    "Modality",
    "Mode",
    "Penalty",
    "PluginConfig",
    "PluginError",
    "PluginSpec",
    "RemoteFile",
    "Repeats",
    "Sample",
    "Show",
    "Source",
    "Spread",
    "Tally",
    "Verdict",
    "ZipFolder",
    "cache_folder",
    "class_name",
    "class_notes",
    "columns_of",
    "content_hash",
    "counted",
    "drafted",
    "few_notes",
    "file_sha256",
    "free_bytes",
    "gumbel",
    "hide_unless_it_loads",
    "hookimpl",
    "is_manifest",
    "is_table_set",
    "is_zip",
    "keep_file",
    "kind_of",
    "listed",
    "load_cached_weights",
    "load_generator",
    "load_weights",
    "most_common",
    "most_unpacked",
    "named_file",
    "needed_import",
    "open_tables",
    "read_json",
    "read_manifest",
    "read_pickled",
    "replace_file",
    "resume",
    "size_text",
    "sorted_paths",
    "split_indices",
    "split_of",
    "straight_through",
    "to_device",
    "train",
    "try_import",
    "unpacked",
    "user_path",
    "whole_block",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'advgen' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
