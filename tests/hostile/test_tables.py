"""Hugging Face data sets run no code, follow no path or address out of their folder, and unpack under limits."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from advgen import DataError, DataRequest, open_tables
from advgen.data import hub, table_cache
from advgen_image.config import ImageConfig
from advgen_image.hub import find_rows
from advgen_text.config import TextConfig
from advgen_text.origins import find_origin
from advgen_text.reading import Notes

pyarrow = pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")

PAYLOAD = "from pathlib import Path\nPath({mark!r}).write_text('ran')\n"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ADVGEN_MAX_UNPACKED_GIB", str(4 / 1024))
    datasets.disable_progress_bars()


def texts(folder: Path, count: int = 20, name: str = "train.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"text": [f"row {number}" for number in range(count)]}), folder / name)
    return folder


def saved(folder: Path) -> Path:
    datasets.Dataset.from_dict({"text": [f"row {number}" for number in range(20)]}).save_to_disk(folder)
    return folder


def state(folder: Path, **entries: Any) -> Path:
    file = folder / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
    return folder


def stream(file: Path, compression: str | None = None, table: Any = None, kind: str = "new_stream") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"text": ["a" * 100] * 1000}) if table is None else table
    options = pyarrow.ipc.IpcWriteOptions(compression=compression)
    with pyarrow.OSFile(str(file), "wb") as out, getattr(pyarrow.ipc, kind)(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return file


def compressed_save(folder: Path) -> Path:
    """A saved set whose only batch is eight megabytes of one letter."""
    file = next(saved(folder).glob("*.arrow"))
    stream(file, "zstd", pyarrow.table({"text": ["a" * 2**20] * 8}))
    return folder


def named_a_million_times(file: Path) -> Path:
    """One value of a hundred kilobytes in two thousand rows: a few kilobytes on disk."""
    values = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 2000, pyarrow.int32()), ["a" * 100_000])
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table({"text": values}), file, compression="zstd")
    return file


def zeros(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"text": ["b" * 5000 + str(number) for number in range(2000)]})
    parquet.write_table(table, file, compression="zstd", use_dictionary=False)
    return file


def footer(length: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        file = texts(folder) / "train.parquet"
        file.write_bytes(file.read_bytes()[:-8] + struct.pack("<I", length) + b"PAR1")
        return file

    return make


def bent(folder: Path) -> Path:
    """A saved set whose first text ends two gigabytes behind its start."""
    file = next(saved(folder).glob("*.arrow"))
    stream(file, table=pyarrow.table({"text": ["abcd", "efgh"]}))
    content = file.read_bytes()
    place = content.index(struct.pack("<III", 0, 4, 8))
    file.write_bytes(content[: place + 4] + struct.pack("<I", 2**31 - 1) + content[place + 8 :])
    return folder


def written(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def outside(folder: Path) -> str:
    """A table that the data set is not to reach."""
    return str(stream(folder.parent / "elsewhere" / "mine.arrow"))


def link(folder: Path) -> Path:
    texts(folder.parent / "elsewhere")
    folder.mkdir()
    os.symlink(folder.parent / "elsewhere" / "train.parquet", folder / "train.parquet")
    return folder


def splits(*names: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        saved(folder / "train")
        saved(folder.parent / "elsewhere")
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": names}))
        return folder

    return make


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a value that is named 2000 times": (lambda f: named_a_million_times(f / "a.parquet"), "unpacks to more than 4 MiB"),
    "ten megabytes of one letter": (lambda f: zeros(f / "a.parquet"), "unpacks to more than 4 MiB"),
    "a footer of 4 GiB": (footer(2**32 - 1), "its footer should have 4294967295 bytes"),
    "a footer longer than the file": (footer(100_000), "its footer should have 100000 bytes"),
    "a footer of nothing": (footer(0), "cannot be read"),
    "no parquet file": (lambda f: written(f, "a.parquet", b"PAR1" * 3), "footer should have|cannot be read"),
    "an empty parquet file": (lambda f: written(f, "a.parquet", b""), "is no whole parquet file"),
    "half a parquet file": (lambda f: written(f, "a.parquet", (texts(f) / "train.parquet").read_bytes()[:300]), "no whole"),
    "an empty arrow file": (lambda f: written(f, "a.arrow", b""), "cannot be read"),
    "an arrow message of 2 GiB": (lambda f: written(f, "a.arrow", struct.pack("<II", 2**32 - 1, 2**31)), "cannot be read"),
    "an arrow message of zeros": (lambda f: written(f, "a.arrow", struct.pack("<II", 2**32 - 1, 64) + bytes(64)), "cannot be"),
    "an arrow message that points away": (
        lambda f: written(f, "a.arrow", struct.pack("<III", 2**32 - 1, 64, 2**31) + b"\xff" * 60),
        "cannot be read",
    ),
    "a compressed arrow stream": (lambda f: stream(f / "a.arrow", "zstd"), "is a compressed arrow file"),
    "a compressed arrow file": (lambda f: stream(f / "a.arrow", "lz4", kind="new_file"), "is a compressed arrow file"),
    "a compressed saved set": (compressed_save, "is a compressed arrow file"),
    "a saved set that names a file above": (
        lambda f: state(saved(f), _data_files=[{"filename": "../elsewhere/mine.arrow"}]),
        "names '../elsewhere/mine.arrow', which is outside of it",
    ),
    "a saved set that names an absolute file": (
        lambda f: state(saved(f), _data_files=[{"filename": outside(f)}]),
        "which is outside of it",
    ),
    "a saved set that names an address": (
        lambda f: state(saved(f), _data_files=[{"filename": "https://example.org/a.arrow"}]),
        "which is outside of it",
    ),
    "a saved set that names nothing": (lambda f: state(saved(f), _data_files=[{"filename": ""}]), "which is outside of it"),
    "a saved set that names a number": (lambda f: state(saved(f), _data_files=[{"filename": 7}]), "which is outside of it"),
    "a saved set without files": (lambda f: state(saved(f), _data_files=7), "cannot be read as a Hugging Face data set"),
    "a saved set with a nested state": (
        lambda f: written(saved(f), "state.json", b"[" * 100_000).parent,
        "cannot be read as a Hugging Face data set",
    ),
    "a split above": (splits("train", "../elsewhere"), "names '../elsewhere', which is outside of it"),
    "a split of dots": (splits("train", ".."), r"names '\.\.', which is outside of it"),
    "a split with an absolute path": (splits("train", "/etc"), "names '/etc', which is outside of it"),
    "a link that leaves the folder": (link, "is a link that leaves"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_table_is_refused_in_one_line_and_leaves_no_table(case: str, tmp_path: Path) -> None:
    make, message = HOSTILE[case]
    place = make(tmp_path / "set")
    with pytest.raises(DataError, match=message) as told:
        open_tables(place, None)
    assert "\n" not in str(told.value) and str(tmp_path / "set") in str(told.value) and len(str(told.value)) < 700
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_table_that_points_outside_of_itself_is_refused_by_both_plugins(tmp_path: Path) -> None:
    place = bent(tmp_path / "set")
    with pytest.raises(DataError, match=r"damaged table|cannot be read as a Hugging Face data set"):
        list(find_origin(TextConfig(), DataRequest(place)).lines(TextConfig(), DataRequest(place), Notes()))


def test_state_files_pages_and_row_groups_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, most, place, message in (
        (hub, "MOST_STATE_BYTES", 50, saved(tmp_path / "saved"), "has more than 50 bytes"),
        (table_cache, "LARGEST_PAGE", 50, texts(tmp_path / "pages"), "a page of .* bytes, expected at most 50"),
        (table_cache, "LARGEST_GROUP", 50, texts(tmp_path / "groups", 21), "a row group of .* bytes, expected at most 50"),
    ):
        with monkeypatch.context() as patch, pytest.raises(DataError, match=message):
            patch.setattr(module, name, most)
            open_tables(place, None)


def test_few_rows_are_read_at_once_where_values_are_large(tmp_path: Path) -> None:
    file = named_a_million_times(tmp_path / "a.parquet")
    group = parquet.ParquetFile(file).metadata.row_group(0)
    assert table_cache._rows_at_once(file, group) == 64 * 2**20 // (100_000 + 4)
    small = texts(tmp_path / "set") / "train.parquet"
    assert table_cache._rows_at_once(small, parquet.ParquetFile(small).metadata.row_group(0)) == 1000


def test_neither_scripts_nor_cards_nor_pickles_next_to_the_data_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, folder = tmp_path / "mark", texts(tmp_path / "set")
    texts(tmp_path / "elsewhere", 7)
    for name in ("set.py", "dataset.py", "__init__.py", "train.py", "conftest.py"):
        (folder / name).write_text(PAYLOAD.format(mark=str(mark)))
    for number in range(40):  # more of them than tables, as a loader goes by the most frequent suffix
        (folder / f"{number}.pkl").write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % str(mark).encode())
        (folder / f"{number}.csv").write_text("text\nnot ours\n")
    files = [str(tmp_path / "elsewhere" / "train.parquet"), "https://example.org/a.parquet", "../elsewhere/*.parquet"]
    configs = [{"config_name": "default", "data_files": files}]
    (folder / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    (folder / ".huggingface.yaml").write_text(json.dumps({"configs": configs}))
    (folder / "dataset_infos.json").write_text("{" * 100)
    monkeypatch.setattr("socket.socket", None)  # a connection would fail by another error
    tables = open_tables(folder, None)
    assert {name: len(table) for name, table in tables.items()} == {"train": 20} and not mark.exists()
    saved(tmp_path / "saved")
    for name in ("saved.py", "dataset.py"):
        (tmp_path / "saved" / name).write_text(PAYLOAD.format(mark=str(mark)))
    assert len(open_tables(tmp_path / "saved", None)["train"]) == 20 and not mark.exists()


def test_no_call_of_the_package_trusts_code(root: Path) -> None:
    for file in [*(root / "core").rglob("*.py"), *(root / "plugins").rglob("*.py")]:
        assert "trust_remote_code" not in file.read_text(encoding="utf-8"), file


def test_a_row_reaches_images_of_its_own_folder_only(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "pictures").mkdir(parents=True)
    for place in (folder / "pictures" / "a.png", tmp_path / "mine.png"):
        Image.new("L", (8, 8)).save(place)
    names = ["pictures/a.png", str(folder / "pictures" / "a.png"), str(tmp_path / "mine.png"), "../mine.png", "a" * 300]
    content = {"image": [{"bytes": None, "path": name} for name in names]}
    features = pyarrow.schema({"image": pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})})
    parquet.write_table(pyarrow.table(content, features), folder / "train.parquet")
    found = find_rows(folder / "train.parquet", ImageConfig())
    assert [row.place for row in found.rows] == [folder.resolve() / "pictures" / "a.png"] * 2
    assert len(found.bad) == 3 and all("which is not a file of this set" in reason for reason in found.bad)


def test_files_are_of_the_split_that_their_shard_folder_or_word_says(tmp_path: Path) -> None:
    names = {
        "data/train-00000-of-00002.parquet": 3,
        "data/train-00001-of-00002.parquet": 4,
        "data/validation-00000-of-00001.parquet": 5,
        "data/extra-00000-of-00001.parquet": 6,
        "test/0000.parquet": 7,
        ".hidden/train.parquet": 8,
        "__old__/train.parquet": 9,
    }
    for name, count in names.items():
        texts((tmp_path / "set" / name).parent, count, Path(name).name)
    found = {name: len(table) for name, table in open_tables(tmp_path / "set", None).items()}
    assert found == {"train": 7, "validation": 5, "test": 7}
    for top in ("easy", "hard"):
        texts(tmp_path / "two" / top, 3 if top == "easy" else 4)
    with pytest.raises(DataError, match=r"has the configurations easy, hard; choose one with options\.subset"):
        open_tables(tmp_path / "two", None)
    assert len(open_tables(tmp_path / "two", "hard")["train"]) == 4
    with pytest.raises(DataError, match="has no configuration 'other'; it has easy, hard"):
        open_tables(tmp_path / "two", "other")


def test_an_arrow_file_and_a_stream_hold_the_same_and_keep_their_fingerprint(tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"row {number}" for number in range(20)]})
    for kind in ("new_file", "new_stream"):
        file = stream(tmp_path / kind / "a.arrow", table=table, kind=kind)
        one, two = (open_tables(file, None)["train"] for _ in range(2))
        assert one["text"][:] == table["text"].to_pylist() and one._fingerprint == two._fingerprint
