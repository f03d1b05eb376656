"""Archives that lie about sizes, unpack to too much, or hold anything but plain files leave nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import peak_below

from advgen.cache import cache_folder
from advgen.config import toml
from advgen.data import archives, members, zip_members
from advgen.data.archives import ZipFolder, unpacked
from advgen.data.manifest import read_manifest
from advgen.errors import ConfigError, DataError
from advgen.limits import most_unpacked

MEBIBYTE = 2**20
LIMIT = 2 * MEBIBYTE
"""Set by the variable in these tests, so that a bomb is small on disk and small when it goes off."""


def tar_of(*infos: tuple[tarfile.TarInfo, bytes], **options: object) -> bytes:
    """Pack members as they are, whatever they say."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as whole:  # type: ignore[call-overload]
        for info, content in infos:
            whole.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def member(name: str, content: bytes = b"x", **facts: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for fact, value in facts.items():
        setattr(info, fact, value)
    return info, content


def sparse(headers: dict[str, str], content: bytes = b"") -> bytes:
    return tar_of(member("hole.bin", content, pax_headers=headers), format=tarfile.PAX_FORMAT)


def old_sparse() -> bytes:
    """A header of GNU tar with one empty part of ten gigabytes."""
    info, _ = member("hole.bin", b"", type=tarfile.GNUTYPE_SPARSE)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"00000000000\0", b"00000000000\0"
    block[483:495] = b"%011o\0" % (8 * 2**30 - 1)
    return sealed(block) + bytes(1024)


def sealed(block: bytearray) -> bytes:
    """A tar header with its checksum put right."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    return bytes(block)


def headed(kind: bytes, size: int, content: bytes = b"") -> bytes:
    """A header that is followed by less than it says."""
    info, _ = member("x", b"", type=kind)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"%011o\0" % size if size >= 0 else b"\xff" * 4 + struct.pack(">q", size)
    return sealed(block) + content


def zip_of(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as whole:
        for name, content in files.items():
            whole.writestr(name, content)
    return stream.getvalue()


def zip_with(name: str, content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as whole:
        whole.writestr(name, content)
    return stream.getvalue()


def changed(content: bytes, at: int, kind: str, value: int) -> bytes:
    """A zip archive with a number of the first entry of its list changed."""
    place = content.index(b"PK\1\2") + at
    return content[:place] + struct.pack(kind, value) + content[place + struct.calcsize(kind) :]


def overlapping() -> bytes:
    """Two entries that share one file: with thousands, a kilobyte becomes gigabytes."""
    content = zip_with("a.bin", bytes(1000))
    start = content.index(b"PK\1\2")
    end = content.index(b"PK\5\6")
    entry = content[start:end]
    tail = bytearray(content[end:])
    twice = entry + entry.replace(b"a.bin", b"b.bin")
    struct.pack_into("<HHI", tail, 8, 2, 2, len(twice))
    return content[:start] + twice + bytes(tail)


def doubled() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as whole, pytest.warns(UserWarning, match="Duplicate name"):
        whole.writestr("a.png", b"1")
        whole.writestr("a.png", b"2")
    return stream.getvalue()


def zip64_lie() -> bytes:
    """A zip64 extension that says 2^62 bytes."""
    content = zip_with("a.bin", bytes(1000))
    start = content.index(b"PK\1\2")
    end = content.index(b"PK\5\6")
    entry = bytearray(content[start:end])
    struct.pack_into("<I", entry, 24, 0xFFFFFFFF)
    struct.pack_into("<H", entry, 30, 12)
    entry += struct.pack("<HHQ", 1, 8, 2**62)
    tail = bytearray(content[end:])
    struct.pack_into("<I", tail, 12, len(entry))
    return content[:start] + bytes(entry) + bytes(tail)


def xz(content: bytes, memory: int) -> bytes:
    return lzma.compress(content, lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": memory}])


ZEROS = bytes(4 * MEBIBYTE)
BOMB = tar_of(member("zeros.bin", ZEROS))
SMALL = tar_of(member("a.png"), member("b.png"))
PAX = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": str(2**40)}
HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "zeros in gzip": ("a.tar.gz", gzip.compress(BOMB), "unpacks to more than 2 MiB"),
    "zeros in bzip2": ("a.tar.bz2", bz2.compress(BOMB), "unpacks to more than 2 MiB"),
    "zeros in xz": ("a.tar.xz", lzma.compress(BOMB), "unpacks to more than 2 MiB"),
    "zeros in lzma": ("a.tar.xz", lzma.compress(BOMB, lzma.FORMAT_ALONE), "unpacks to more than 2 MiB"),
    "zeros in xz of two streams": ("a.txz", lzma.compress(BOMB[:1024]) + lzma.compress(BOMB[1024:]), "unpacks to more than"),
    "zeros behind the end": ("a.tgz", gzip.compress(tar_of(member("a", b"", type=b"5")) + ZEROS), "holds no files"),
    "zeros not compressed": ("a.tar", BOMB, "unpacks to more than 2 MiB"),
    "gzip in plain clothes": ("a.tar", gzip.compress(BOMB), "unpacks to more than 2 MiB"),
    "many members of one megabyte": (
        "a.tar.gz",
        gzip.compress(tar_of(*(member(f"{n}.bin", ZEROS[:MEBIBYTE]) for n in range(4)))),
        "unpacks to more than 2 MiB",
    ),
    "a size of 8 GiB in a header": ("a.tar", headed(b"0", 2**33 - 1), "unpacks to more than 2 MiB"),
    "a size below zero": ("a.tar", headed(b"0", -512), "damaged"),
    "a size beyond the end": ("a.tar", headed(b"0", 4096, b"x" * 512), "damaged"),
    "a long name of 8 GiB": ("a.tar", headed(b"L", 2**33 - 1), "a header of 8589934591 bytes"),
    "a long name below zero": ("a.tar", headed(b"L", -1), "damaged"),
    "an extended header of 2 MiB": ("a.tar", headed(b"x", 2 * MEBIBYTE, b"y" * 2 * MEBIBYTE), "a header of 2097152 bytes"),
    "a global header of 8 GiB": ("a.tar", headed(b"g", 2**33 - 1), "damaged"),
    "global headers of 2 MiB together": ("a.tar.gz", gzip.compress(headed(b"g", 2**19, bytes(2**19)) * 5), "damaged"),
    "extended headers without an end": ("a.tar.gz", gzip.compress(headed(b"x", 512, bytes(512)) * 2000), "damaged"),
    "a sparse file of old GNU tar": ("a.tar", old_sparse(), "is a sparse file"),
    "a sparse file 0.0": ("a.tar", sparse({"GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "0"}), "is a sparse file"),
    "a sparse file 0.1": ("a.tar", sparse({"GNU.sparse.map": "0,1," * 100}), "is a sparse file"),
    "a sparse file 1.0": ("a.tar", sparse(PAX, b"100000000000\n"), "is a sparse file"),
    "a symbolic link": ("a.tar", tar_of(member("a", b"", type=b"2", linkname="/etc/passwd")), "is a link or device"),
    "a hard link": ("a.tar", tar_of(member("a", b"", type=b"1", linkname="b")), "is a link or device"),
    "a named pipe": ("a.tar", tar_of(member("a", b"", type=b"6")), "is a link or device"),
    "a folder too deep": ("a.tar", tar_of(member("d/" * 70 + "x")), "lies 71 folders deep"),
    "a long part of a name": ("a.tar", tar_of(member("n" * 300)), "has a name of more than"),
    "a long name": ("a.tar", tar_of(member("/".join(["n" * 100] * 20))), "has a name of more than"),
    "a name with zeros": ("a.tar", tar_of(member("a", pax_headers={"path": "a\0b"})), "points outside|damaged"),
    "a name twice": ("a.tar", tar_of(member("a"), member("a")), "'a' comes twice"),
    "a file that is a folder": ("a.tar", tar_of(member("a"), member("a/b")), "lies below a file of the archive"),
    "a folder that is a file": ("a.tar", tar_of(member("a/b"), member("a")), "'a' comes twice"),
    "nothing": ("a.tar", b"", "damaged"),
    "gzip cut short": ("a.tar.gz", gzip.compress(os.urandom(20000))[:9000], "damaged"),
    "gzip with a wrong sum": ("a.tar.gz", gzip.compress(SMALL)[:-8] + bytes(8), "damaged"),
    "bzip2 with a wrong block": ("a.tar.bz2", b"BZh9" + bytes(100), "damaged"),
    "xz of too much memory": ("a.tar.xz", xz(SMALL, 2**30), "Memory usage limit"),
    "xz cut short": ("a.tar.xz", lzma.compress(SMALL)[:80], "damaged"),
    "an archive in an archive": ("a.tar", tar_of(member("inner.zip", zip_of(a=b"1"))), "holds only another archive, inner.zip"),
    "an archive in folders": ("a.zip", zip_with("x/y/inner.tar.gz", b"1"), "holds only another archive"),
    "a zip of zeros": ("a.zip", zip_with("a.bin", ZEROS), "unpacks to more than 2 MiB"),
    "a zip of zeros in bzip2": ("a.zip", zip_with("a.bin", ZEROS, zipfile.ZIP_BZIP2), "is packed by method 12"),
    "a zip of zeros in lzma": ("a.zip", zip_with("a.bin", ZEROS, zipfile.ZIP_LZMA), "is packed by method 14"),
    "members that overlap": ("a.zip", overlapping(), "overlaps another member"),
    "a name twice in a zip": ("a.zip", doubled(), "'a.png' comes twice"),
    "a zip that says 4 GiB": ("a.zip", changed(zip_with("a.bin", bytes(99)), 24, "<I", 2**32 - 2), "which cannot be"),
    "a zip that says 2^62 bytes": ("a.zip", zip64_lie(), "which cannot be"),
    "a zip that says too little": ("a.zip", changed(zip_with("a.bin", bytes(99)), 24, "<I", 9), "damaged"),
    "a zip that says too much": ("a.zip", changed(zip_with("a.bin", bytes(99)), 24, "<I", 999), "holds 99 bytes|damaged"),
    "a stored member of two sizes": ("a.zip", changed(zip_with("a.bin", b"xy", 0), 24, "<I", 9), "says that it has 9 bytes"),
    "a packed size beyond the end": ("a.zip", changed(zip_with("a.bin", bytes(99)), 20, "<I", 2**31), "overlaps"),
    "a place beyond the end": ("a.zip", changed(zip_with("a.bin", bytes(99)), 42, "<I", 2**30), "overlaps|damaged"),
    "an encrypted member": ("a.zip", changed(zip_with("a.bin", bytes(99)), 8, "<H", 1), "is encrypted"),
    "a method that nobody knows": ("a.zip", changed(zip_with("a.bin", bytes(99)), 10, "<H", 77), "is packed by method 77"),
    "a zip with a link": ("a.zip", changed(zip_with("a.bin", b"/etc"), 38, "<I", 0o120777 << 16), "is a link"),
    "a zip with a deep folder": ("a.zip", zip_with("d/" * 70 + "x", b"1"), "lies 71 folders deep"),
    "a list of members without an end": (
        "a.zip",
        zip_with("a.bin", b"1").replace(b"PK\5\6", b"PK\5\7"),
        "damaged",
    ),
    "zeros in place of a zip": ("a.zip", bytes(4096), "damaged"),
}


@pytest.fixture(autouse=True)
def _limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ADVGEN_MAX_UNPACKED_GIB", str(LIMIT / 2**30))


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line_and_nothing_stays(case: str, tmp_path: Path) -> None:
    name, content, message = HOSTILE[case]
    archive = tmp_path / name
    archive.write_bytes(content)
    with pytest.raises(DataError, match=message) as told:
        unpacked(archive)
    assert "\n" not in str(told.value) and str(archive) in str(told.value) and len(str(told.value)) < 700
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path != archive]
    assert not kept or "only another archive" in message, kept
    assert not list((cache_folder() / "archives").glob(".unpacking-*"))


@pytest.mark.parametrize("case", [case for case, (name, *_) in HOSTILE.items() if name == "a.zip"])
def test_a_hostile_zip_is_no_better_when_it_is_read_in_place(case: str, tmp_path: Path) -> None:
    _, content, message = HOSTILE[case]
    (tmp_path / "a.zip").write_bytes(content)
    try:
        folder = ZipFolder(tmp_path / "a.zip")
    except DataError as error:
        assert "\n" not in str(error)
        return
    assert case in (
        "an archive in folders",
        "a zip that says too little",
        "a zip that says too much",
        "a method that nobody knows",
    )
    for name, info in folder.files.items():
        try:
            with folder.open(name) as stream:
                assert len(stream.read()) <= info.file_size
        except (zipfile.BadZipFile, NotImplementedError):
            assert "damaged" in message


def test_honest_archives_of_every_kind_are_unpacked(tmp_path: Path) -> None:
    packed = {
        "a.tar": SMALL,
        "a.tar.gz": gzip.compress(SMALL),
        "a.tar.bz2": bz2.compress(SMALL),
        "a.tar.xz": xz(SMALL, 2**26),
        "b.tar.xz": lzma.compress(SMALL[:700]) + lzma.compress(SMALL[700:]),
        "c.tar.xz": lzma.compress(SMALL, lzma.FORMAT_ALONE),
        "a.zip": zip_of(**{"a.png": b"x", "b.png": b"x"}),
    }
    for name, content in packed.items():
        (tmp_path / name).write_bytes(content)
        found = unpacked(tmp_path / name)
        assert {path.name: path.read_bytes() for path in found.iterdir()} == {"a.png": b"x", "b.png": b"x"}, name


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_both_methods_come_out_whole_both_ways(method: int, tmp_path: Path) -> None:
    content = os.urandom(20_000) + bytes(50_000)
    (tmp_path / "a.zip").write_bytes(zip_with("a.bin", content, method))
    assert unpacked(tmp_path / "a.zip").read_bytes() == content
    with ZipFolder(tmp_path / "a.zip").open("a.bin") as stream:
        assert stream.seek(10) == 10 and stream.read() == content[10:]


def test_the_limit_is_200_times_the_archive_between_1_and_32_gib_and_the_variable_sets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADVGEN_MAX_UNPACKED_GIB")
    assert [most_unpacked(size) / 2**30 for size in (0, 2**20, 10 * 2**20, 2**40)] == [1, 1, 2000 / 1024, 32]
    monkeypatch.setenv("ADVGEN_MAX_UNPACKED_GIB", "0.01")
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(BOMB))
    assert unpacked(tmp_path / "a.tar.gz").stat().st_size == len(ZEROS)
    for wrong in ("none", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("ADVGEN_MAX_UNPACKED_GIB", wrong)
        with pytest.raises(ConfigError, match="expected a number of GiB above 0"):
            most_unpacked(1)


def test_too_many_files_and_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MOST_FILES", 20)
    (tmp_path / "files.tar").write_bytes(tar_of(*(member(f"{n}") for n in range(21))))
    (tmp_path / "folders.tar").write_bytes(tar_of(*(member(f"{n}", b"", type=tarfile.DIRTYPE) for n in range(21))))
    (tmp_path / "deep.tar").write_bytes(tar_of(member("d/" * 20 + "x")))
    (tmp_path / "files.zip").write_bytes(zip_of(**{str(n): b"" for n in range(21)}))
    (tmp_path / "folders.zip").write_bytes(zip_of(**{f"{n}/{n}/x": b"" for n in range(9)}))
    for archive in sorted(tmp_path.glob("*.*")):
        with pytest.raises(DataError, match="holds more than 20 files and folders"):
            unpacked(archive)
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]


def test_the_list_of_a_zip_is_counted_before_it_becomes_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MOST_FILES", 20)
    monkeypatch.setattr(zip_members, "BLOCK", 100)
    (tmp_path / "a.zip").write_bytes(zip_of(**{f"{n}/": b"" for n in range(25)}))
    with pytest.raises(DataError, match="holds more than 20 files"):
        ZipFolder(tmp_path / "a.zip")


def test_an_archive_that_the_disk_has_no_room_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "free_bytes", lambda folder: MEBIBYTE)
    content = {"a.bin": bytes(MEBIBYTE + 1)}
    (tmp_path / "a.zip").write_bytes(zip_of(**content))
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_of(*(member(*each) for each in content.items()))))
    for name in ("a.zip", "a.tar.gz"):
        with pytest.raises(DataError, match=r"more than the 1 MiB that are free for it in .*; make room there"):
            unpacked(tmp_path / name)
    assert not [path for path in cache_folder().rglob("*") if path.is_file()]


def test_memory_stays_bounded_while_bombs_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 16 MiB that may be unpacked, no way of packing zeros takes more than a few blocks of memory."""
    monkeypatch.setenv("ADVGEN_MAX_UNPACKED_GIB", str(16 / 1024))
    zeros = bytes(64 * MEBIBYTE)
    contents = {
        "lie.zip": changed(zip_with("a.bin", zeros), 24, "<I", 1000),
        "bzip.zip": changed(zip_with("a.bin", zeros, zipfile.ZIP_BZIP2), 24, "<I", 1000),
        "bomb.tar.bz2": bz2.compress(headed(b"0", len(zeros)) + zeros, 1),
        "bomb.tar.xz": lzma.compress(headed(b"0", len(zeros)) + zeros, preset=0),
        "header.tar.gz": gzip.compress(headed(b"x", len(zeros)) + zeros, 1),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with peak_below(30):
        for name in contents:
            with pytest.raises(DataError):
                unpacked(tmp_path / name)
        with pytest.raises(DataError):
            ZipFolder(tmp_path / "bzip.zip")
        with pytest.raises(zipfile.BadZipFile), ZipFolder(tmp_path / "lie.zip").open("a.bin") as stream:
            stream.read()


# Lists in archives


OUTSIDE = (
    "/etc/hostname",
    "{secret}",
    "../../../{name}",
    "a/../../../../{name}",
    "~/{name}",
    "..\\..\\..\\..\\{name}",
    "./..//../../{name}",
)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "tsv"])
@pytest.mark.parametrize("written", OUTSIDE)
def test_a_list_in_an_archive_reaches_its_own_files_only(
    written: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"mine")
    named = written.format(secret=secret, name=secret.name)
    row = json.dumps({"path": named}) if suffix == "jsonl" else f"path\n{named}"
    (tmp_path / "a.tar").write_bytes(tar_of(member(f"list.{suffix}", f"{row}\n".encode())))
    told: list[str] = []
    assert not list(read_manifest(unpacked(tmp_path / "a.tar"), lambda name, reason: told.append(reason)))
    assert len(told) == 1 and "outside of the archive that holds the list" in told[0], told
    direct = tmp_path / f"list.{suffix}"
    direct.write_text(row.replace(named.replace("\\", "\\\\"), str(secret)) if suffix == "jsonl" else f"path\n{secret}\n")
    assert [row.path for row in read_manifest(direct, lambda name, reason: None)] == [secret]


def test_a_list_in_an_archive_reads_the_files_next_to_it(tmp_path: Path) -> None:
    content = member("x/list.csv", b"path\nclips/a.wav\nclips/../clips/a.wav\n"), member("x/clips/a.wav")
    (tmp_path / "a.tar").write_bytes(tar_of(*content))
    file = unpacked(tmp_path / "a.tar") / "list.csv"
    assert [row.path.name for row in read_manifest(file, lambda name, reason: None)] == ["a.wav", "a.wav"]


LINES = {
    "a line without an end": ("csv", b"path\n" + b"a" * 3 * MEBIBYTE, "a line of more than 1048576 characters"),
    "an object without an end": ("jsonl", b'{"path": "' + b"a" * 3 * MEBIBYTE, "a line of more than 1048576 characters"),
    "zeros": ("csv", b"path\n" + bytes(3 * MEBIBYTE), "cannot be read as a list"),
    "a field of 200,000 characters": ("csv", b"path\n" + b"a" * 200_000 + b"\n", "cannot be read as a list"),
    "100,000 columns": ("tsv", b"a\t" * 100_000 + b"\n", "has the columns"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_list_is_never_read_to_the_end_of_a_line_that_has_none(case: str, tmp_path: Path) -> None:
    suffix, content, message = LINES[case]
    file = tmp_path / f"list.{suffix}"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message) as told:
        list(read_manifest(file, lambda name, reason: None))
    assert "\n" not in str(told.value) and len(str(told.value)) < 700


ROWS = {
    "nested": "[" * 100_000,
    "nested in an object": '{"path": ' + "[" * 100_000,
    "a number of 10,000 digits": '{"path": ' + "9" * 10_000 + "}",
    "a name of 100,000 letters": json.dumps({"path": "a" * 100_000}),
    "a name with a zero": json.dumps({"path": "a\0b"}),
    "a start that is none": json.dumps({"path": "a.png", "start": "1e999"}),
    "a table as path": json.dumps({"path": {"a": 1}}),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_hostile_row_is_one_bad_row_in_a_short_sentence(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "list.jsonl").write_text(ROWS[case] + "\n" + json.dumps({"path": "a.png"}) + "\n")
    told: list[str] = []
    found = list(read_manifest(tmp_path / "list.jsonl", lambda name, reason: told.append(f"{name} {reason}")))
    assert [row.name for row in found] == ["a.png"]
    assert len(told) == 1 and told[0].startswith("list.jsonl line 1") and len(told[0]) < 700, told


# Configuration files


CONFIGS = {
    "a megabyte": ("#" * MEBIBYTE, "has more than 262144 bytes"),
    "nested lists": ("a = " + "[" * 100_000, "nested too deeply"),
    "nested lists with ends": ("a = " + "[" * 40 + "]" * 40, "nested too deeply"),
    "nested tables": ("a = " + "{b = " * 5000 + "1" + "}" * 5000, "nested too deeply"),
    "a key of 100,000 parts": (".".join(["a"] * 100_000) + " = 1", "nested too deeply"),
    "a quoted key of 60,000 parts": (".".join(['"a"'] * 60_000) + " = 1", "nested too deeply"),
    "a header of 50,000 parts": ("[" + ".".join(["a"] * 50_000) + "]", "nested too deeply"),
    "a key of 40 parts": (".".join(["a"] * 40) + " = 1", "nested too deeply"),
    "a number of 100,000 digits": ("a = " + "9" * 100_000, "is not valid TOML"),
    "a word of 200,000 letters": ("a" * 200_000, "is not valid TOML"),
    "200,000 quotes": ('"' * 200_000, "is not valid TOML"),
    "zeros": ("\0" * 1000, "is not valid TOML"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_hostile_configuration_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, message = CONFIGS[case]
    (tmp_path / "theirs.toml").write_text(content)
    with pytest.raises(ConfigError, match=message) as told:
        toml.read_file(tmp_path / "theirs.toml")
    assert "\n" not in str(told.value) and "theirs.toml" in str(told.value) and len(str(told.value)) < 400


def test_a_value_over_very_many_lines_is_read_in_time_that_grows_with_it(tmp_path: Path) -> None:
    lines = "\n".join(["a = [", *["1,"] * 9_000, "]", "b = 2"])
    (tmp_path / "long.toml").write_text(lines)
    tree, place = toml.read_file(tmp_path / "long.toml")
    assert len(tree["a"]) == 9_000 and tree["b"] == 2 and place(("b",)).startswith(str(tmp_path / "long.toml"))
