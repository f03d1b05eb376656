"""Foreign checkpoints that unfold to far more than their size, nest without end or hold no plain tensors."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import environment
from torch import Tensor

from advgen import unpickling
from advgen.cli import main
from advgen.errors import DataError
from advgen.unpickling import read_pickled
from advgen_audio.vocoding.critics_import import _is_adams
from advgen_audio.vocoding.imports import import_hifigan

ROOT = Path(__file__).resolve().parents[2]
MIB = 2**20


def saved(content: Any, **options: Any) -> bytes:
    """A file of ``torch.save``."""
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def packed(opcodes: bytes) -> bytes:
    """A torch archive around any pickle."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({}))) as source, zipfile.ZipFile(target, "w") as archive:
        for member in source.namelist():
            archive.writestr(member, opcodes if member.endswith("data.pkl") else source.read(member))
    return target.getvalue()


def deflated(content: bytes) -> bytes:
    """The same archive with compressed members."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.namelist():
            archive.writestr(member, source.read(member))
    return target.getvalue()


def laughs(levels: int) -> list[Any]:
    """Ten references to ten references to ten references ..."""
    inner: list[Any] = [torch.zeros(1)]
    for _ in range(levels):
        inner = [inner] * 10
    return inner


def endless() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("ran",)


BIG = 2**31
BUILT = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
PICKLES: dict[str, tuple[Callable[[], bytes], str]] = {
    "one number spread over gigabytes": (lambda: saved(torch.zeros(1).expand(BIG)), "tensors take more than"),
    "a row spread over gigabytes": (lambda: saved({"x": torch.zeros(1024).expand(2**21, 1024)}), "tensors take more than"),
    "windows that overlap": (lambda: saved(torch.zeros(2**17).unfold(0, 2**16, 1)), "tensors take more than"),
    "one tensor in many places": (lambda: saved([torch.zeros(2**18)] * 2000), "tensors take more than"),
    "views of one storage in many places": (
        lambda: saved({str(n): base for n, base in enumerate([torch.zeros(2**18)] * 500)}),
        "tensors take more than",
    ),
    "references to references": (lambda: saved(laughs(9)), "entries of tables and lists"),
    "a list in itself": (lambda: saved(endless()), "more than 64 levels"),
    "a table in itself": (lambda: packed(b"\x80\x02}q\x00U\x01xh\x00s."), "more than 64 levels"),
    "100,000 lists in one another": (
        lambda: packed(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "more than 64 levels|torch can read",
    ),
    "numbers without end": (lambda: saved({"x": [[1.5] * 1000] * 200}), "more than 100,000 entries"),
    "compressed zeros": (lambda: deflated(saved(torch.zeros(20_000_000))), "members unfold to"),
    "a compressed pickle": (
        lambda: deflated(packed(b"\x80\x02]q\x00" + b"(K\x01K\x01e" * 12_000_000 + b".")),
        "members unfold to",
    ),
    "a sparse tensor": (
        lambda: saved({"x": torch.eye(3).to_sparse()}),
        "x is no plain tensor|is not a checkpoint that torch can read",
    ),
    "a tensor without values": (lambda: saved({"x": torch.empty(BIG, device="meta")}), "x is no plain tensor"),
    "code": (lambda: pickle.dumps(Code(), protocol=2), "torch can read|holds code"),
    "code in an archive": (lambda: packed(pickle.dumps(Code(), protocol=2)), "holds code"),
    "code of the system": (
        lambda: packed(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."),
        r"holds code \((os|posix)\.system\)",
    ),
    "eval": (lambda: packed(b"\x80\x02c__builtin__\neval\nX\x01\x00\x00\x001\x85R."), "holds code"),
    "nothing": (lambda: b"", "torch can read"),
    "zeros": (lambda: bytes(1000), "torch can read"),
    "text": (lambda: b"weights", "torch can read"),
    "an archive of nothing": (lambda: b"PK\x05\x06" + bytes(18), "torch can read"),
    "half an archive": (lambda: saved(torch.zeros(9))[:200], "torch can read"),
    "None": (lambda: saved(None), "no tensor"),
    "an empty table": (lambda: saved({}), "no tensor"),
    "text alone": (lambda: saved({"x": "y"}), "no tensor"),
    "an empty pickle": (lambda: packed(b"\x80\x02."), "torch can read"),
    "a pickle cut short": (lambda: packed(b"\x80\x02}q\x00X\xff\xff\xff\x7f"), "torch can read|no tensor"),
    "a tensor of nothing": (lambda: packed(BUILT + b"N\x85R."), "torch can read"),
    "an old file cut short": (lambda: saved(torch.zeros(99), _use_new_zipfile_serialization=False)[:-50], "torch can read"),
    "an old file of gigabytes": (
        lambda: saved(torch.zeros(1).expand(BIG), _use_new_zipfile_serialization=False),
        "tensors take more than",
    ),
}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickles are read in this process, which must keep its own limits."""
    monkeypatch.setattr(unpickling, "_limit_resources", lambda num_bytes: None)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(unpickling, "MOST_PLACES", 100_000)


@pytest.mark.usefixtures("here")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_that_is_no_honest_checkpoint_is_refused_with_a_reason(kind: str, tmp_path: Path) -> None:
    make, expected = PICKLES[kind]
    source, target = tmp_path / "it.pth", tmp_path / "out.safetensors"
    source.write_bytes(make())
    assert source.stat().st_size < 64 * MIB
    started = time.process_time()
    problem = unpickling._convert(str(source), str(target), "numbers" if "numbers" in kind else "")
    assert problem is not None and not target.exists()
    said = unpickling._refusal(source, json.dumps(problem), "")
    assert re.search(expected, said), said
    assert "\n" not in said and said.isprintable() and len(said) < 700
    assert time.process_time() - started < 20


@pytest.mark.usefixtures("here")
def test_honest_checkpoints_are_read_as_before(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    content = {"generator": {"a": tied, "b": tied, "part": tied[:, 1], "turned": tied.t()}, "list": [tied[0], 3], "steps": 7}
    for number, options in enumerate(({}, {"_use_new_zipfile_serialization": False})):
        source, target = tmp_path / f"{number}.pth", tmp_path / f"{number}.safetensors"
        source.write_bytes(saved(content, **options))
        assert unpickling._convert(str(source), str(target), "numbers") is None
        found, _ = unpickling.read_tensors(target)
        assert sorted(found) == [
            "generator/a",
            "generator/b",
            "generator/part",
            "generator/turned",
            "list/0",
            "list/1",
            "steps",
        ]
        assert torch.equal(found["generator/turned"], tied.t()) and torch.equal(found["generator/b"], tied)
        assert int(found["steps"]) == 7 and torch.equal(found["generator/part"], tied[:, 1])


BOMBS = """
import json, resource, sys
from pathlib import Path
from advgen.errors import DataError
from advgen.unpickling import read_pickled
said = []
for name in sys.argv[1:]:
    try:
        read_pickled(Path(name))
        said.append("read")
    except DataError as error:
        said.append(str(error))
print(json.dumps({"said": said, "peak": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in KiB, and address space limited, on Linux alone")
def test_the_process_that_reads_a_bomb_stays_small(tmp_path: Path) -> None:
    bombs = {
        "honest": saved({"x": torch.zeros(9)}),
        "spread": saved(torch.zeros(1).expand(BIG)),
        "allocated": packed(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (10**10).to_bytes(5, "little") + b"\x85R."),
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-c", BOMBS, *(str(tmp_path / name) for name in bombs)]
    ended = subprocess.run(command, env=environment(ROOT), capture_output=True, encoding="utf-8")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["said"][0] == "read" and all(
        str(tmp_path / name) in said for name, said in zip(list(bombs)[1:], found["said"][1:], strict=True)
    )
    assert found["peak"] < 1200 * 1024, found


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux alone")
def test_the_process_that_reads_has_a_limit_of_memory_and_disk() -> None:
    code = """
import json, resource
from advgen.unpickling import SPARE_BYTES, WORKING_BYTES, _limit_resources
_limit_resources(10 ** 6)
said = []
try:
    bytearray(10 ** 9)
except MemoryError:
    said.append("memory")
said.append(resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 10 ** 6 + SPARE_BYTES)
bytearray(WORKING_BYTES // 2)
print(json.dumps(said))
"""
    ended = subprocess.run([sys.executable, "-c", code], env=environment(ROOT), capture_output=True, encoding="utf-8")
    assert json.loads(ended.stdout) == ["memory", True], ended.stderr


def test_a_system_without_limits_reads_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    unpickling._limit_resources(10**6)


def test_a_process_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpickling, "LIMIT_SECONDS", 0.01)
    (tmp_path / "x").write_bytes(saved(torch.zeros(1)))
    with pytest.raises(DataError, match=r"was not read within 0\.01 seconds"):
        read_pickled(tmp_path / "x")


SIZES: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
}
CONFIGS: dict[str, tuple[Any, str]] = {
    "a billion channels": ({"upsample_initial_channel": 10**9}, "upsample_initial_channel is 1000000000"),
    "2^63 channels": ({"upsample_initial_channel": 2**63}, "19 digits"),
    "a number of 400 digits": ({"num_mels": 10**400}, "401 digits"),
    "a billion mels": ({"num_mels": 10**9}, "num_mels"),
    "more mels than anyone has": ({"num_mels": 900_000}, "num_mels"),
    "a window of billions": ({"n_fft": 2**40}, "n_fft"),
    "a window of a million": ({"n_fft": 1_000_000}, "n_fft"),
    "a rate of billions": ({"sampling_rate": 10**10}, "sampling_rate"),
    "a rate of a million": ({"sampling_rate": 999_999}, "rate_hz"),
    "channels of a truth": ({"upsample_initial_channel": True}, "upsample_initial_channel is True"),
    "half a channel": ({"upsample_initial_channel": 32.5}, "upsample_initial_channel is 32.5"),
    "no channel": ({"upsample_initial_channel": 0}, "upsample_initial_channel is 0"),
    "one channel": ({"upsample_initial_channel": 1}, "channel"),
    "rates of billions": ({"upsample_rates": [2**40] * 4, "upsample_kernel_sizes": [2**41] * 4}, "upsample_rates"),
    "rates whose product overflows": (
        {"upsample_rates": [999_998] * 16, "upsample_kernel_sizes": [999_999] * 16},
        "upsample_kernel_sizes",
    ),
    "a million stages": ({"upsample_rates": [2] * 10**5}, "16 at most"),
    "rates in one another": ({"upsample_rates": [[[[2]]]]}, "upsample_rates"),
    "rates of texts": ({"upsample_rates": ["8"]}, "upsample_rates"),
    "rates of truths": ({"upsample_rates": [True]}, "upsample_rates"),
    "a frequency of a list": ({"fmin": [0]}, "fmin"),
    "an endless frequency": ({"fmax": 1e300}, "fmax"),
    "a hop of billions": ({"hop_size": 10**9}, "hop_size"),
    "NaN": (b'{"hop_size": NaN}', "NaN"),
    "a key twice": (b'{"hop_size": 1, "hop_size": 2}', "appears twice"),
    "deep": (b"[" * 100_000, "nested"),
    "a list": (b"[1]", "list"),
    "megabytes of spaces": (b" " * (2 * MIB), "bytes, expected at most"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_with_sizes_that_nobody_has_is_refused_before_anything_is_made(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advgen_audio.vocoding.imports.read_pickled", lambda *_: pytest.fail("the checkpoint was read"))
    given, expected = CONFIGS[kind]
    content = given if isinstance(given, bytes) else json.dumps(SIZES | given).encode()
    (tmp_path / "config.json").write_bytes(content)
    (tmp_path / "g_02500000").write_bytes(b"x")
    with pytest.raises(DataError) as refused:
        import_hifigan(tmp_path)
    said = str(refused.value)
    assert str(tmp_path / "config.json") in said and expected in said and "\n" not in said and len(said) < 600, said


def test_channels_that_the_checkpoint_does_not_have_are_refused_without_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"generator/conv_pre.bias": torch.zeros(32)}
    monkeypatch.setattr("advgen_audio.vocoding.imports.read_pickled", lambda *_: weights)
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"upsample_initial_channel": 2**19}))
    (tmp_path / "g_02500000").write_bytes(b"x")
    with pytest.raises(SystemExit) as ended:
        main(["import", "hifigan", str(tmp_path), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().err
    assert ended.value.code == 4 and "does not fit its config.json" in told and "expected (524288,)" in told, told
    assert not (tmp_path / "out").exists()


PARAMETER = torch.zeros(2, 3)
GOOD: dict[str, Tensor] = {"exp_avg": torch.zeros(2, 3), "exp_avg_sq": torch.ones(2, 3), "step": torch.tensor(5)}
ADAMS: dict[str, dict[str, Tensor]] = {
    "NaN": {"exp_avg": torch.full((2, 3), math.nan)},
    "infinite": {"exp_avg_sq": torch.full((2, 3), math.inf)},
    "negative squares": {"exp_avg_sq": torch.full((2, 3), -1.0)},
    "whole numbers": {"exp_avg": torch.zeros(2, 3, dtype=torch.int64)},
    "another shape": {"exp_avg": torch.zeros(3, 2)},
    "a step of many": {"step": torch.zeros(4)},
    "a step of NaN": {"step": torch.tensor(math.nan)},
    "a negative step": {"step": torch.tensor(-1)},
    "an endless step": {"step": torch.tensor(1e30)},
    "a surplus": {"spy": torch.zeros(())},
}


@pytest.mark.parametrize("kind", ADAMS)
def test_moments_that_adam_does_not_have_are_left_out(kind: str) -> None:
    assert _is_adams(GOOD, PARAMETER)
    assert not _is_adams(GOOD | ADAMS[kind], PARAMETER)


def test_this_file_has_many_inputs() -> None:
    assert len(PICKLES) + len(CONFIGS) + len(ADAMS) > 60
