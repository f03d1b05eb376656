"""Tokens of a large corpus on disk: written once, whole or not at all, and mapped by later runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers

from advgen import DataError, DataRequest, cache_folder, replace_file, sorted_paths, user_path

from .config import TextConfig
from .origins import Origin, file_hash
from .store import Arrays, Encoded, map_arrays

# To be raised when the files below change.
LAYOUT = 5
ABOUT = "about.json"
# What decides the tokens; widths of networks do not.
OPTIONS = (
    "tokenizer",
    "vocabulary_size",
    "lower_case",
    "max_length",
    "long_lines",
    "field",
    "label_field",
    "prompt_field",
    "pretrained",
    "known",
)


def through_cache(
    origin: Origin, config: TextConfig, request: DataRequest, build: Callable[[Path], Encoded]
) -> tuple[dict[str, Any], dict[str, Arrays]]:
    """What is known of a corpus (facts, fingerprint, bad, notes), and its mapped arrays by split.

    Raises:
        DataError: where the files cannot be read or the cache cannot be written.
    """
    base = cache_folder() / "text"
    target = base / _key(origin, config, request)
    try:
        if not _is_whole(target):
            _write(target, build)
        about = json.loads((target / ABOUT).read_text(encoding="utf-8"))
        return about, {name: map_arrays(target, name) for name in about["splits"]}
    except OSError as error:
        raise DataError(
            f"tokens of {origin.name} cannot be kept in {base}: {error.strerror or error}; make room there, or set "
            "XDG_CACHE_HOME to another place"
        ) from error


def _key(origin: Origin, config: TextConfig, request: DataRequest) -> str:
    """A hash of the names and content of all parts and of all that decides their tokens and splits."""
    own = [] if config.pretrained is None else [user_path(config.pretrained) / "tokenizer.json"]
    content = [*origin.content(), *((file.name, file_hash(file)) for file in own)]
    options = [getattr(config, name, None) for name in OPTIONS]
    splits = [request.max_bad, request.validation_share, request.test_share]
    return hashlib.sha256(json.dumps([LAYOUT, tokenizers.__version__, content, options, splits]).encode()).hexdigest()[:32]


def _is_whole(folder: Path) -> bool:
    """Whether every file has the size it was written with."""
    try:
        sizes = json.loads((folder / ABOUT).read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError):
        return False


def _write(target: Path, build: Callable[[Path], Encoded]) -> None:
    """Build beside, then rename: a reader never sees half a cache."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{target.name}.", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "whole"
        folder.mkdir()
        encoded = build(folder)
        about = {
            "splits": list(encoded.arrays),
            "sizes": {file.name: file.stat().st_size for file in sorted_paths(folder.iterdir())},
            "facts": encoded.facts,
            "fingerprint": encoded.fingerprint,
            "bad": encoded.bad,
            "notes": encoded.notes,
        }
        (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8", newline="\n")
        shutil.rmtree(target, ignore_errors=True)
        try:
            replace_file(folder, target)
        except OSError:
            if not _is_whole(target):  # another run may have been first
                raise
