"""Named data sets: fetched once from where they are published, checked, and kept in the cache. Torch-free."""

from __future__ import annotations

import difflib
import hashlib
import json
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from advgen.cache import cache_folder
from advgen.data.archives import is_archive, is_zip, unpacked
from advgen.data.members import BLOCK
from advgen.errors import DataError
from advgen.files import replace_file, sorted_paths, user_path
from advgen.limits import LARGEST_LIMIT, free_bytes, size_text
from advgen.offers import offers
from advgen.registry import PluginRecord
from advgen.spec import DataSet, RemoteFile
from advgen.terminal import tell

PATIENCE_SECONDS = 60


def named_sets(record: PluginRecord | None = None) -> dict[str, tuple[str, DataSet]]:
    """Every named set with its plugin's name; of one plugin, or of all that work."""
    if record is not None:
        tables: list[tuple[str, Mapping[str, DataSet]]] = [(record.name, record.spec.datasets)] if record.spec else []
    else:
        tables = [(each.name, each.datasets) for each in offers()]
    return {name: (plugin, entry) for plugin, table in tables for name, entry in table.items()}


def names_set(record: PluginRecord | None, data: str) -> bool:
    """Whether this is a named set: a file or folder of that name comes first."""
    return not user_path(data).exists() and data in named_sets(record)


def nearest_set(record: PluginRecord | None, data: Path) -> str:
    """A question whether a name in the working folder, where nothing is, means a set; empty where none is near."""
    written = data.name.lower().replace("_", "-")
    close = difflib.get_close_matches(written, named_sets(record), n=1) if data.absolute().parent == Path.cwd() else []
    return f"did you mean the data set {close[0]!r}? " if close else ""


def is_address(record: PluginRecord | None, data: str) -> bool:
    """Whether this is what a plugin finds itself, such as ``hub:owner/name``: a file or folder of that name comes first."""
    return not user_path(data).exists() and bool(readers_of(record, data))


def readers_of(record: PluginRecord | None, address: str) -> list[str]:
    """Name the plugins that take this kind of address: all usable ones by qualified name, or one."""
    scheme, colon, _ = address.partition(":")
    if not colon:
        return []
    if record is not None:
        return [record.name] if record.spec is not None and scheme in record.spec.addresses else []
    return [each.qualified_name for each in offers() if scheme in each.addresses]


def whole_path(place: Path | str) -> str:
    """A path that holds from everywhere, without ``..``; links in it are followed only where ``..`` may stand behind one."""
    path = user_path(place)
    return str(path.resolve() if ".." in path.parts else path.absolute())


def locate(record: PluginRecord | None, data: str) -> Path:
    """Where data lie: a path as it is, an archive and a named set by way of the cache.

    A zip archive stays where the plugin reads it in place, and where no plugin is chosen yet.

    Raises:
        DataError: where a set cannot be fetched or an archive not unpacked.
    """
    if names_set(record, data):
        return fetch(data, named_sets(record)[data][1])
    path = user_path(data)
    in_place = is_zip(path) and (record is None or (record.spec is not None and record.spec.reads_zip))
    return unpacked(path) if is_archive(path) and not in_place else path


def is_fetched(name: str, entry: DataSet) -> bool:
    """Whether the set is in the cache."""
    return _place(name, entry).is_dir()


def fetch(name: str, entry: DataSet) -> Path:
    """A set's folder in the cache; its files are downloaded where they are not there, all or none.

    Raises:
        DataError: where a file cannot be had or is not the published one.
    """
    target = _place(name, entry)
    if not target.is_dir():
        try:
            _download_all(name, entry, target)
        except OSError as error:
            raise DataError(
                f"data set {name} cannot be kept in {target.parent}: {error.strerror or error}; make room there, or set "
                "XDG_CACHE_HOME to another place"
            ) from error
    files = sorted_paths(target.iterdir())
    place = unpacked(files[0]) if len(files) == 1 and is_archive(files[0]) else target
    return place / entry.inside if (place / entry.inside).exists() else place


def _place(name: str, entry: DataSet) -> Path:
    """A folder of the set's own, another one where its files change."""
    facts = [[file.name, file.url, file.sha256] for file in entry.files]
    return cache_folder() / "sets" / f"{name}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}"


def _download_all(name: str, entry: DataSet, target: Path) -> None:
    """Beside the target, then renamed: nobody sees half a set."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    try:
        for file in entry.files:
            note = "" if file.sha256 else " (not checked: no hash of it is published)"
            tell(f"fetching {name}: {file.url}{note}")
            _download(name, file, draft / file.name)
        try:
            replace_file(draft, target)
        except OSError:
            if not target.is_dir():  # else another process was quicker
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _download(name: str, file: RemoteFile, target: Path) -> None:
    way = f"download {file.url} yourself and give its place with --data PATH"
    digest, num_bytes = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(file.url, timeout=PATIENCE_SECONDS) as stream, target.open("wb") as out:
            room = min(LARGEST_LIMIT, free_bytes(target.parent))
            for block in _blocks(stream):
                digest.update(block)
                num_bytes += len(block)
                if num_bytes > room:
                    raise DataError(f"data set {name}: {file.url} is larger than {size_text(room)}; make room, or {way}")
                out.write(block)
    except urllib.error.HTTPError as error:
        raise DataError(f"data set {name}: {file.url} answers {error.code} {error.reason}; {way}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, EOFError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"data set {name} is not in the cache and cannot be fetched: no network ({reason}); {way}") from error
    if file.sha256 is not None and digest.hexdigest() != file.sha256:
        raise DataError(
            f"data set {name}: {file.url} gave {num_bytes} bytes with sha256 {digest.hexdigest()}, expected {file.sha256}; "
            f"nothing was kept. Try again, or {way}"
        )


def _blocks(stream: Any) -> Iterator[bytes]:
    """The answer's body in blocks, to its announced end."""
    left = stream.headers.get("Content-Length")
    expected = int(left) if left is not None else None
    got = 0
    while block := stream.read(BLOCK):
        got += len(block)
        yield block
    if expected is not None and got != expected:
        raise EOFError(f"the connection ended after {got} of {expected} bytes")
