"""Changed checkpoints, runs, exported folders and latents, sealed again with right hashes: each is refused by name."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import environment, tiny
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

import advgen
from advgen.cli import main
from advgen.contracts import Batch
from advgen.errors import CheckpointError, DataError, GenError
from advgen.export import export_run
from advgen.latent.space import load_places
from advgen.metrics.judging import View
from advgen.metrics.kept import view_of_real
from advgen.reading import MOST_BYTES, parse_json, read_json
from advgen.registry import find_plugin
from advgen.runs import RunFolder, checkpoint, describe_run, list_runs
from advgen.setup import Setup, build
from advgen.state import pack, unpack
from advgen.tensor_files import TensorFile
from advgen.training import clock_of
from advgen.weights import Allowance, AllowanceError, UnfitError, load_network, load_weights, require_room, sizes_of
from advgen.world import join_world

ROOT = Path(__file__).resolve().parents[2]
STEP = 2
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind of memory, and its generator as an exported folder."""
    folder = tmp_path_factory.mktemp("genuine")
    more = ("options.family='stylegan2'", "options.mapping_layers=1", "penalties.lecam.weight=0.1", "train.keep=9")
    advgen.train("image", steps=STEP, out=folder / "run", overrides=tiny("image", *more), progress=False, device="cpu")
    export_run(folder / "run", "huggingface", folder / "export")
    return folder


@pytest.fixture(scope="module")
def setup(genuine: Path) -> Setup:
    """The run's players, ready to be restored into."""
    config = RunFolder.existing(genuine / "run").config()
    return build(find_plugin("image"), config, join_world("cpu"))


@pytest.fixture
def run(genuine: Path, tmp_path: Path) -> Path:
    """A copy of the run to change."""
    return Path(shutil.copytree(genuine / "run", tmp_path / "run"))


def saved(run: Path) -> Path:
    return run / "checkpoints" / f"step-{STEP:08d}"


def seal(folder: Path, part: str) -> None:
    """Put a part's hash and size into the manifest, as whoever changed it would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / f"{part}.safetensors").read_bytes()
    manifest["files"][part] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def change(folder: Path, part: str, alter: Callable[[Tensors], Any]) -> str:
    """Alter the tensors of a part in place, seal it, and return the name of its largest floating tensor."""
    path = folder / f"{part}.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    alter(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    seal(folder, part)
    return str(path)


def largest(tensors: Tensors) -> str:
    return max((name for name in tensors if tensors[name].is_floating_point()), key=lambda name: tensors[name].numel())


def put(tensors: Tensors, make: Callable[[Tensor], Tensor]) -> None:
    tensors[largest(tensors)] = make(tensors[largest(tensors)])


def with_number(number: float) -> Callable[[Tensors], None]:
    def alter(tensors: Tensors) -> None:
        tensors[largest(tensors)].view(-1)[7] = number

    return alter


def as_type(dtype: torch.dtype) -> Callable[[Tensors], None]:
    return lambda tensors: put(tensors, lambda tensor: tensor.to(dtype))


ALTERED: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "NaN": (with_number(math.nan), "not finite, such as nan"),
    "infinity": (with_number(math.inf), "not finite, such as inf"),
    "minus infinity": (with_number(-math.inf), "not finite, such as -inf"),
    "all NaN": (lambda tensors: put(tensors, lambda t: t * math.nan), "numbers that are not finite"),
    "int64": (as_type(torch.int64), "is int64 .*, expected float32"),
    "int8": (as_type(torch.int8), "is int8 .*, expected float32"),
    "bool": (as_type(torch.bool), "is bool .*, expected float32"),
    "complex": (as_type(torch.complex64), "is complex64 .*, expected float32"),
    "float8": (as_type(torch.float8_e4m3fn), "is float8_e4m3fn .*, expected float32"),
    "float16": (as_type(torch.float16), "is float16 .*, expected float32"),
    "bfloat16": (as_type(torch.bfloat16), "is bfloat16 .*, expected float32"),
    "flat": (lambda tensors: put(tensors, lambda t: t.flatten()), "of another shape or type"),
    "a scalar": (lambda tensors: put(tensors, lambda t: t.flatten()[0].clone()), r"is float32 \(\), expected"),
    "one row more": (lambda tensors: put(tensors, lambda t: torch.cat([t, t[:1]])), "of another shape or type"),
    "no row": (lambda tensors: put(tensors, lambda t: t[:0].clone()), "of another shape or type"),
    "missing": (lambda tensors: tensors.pop(largest(tensors)), "missing: "),
    "surplus": (lambda tensors: tensors.update({"\x1b[31mred": torch.zeros(3)}), r"not known: \\x1b\[31mred"),
    "empty": (lambda tensors: tensors.clear(), "missing: .* and .* more"),
    "double that overflows": (
        lambda tensors: put(tensors, lambda t: torch.full(t.shape, 1e300, dtype=torch.float64)),
        "not finite, such as inf",
    ),
}


def refusal(action: Callable[[], Any], kind: type[GenError] = CheckpointError) -> str:
    """The one line of a refusal with the exit code of its kind."""
    with pytest.raises(kind) as refused:
        action()
    assert refused.value.exit_code == kind.exit_code
    text = str(refused.value)
    assert "\n" not in text and len(text) < 1500, text
    return text


@pytest.mark.parametrize("kind", ALTERED)
def test_a_generator_that_was_altered_is_refused_when_it_is_loaded(kind: str, run: Path) -> None:
    alter, expected = ALTERED[kind]
    file = change(saved(run), "average", alter)
    said = refusal(lambda: advgen.load_generator(run))
    assert file in said and re.search(expected, said), said


@pytest.mark.parametrize("part", ["generator", "discriminator", "average"])
@pytest.mark.parametrize("kind", ["NaN", "int64", "flat", "missing", "surplus"])
def test_altered_players_are_refused_by_a_resume(kind: str, part: str, run: Path, setup: Setup) -> None:
    alter, expected = ALTERED[kind]
    file = change(saved(run), part, alter)
    said = refusal(lambda: unpack(setup.players, checkpoint.load(run / "checkpoints", STEP)[0]))
    assert file in said and re.search(expected, said), said


@pytest.mark.parametrize("kind", [kind for kind in ALTERED if kind != "surplus"])
def test_an_altered_exported_generator_is_refused(kind: str, genuine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(genuine / "export", tmp_path / "export"))
    about = json.loads((folder / "config.json").read_text())
    path = folder / about["weights"]["file"]
    tensors = load_file(path)
    ALTERED[kind][0](tensors)
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    about["weights"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(about))
    said = refusal(lambda: advgen.load_generator(folder))
    assert str(path) in said and re.search(ALTERED[kind][1], said), said


def optimizer_tensor(name: str, make: Callable[[Tensor], Tensor]) -> Callable[[Tensors], None]:
    def alter(tensors: Tensors) -> None:
        own = next(each for each in sorted(tensors) if each.endswith(f".{name}"))
        tensors[own] = make(tensors[own])

    return alter


MOMENTS: dict[str, tuple[Callable[[Tensors], Any], str]] = {
    "NaN": (optimizer_tensor("exp_avg", lambda t: t * math.nan), "exp_avg holds .*not finite"),
    "infinite squares": (optimizer_tensor("exp_avg_sq", lambda t: t + math.inf), "exp_avg_sq holds .*not finite"),
    "negative squares": (optimizer_tensor("exp_avg_sq", lambda t: t - 1e9), "expected numbers of at least 0"),
    "negative step": (optimizer_tensor("step", lambda t: t - 99), "step holds -97, expected numbers of at least 0"),
    "NaN step": (optimizer_tensor("step", lambda t: t * math.nan), "step holds .*not finite"),
    "whole numbers": (optimizer_tensor("exp_avg", lambda t: t.long()), "exp_avg is int64"),
    "steps of many": (
        optimizer_tensor("step", lambda t: t.expand(3).clone()),
        r"step is float32 \(3,\), expected float32 \(\)",
    ),
    "a scalar moment": (optimizer_tensor("exp_avg", lambda t: t.flatten()[0].clone()), r"exp_avg is float32 \(\)"),
    "another shape": (optimizer_tensor("exp_avg", lambda t: t[None]), "trained other parameters"),
    "one moment missing": (lambda tensors: tensors.pop("0.exp_avg_sq"), "0.exp_avg_sq is missing"),
    "step missing": (lambda tensors: tensors.pop("0.step"), "0.step is missing"),
    "all missing": (lambda tensors: tensors.clear(), "its state is missing"),
    "another parameter": (lambda tensors: tensors.update({"9999.step": torch.zeros(())}), "9999.step belongs to none of the"),
    "a negative parameter": (lambda tensors: tensors.update({"-1.step": torch.zeros(())}), "-1.step belongs to none of the"),
    "a named parameter": (lambda tensors: tensors.update({"x.step": torch.zeros(())}), "x.step belongs to none of the"),
    "no parameter": (lambda tensors: tensors.update({"step": torch.zeros(())}), "step belongs to none of the"),
    "an unknown entry": (lambda tensors: tensors.update({"0.x": torch.zeros(())}), "0.x is not known, expected"),
}


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("kind", MOMENTS)
def test_an_altered_optimizer_is_refused(kind: str, player: str, run: Path, setup: Setup) -> None:
    alter, expected = MOMENTS[kind]
    change(saved(run), f"{player}_optimizer", alter)
    said = refusal(lambda: unpack(setup.players, checkpoint.load(run / "checkpoints", STEP)[0]))
    assert f"{player}_optimizer" in said and re.search(expected, said), said


STATES: dict[str, tuple[Tensors, str]] = {
    "a phase that is not there": ({"phase": torch.tensor(7)}, "phase is 7, expected at most 0"),
    "a negative phase": ({"phase": torch.tensor(-1)}, "phase is -1, expected at least 0"),
    "a phase of floats": ({"phase": torch.tensor(0.0)}, "phase is float32"),
    "many phases": ({"phase": torch.zeros(4, dtype=torch.int64)}, r"phase is int64 \(4,\)"),
    "negative updates": ({"generator.updates": torch.tensor(-5)}, "generator.updates is -5"),
    "endless updates": ({"generator.updates": torch.tensor(2**62)}, "expected at most"),
    "updates of floats": ({"discriminator.updates": torch.tensor(1.5)}, "discriminator.updates is float32"),
    "few norms": ({"generator.norms": torch.zeros(3)}, r"generator.norms is float32 \(3,\)"),
    "negative norms": ({"generator.norms": torch.full((500,), -1.0)}, "generator.norms is -1, expected at least 0"),
    "infinite norms": ({"generator.norms": torch.full((500,), math.inf)}, "generator.norms is not finite"),
    "LeCam averages of NaN": ({"lecam": torch.full((3,), math.nan)}, "lecam is not finite"),
    "two LeCam averages": ({"lecam": torch.zeros(2)}, r"lecam is float32 \(2,\)"),
    "an infinite path length": ({"path_length": torch.tensor(math.inf)}, "path_length is not finite"),
    "a negative path length": ({"path_length": torch.tensor(-1.0)}, "path_length is -1"),
    "a baseline without counts": ({"baseline": torch.zeros(5)}, "baseline_updates is missing"),
    "a baseline of another length": (
        {"baseline": torch.zeros(5), "baseline_updates": torch.zeros(6, dtype=torch.int64)},
        "of different lengths",
    ),
    "a balance of NaN": ({"balance.loss": torch.full((2,), math.nan)}, "balance.loss is not finite"),
    "looks of different lengths": (
        {
            "overfitting.train": torch.zeros(2, 4),
            "overfitting.held_out": torch.zeros(3, 4),
            "overfitting.generated": torch.zeros(2, 4),
            "overfitting.next_step": torch.tensor(9),
        },
        "of different lengths",
    ),
    "an unknown entry": ({"spy": torch.zeros(())}, "spy is not known"),
}


@pytest.mark.parametrize("kind", STATES)
def test_an_altered_state_of_the_players_is_refused(kind: str, run: Path, setup: Setup) -> None:
    more, expected = STATES[kind]
    file = change(saved(run), "state", lambda tensors: tensors.update(more))
    said = refusal(lambda: unpack(setup.players, checkpoint.load(run / "checkpoints", STEP)[0]))
    assert file in said and re.search(expected, said), said


@pytest.mark.parametrize("name", ["generator.updates", "discriminator.norms"])
def test_a_state_without_what_every_run_has_is_refused(name: str, run: Path, setup: Setup) -> None:
    change(saved(run), "state", lambda tensors: tensors.pop(name))
    assert f"{name} is missing" in refusal(lambda: unpack(setup.players, checkpoint.load(run / "checkpoints", STEP)[0]))


@pytest.mark.parametrize("part", ["generator", "discriminator_optimizer", "state", "average"])
def test_a_checkpoint_without_a_part_is_refused_by_a_resume(part: str, run: Path, setup: Setup) -> None:
    manifest = json.loads((saved(run) / "manifest.json").read_text())
    del manifest["files"][part]
    (saved(run) / "manifest.json").write_text(json.dumps(manifest))
    said = refusal(lambda: unpack(setup.players, checkpoint.load(run / "checkpoints", STEP)[0]))
    assert f"no part {part!r}" in said


CLOCKS: dict[str, tuple[dict[str, Any] | Any, str]] = {
    "negative": ({"step": -5}, "clock.step -5"),
    "endless": ({"step": 10**18}, "clock.step 1000000000000000000"),
    "another step": ({"step": 3}, "clock.step 3, expected 2"),
    "a text": ({"step": "2"}, "clock.step 2"),
    "a truth": ({"step": True}, "clock.step True"),
    "half a step": ({"step": 2.0}, "clock.step 2.0"),
    "progress of NaN": ({"progress": math.nan}, "clock.progress nan"),
    "negative progress": ({"progress": -0.1}, "clock.progress -0.1"),
    "too much progress": ({"progress": 1.5}, "clock.progress 1.5"),
    "progress of a list": ({"progress": [1]}, r"clock.progress \[1\]"),
    "negative seconds": ({"spent_seconds": -1.0}, "clock.spent_seconds -1.0"),
    "endless seconds": ({"spent_seconds": math.inf}, "clock.spent_seconds inf"),
    "seconds of NaN": ({"spent_seconds": math.nan}, "clock.spent_seconds nan"),
    "no seconds": ({"spent_seconds": None}, "clock.spent_seconds None"),
    "a list": ([1, 2], r"\[1, 2\] as clock"),
    "nothing": (None, "None as clock"),
}


@pytest.mark.parametrize("kind", CLOCKS)
def test_a_clock_that_no_run_writes_is_refused(kind: str, setup: Setup) -> None:
    given, expected = CLOCKS[kind]
    good = {"step": STEP, "spent_seconds": 1.0, "progress": 1.0}
    manifest = {"step": STEP, "clock": good | given if isinstance(given, dict) else given}
    assert clock_of(setup.config, {"step": STEP, "clock": good}).step == STEP
    assert re.search(expected, refusal(lambda: clock_of(setup.config, manifest)))


def header(entries: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header; what is no text is written as JSON."""
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


HEADERS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "header should have 0 bytes, and the file has 0"),
    "four bytes": (b"\x01\x00\x00\x00", "the file has 4"),
    "beyond the file": (header({}, length=10**6), "header should have 1,000,000 bytes"),
    "beyond all files": (header({}, length=2**64 - 1), "header should have 18,446,744,073,709,551,615 bytes"),
    "not JSON": (header(b"x" * 40), "Expecting value"),
    "not UTF-8": (header(b"\xff" * 40), "utf-8"),
    "a list": (header([1]), "header is a list"),
    "deep": (header(b"[" * 100_000), "nested more than"),
    "the same name twice": (header(b'{"x": {}, "x": {}}'), "the key 'x' appears twice"),
    "metadata of a list": (header({"__metadata__": [1]}), "not a table of texts"),
    "metadata of numbers": (header({"__metadata__": {"x": 1}}), "not a table of texts"),
    "unknown type": (header({"x": entry("F7")}, b"0000"), "type 'F7'; known: F64"),
    "type of a list": (header({"x": entry(["F32"])}, b"0000"), "type"),
    "negative size": (header({"x": entry(shape=[-1])}, b"0000"), "expected a list of sizes"),
    "size of a text": (header({"x": entry(shape="1")}, b"0000"), "expected a list of sizes"),
    "size of a truth": (header({"x": entry(shape=[True])}, b"0000"), "expected a list of sizes"),
    "sizes that overflow": (header({"x": entry(shape=[2**40, 2**40])}, b"0000"), "expected a list of sizes"),
    "a number of 400 digits": (header(b'{"x": {"shape": [' + b"9" * 400 + b"]}}"), "400 digits"),
    "sizes beyond the bytes": (header({"x": entry(shape=[2**31])}, b"0000"), "takes 8589934592"),
    "offsets beyond the file": (header({"x": entry(shape=[2], offsets=[0, 8])}, b"0000"), "tensors take 8 bytes, and 4"),
    "offsets backwards": (header({"x": entry(offsets=[4, 0])}, b"0000"), "bytes 4 to 0"),
    "three offsets": (header({"x": entry(offsets=[0, 4, 8])}, b"0000"), "expected first and last byte"),
    "overlap": (header({"x": entry(), "y": entry()}, b"0000"), "overlap or leave a gap"),
    "a gap": (header({"x": entry(), "y": entry(offsets=[8, 12])}, b"0" * 12), "overlap or leave a gap"),
    "bytes that nobody has": (header({"x": entry()}, b"0" * 8), "tensors take 4 bytes, and 8"),
    "an entry too many": (header({"x": entry(code="x")}, b"0000"), "not described by dtype, shape and data_offsets"),
    "an entry of a text": (header({"x": "F32"}), "not described by"),
    "a bool of 7": (header({"x": entry("BOOL", offsets=[0, 1])}, b"\x07"), "holds the byte 7"),
    "a header too long": (header(b" " * (16 * 2**20 + 1)), "expected at most 16,777,216"),
    "a million entries": (header(b"[" + b"0," * 5_000_000 + b"0]"), "5,000,001 entries, expected at most"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_file_with_a_false_header_is_refused_in_one_line(kind: str, run: Path, tmp_path: Path) -> None:
    content, expected = HEADERS[kind]
    path = saved(run) / "average.safetensors"
    path.write_bytes(content)
    seal(saved(run), "average")
    said = refusal(lambda: checkpoint.load(run / "checkpoints", STEP))
    assert str(path) in said or "a bool" in kind
    assert expected in said, said
    with pytest.raises((UnfitError, ValueError)):
        load_weights(nn.Linear(1, 1), path, "a network")


def table(**more: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content | more


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a list": (lambda content: [content], "holds list, expected a table"),
    "a text": (lambda content: "x", "holds str"),
    "another schema": (table(schema=9), "schema 9, this advgen reads 1"),
    "a schema of a list": (table(schema=[1]), "schema"),
    "another step": (table(step=STEP + 1), "its step is 3, expected 2"),
    "a negative step": (table(step=-5), "its step is -5"),
    "a step of a truth": (table(step=True), "its step is True"),
    "no files": (table(files={}), "its files are {}"),
    "files of a list": (table(files=["average"]), "expected a table of names"),
    "files of nothing": (table(files=None), "expected a table of names"),
    "a file of a text": (table(files={"average": "x"}), "files.average is x"),
    "a file without a hash": (table(files={"average": {"bytes": 1}}), "expected a table with sha256"),
    "a file without a size": (table(files={"average": {"sha256": "x"}}), "files.average.bytes is None"),
    "a folder above": (table(files={"../average": {"sha256": "x", "bytes": 1}}), "names the file '../average'"),
    "a folder above for Windows": (table(files={"..\\x": {"sha256": "x", "bytes": 1}}), "names the file"),
    "an absolute place": (table(files={"/etc/passwd": {"sha256": "x", "bytes": 1}}), "names the file '/etc/passwd'"),
    "another drive": (table(files={"c:x": {"sha256": "x", "bytes": 1}}), "names the file 'c:x'"),
    "an escape": (table(files={"\x1b[2J": {"sha256": "x", "bytes": 1}}), r"names the file '\\x1b"),
    "another size": (
        lambda content: content | {"files": {"average": content["files"]["average"] | {"bytes": 7}}},
        "bytes, the manifest 7",
    ),
    "a thousand files": (table(files={f"x{n}": {} for n in range(1000)}), "expected a table of names"),
}
TEXTS: dict[str, tuple[bytes, str]] = {
    "deep": (b"[" * 10**6, "nested more than|entries"),
    "deep tables": (b'{"x":' * 50_000 + b"1" + b"}" * 50_000, "nested more than"),
    "a little too deep": (b'{"x":' + b"[" * 80 + b"]" * 80 + b"}", "nested more than 64"),
    "NaN": (b'{"x": NaN}', "NaN, expected finite"),
    "infinity": (b'{"x": -Infinity}', "-Infinity, expected finite"),
    "a number that overflows": (b'{"x": 1e999}', "1e999, expected finite"),
    "a number without end": (b'{"x": ' + b"9" * 10_000 + b"}", "10000 digits"),
    "a key twice": (b'{"step": 1, "step": 2}', "the key 'step' appears twice"),
    "a key twice below": (b'{"x": [{"y": 1, "y": 2}]}', "the key 'y' appears twice"),
    "millions of entries": (b"[" + b"[]," * 2_100_000 + b"[]]", "entries, expected at most"),
    "not UTF-8": (b'{"x": "\xff"}', "utf-8"),
    "cut short": (b'{"x": ', "Expecting value"),
    "empty": (b"", "Expecting value"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "BOM"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_of_another_form_is_refused(kind: str, run: Path) -> None:
    make, expected = MANIFESTS[kind]
    path = saved(run) / "manifest.json"
    path.write_text(json.dumps(make(json.loads(path.read_text()))))
    said = refusal(lambda: checkpoint.load(run / "checkpoints", STEP))
    assert expected in said, said


@pytest.mark.parametrize("kind", TEXTS)
def test_json_that_is_no_honest_table_is_refused_in_every_file(kind: str, run: Path) -> None:
    content, expected = TEXTS[kind]
    for name in (f"checkpoints/step-{STEP:08d}/manifest.json", "facts.json", "run.json"):
        if name == "run.json" and ", expected finite" in expected:  # it may tell of a ratio that is not finite
            continue
        before = (run / name).read_bytes()
        (run / name).write_bytes(content)
        said = refusal(lambda: advgen.load_generator(run, step=STEP))
        assert re.search(expected, said) and name.rpartition("/")[0] in said, said
        (run / name).write_bytes(before)


def test_a_gigabyte_of_spaces_is_refused_by_its_size(run: Path) -> None:
    for name in (f"checkpoints/step-{STEP:08d}/manifest.json", "facts.json", "run.json", "config.toml"):
        before = (run / name).read_bytes()
        with (run / name).open("r+b") as handle:
            handle.truncate(2**30)  # sparse: zeros, which take no disk
        said = refusal(lambda: advgen.load_generator(run, step=STEP))
        assert "it has 1,073,741,824 bytes, expected at most" in said
        (run / name).write_bytes(before)
    assert MOST_BYTES < 2**30


IDENTITIES: dict[str, tuple[str, Any]] = {
    "plugin of a list": ("plugin", ["image"]),
    "plugin of a number": ("plugin", 5),
    "plugin of nothing": ("plugin", None),
    "distribution of a table": ("plugin_distribution", {}),
    "hash of a number": ("plugin_sha256", 7),
    "file of a list": ("plugin_file", ["x.py"]),
    "fingerprint of a list": ("fingerprint", []),
    "created of a number": ("created", 3),
    "networks of a text": ("networks", "large"),
    "end of a table": ("ended", {}),
    "divergence of a text": ("diverged", "yes"),
    "divergence without a step": ("diverged", {"why": "x"}),
    "divergence at a text": ("diverged", {"step": "x"}),
}


@pytest.mark.parametrize("kind", IDENTITIES)
def test_a_run_json_of_other_types_is_refused_and_listed_as_damaged(
    kind: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, value = IDENTITIES[kind]
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | {name: value}))
    assert name in refusal(lambda: advgen.load_generator(run))
    for command in (["runs", "list", str(run.parent)], ["runs", "show", str(run)], ["resume", str(run), "--device", "cpu"]):
        with pytest.raises(SystemExit) as ended:
            main(command)
        told = capsys.readouterr()
        assert ended.value.code in (0, 5) and "unexpected" not in told.err + told.out, told


@pytest.mark.parametrize("best", [{}, {"step": "x", "metric": "m", "value": 1.0}, {"step": 1, "metric": 5, "value": 1.0}])
def test_a_best_json_of_other_types_is_refused(best: dict[str, Any], run: Path) -> None:
    (run / "best.json").write_text(json.dumps(best))
    assert "best.json" in refusal(lambda: describe_run(run))
    assert "damaged" in list_runs(run.parent)[0]["ended"]


def test_a_best_json_with_a_metric_of_nan_still_loads(run: Path) -> None:
    (run / "best.json").write_text('{"step": 2, "metric": "m", "value": NaN}')
    assert math.isnan(describe_run(run)["best"]["value"])


FACTS: dict[str, tuple[dict[str, Any], str]] = {
    "height of a text": ({"height": "32"}, "height"),
    "height of nothing": ({"height": None}, "height"),
    "height of a list": ({"height": [32]}, "height"),
    "half a pixel": ({"height": 32.5}, "height"),
    "negative height": ({"height": -32}, "height"),
    "no height": ({"height": 0}, "height"),
    "a billion channels": ({"channels": 10**9}, "channels"),
    "a billion pixels": ({"height": 2**30, "width": 2**30}, "height"),
    "a tall image": ({"height": 2**15, "width": 2**15}, "does not fit the checkpoint"),
    "an odd image": ({"height": 33, "width": 31}, "damaged|halved|fit"),
    "more channels": ({"channels": 64}, "does not fit the checkpoint"),
    "classes of a number": ({"classes": 5}, "classes"),
    "classes of numbers": ({"classes": [1, 2], "class_counts": [1, 1]}, "classes is .*expected a list of texts"),
    "classes of a text": ({"classes": "abc"}, "classes"),
    "more classes": ({"classes": [str(n) for n in range(999)], "class_counts": [1] * 999}, "does not fit"),
    "negative counts": ({"class_counts": [-1, 1, 1]}, "class_counts"),
    "counts of zero": ({"class_counts": [0, 0, 0]}, "only zeros"),
    "a count too few": ({"class_counts": [1]}, "class_counts"),
    "counts of texts": ({"class_counts": ["1", "2", "3"]}, "class_counts"),
    "bits of a text": ({"bits": "8"}, "bits"),
    "three bits": ({"bits": 3}, "bits"),
    "factors of a list": ({"factors": [1]}, "factors"),
}


@pytest.mark.parametrize("kind", FACTS)
@pytest.mark.parametrize("place", ["run", "export"])
def test_facts_that_no_data_have_are_refused(kind: str, place: str, genuine: Path, tmp_path: Path) -> None:
    more, expected = FACTS[kind]
    folder = Path(shutil.copytree(genuine / place, tmp_path / place))
    file = folder / ("facts.json" if place == "run" else "config.json")
    content = json.loads(file.read_text())
    facts = content if place == "run" else content["facts"]
    facts |= more
    file.write_text(json.dumps(content))
    said = refusal(lambda: advgen.load_generator(folder))
    assert re.search(expected, said), said


AUDIO_FACTS: dict[str, dict[str, Any]] = {
    "a rate of a text": {"sample_rate_hz": "8000"},
    "a rate beyond hearing": {"sample_rate_hz": 10**12},
    "an endless clip": {"length": 10**12},
    "no length": {"length": 0},
    "an end of NaN": {"end_level": math.nan},
    "examples of numbers": {"examples": [1, 2]},
}
TEXT_FACTS: dict[str, dict[str, Any]] = {
    "no tokenizer": {"tokenizer": None},
    "a broken tokenizer": {"tokenizer": "{"},
    "an endless line": {"length": 10**12},
    "a length of a text": {"length": "12"},
    "prompts of texts": {"prompts": [["a"]], "prompt_length": 4},
    "prompts of unknown tokens": {"prompts": [[10**6]], "prompt_length": 4},
    "negative tokens": {"prompts": [[-1]], "prompt_length": 4},
    "prompts too long": {"prompts": [[1] * 9], "prompt_length": 4},
    "many prompts": {"prompts": [[1]] * 999, "prompt_length": 4},
    "a billion layers": {"pretrained": {"config": {"model_type": "gpt2", "n_layer": 10**9}, "untied": False, "end": 0}},
}


@pytest.mark.parametrize(
    ("plugin", "kind"),
    [*(("audio", kind) for kind in AUDIO_FACTS), *(("text", kind) for kind in TEXT_FACTS if "billion" not in kind)],
)
def test_the_other_plugins_refuse_their_facts_with_a_reason(plugin: str, kind: str) -> None:
    from advgen.config.load import load_config, options_of
    from advgen.setup import modality_class

    record = find_plugin(plugin)
    config = load_config(record).config
    good = {"sample_rate_hz": 8000, "length": 8192, "classes": []} if plugin == "audio" else good_text()
    modality_class(record)(options_of(record, config), good)
    more = (AUDIO_FACTS if plugin == "audio" else TEXT_FACTS)[kind]
    with pytest.raises(Exception, match=r"\w") as refused:
        modality_class(record)(options_of(record, config), good | more)
    assert not isinstance(refused.value, AssertionError | MemoryError)


def good_text() -> dict[str, Any]:
    from advgen_text.tokenizer import Tokenizer

    tokenizer = Tokenizer.learn(["a b c"], kind="word", vocabulary_size=50, lower_case=False)
    return {"tokenizer": tokenizer.to_json(), "length": 12, "prompt_length": 0, "classes": [], "grammar": False}


CONFIGS = {
    "a width of 2048": ("width", "2048", "does not fit the checkpoint"),
    "a billion numbers of noise": ("noise_size", "1000000000", "noise_size|does not fit the checkpoint"),
    "a million layers": ("mapping_layers", "1000000", "expected an integer, 1 to 16"),
    "another family": ("family", '"r3"', "leave mapping_layers out"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_configuration_of_other_networks_is_refused_before_they_are_made(kind: str, run: Path) -> None:
    name, value, expected = CONFIGS[kind]
    text, number = re.subn(rf"(?m)^{name} = \S+", f"{name} = {value}", (run / "config.toml").read_text())
    assert number == 1
    (run / "config.toml").write_text(text)
    said = refusal(lambda: advgen.load_generator(run))
    assert re.search(expected, said), said


def test_a_deeply_nested_configuration_is_refused(run: Path) -> None:
    (run / "config.toml").write_text("x = " + "[" * 50_000)
    assert "config.toml cannot be read" in refusal(lambda: advgen.load_generator(run))


def test_a_resume_refuses_other_networks_before_they_are_made(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advgen.setup.make_players", lambda *_: pytest.fail("memory was taken"))
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(re.sub(r"(?m)^width = \d+", "width = 64", text))
    said = refusal(lambda: advgen.resume(run, progress=False, device="cpu"))
    assert "does not fit the checkpoint" in said and "generator.safetensors" in said


@pytest.mark.parametrize("name", ["step--0000005", "step-5", "step-²²²²²²²²", "step-1000000000000000000", "step-0000000x"])
def test_folders_that_are_named_as_no_checkpoint_are_none(name: str, run: Path) -> None:
    shutil.copytree(saved(run), run / "checkpoints" / name)
    assert checkpoint.steps(run / "checkpoints") == [0, STEP]


def test_commands_refuse_weights_of_nan_with_exit_5_and_write_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(saved(run), "average", with_number(math.nan))
    change(saved(run), "generator", with_number(math.nan))
    out = run.parent / "out"
    for line in (
        f"sample {run} -n 1 --out {out}",
        f"export {run} --format huggingface --out {out}",
        f"resume {run} --device cpu",
    ):
        with pytest.raises(SystemExit) as ended:
            main(line.split())
        told = capsys.readouterr().err
        assert ended.value.code == 5 and "not finite" in told and "Traceback" not in told, told
        assert not out.exists()


def huge(tensors: Tensors) -> None:
    """Put the largest numbers into every weight."""
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.fill_(3e38)


def test_finite_weights_that_make_infinite_samples_write_nothing(run: Path) -> None:
    from advgen.sampling import sample_run

    change(saved(run), "average", huge)
    said = refusal(lambda: sample_run(run, 2, out=run.parent / "out", device="cpu"))
    assert "its samples hold" in said and not (run.parent / "out").exists()


def test_warm_starts_refuse_weights_of_nan_and_of_other_types(run: Path) -> None:
    start = {"steps": 1, "config_files": [run / "config.toml"], "progress": False, "device": "cpu"}
    for kind in ("NaN", "int64"):
        change(saved(run), "average", ALTERED[kind][0])
        said = refusal(lambda: advgen.train("image", **start, from_run=run, out=run.parent / "out"))
        assert "average.safetensors" in said and re.search(ALTERED[kind][1], said) and not (run.parent / "out").exists()


LATENTS: dict[str, tuple[Callable[[Tensor, Tensor | None], Tensors], str]] = {
    "NaN": (lambda latent, label: {"latent": latent * math.nan}, "latent holds .*not finite"),
    "infinite": (lambda latent, label: {"latent": latent + math.inf}, "latent holds .*not finite"),
    "whole numbers": (lambda latent, label: {"latent": latent.long()}, "of type int64"),
    "bool": (lambda latent, label: {"latent": latent.bool()}, "of type bool"),
    "complex": (lambda latent, label: {"latent": latent.to(torch.complex64)}, "of type complex64"),
    "scalar": (lambda latent, label: {"latent": latent.flatten()[0].clone()}, "no tensor 'latent' with rows"),
    "no rows": (lambda latent, label: {"latent": latent[:0].clone()}, "no tensor 'latent' with rows"),
    "another name": (lambda latent, label: {"x": latent}, "no tensor 'latent' with rows"),
    "another size": (lambda latent, label: {"latent": latent[:, :1].clone()}, "holds latents"),
    "many": (lambda latent, label: {"latent": torch.zeros(20_000, 1)}, "20,000 latents"),
    "labels of floats": (lambda latent, label: {"latent": latent, "label": torch.zeros(1)}, "labels of type float32"),
    "a class that is not there": (lambda latent, label: {"latent": latent, "label": torch.tensor([99])}, "names no class"),
    "a negative class": (lambda latent, label: {"latent": latent, "label": torch.tensor([-1])}, "names no class"),
    "shares of other classes": (lambda latent, label: {"latent": latent, "label": torch.full((1, 2), 0.5)}, "shares of 2"),
    "shares of NaN": (lambda latent, label: {"latent": latent, "label": torch.full((1, 3), math.nan)}, "label holds"),
}


@pytest.mark.parametrize("kind", LATENTS)
def test_latents_of_another_form_are_refused(kind: str, genuine: Path, tmp_path: Path) -> None:
    make, expected = LATENTS[kind]
    space = advgen.load_generator(genuine / "run").space()
    place = space.place(0)
    label = place.condition.get("label")
    path = tmp_path / "latent.safetensors"
    good = {"latent": place.latent} | ({} if label is None else {"label": label})
    save_file(good, path)
    assert len(load_places(path, space)[0]) == 1
    save_file({name: tensor.contiguous() for name, tensor in make(place.latent.clone(), label).items()}, path)
    assert re.search(expected, refusal(lambda: load_places(path, space), DataError))


class Judge:
    """A judge with an identity, so that its views are kept; it counts its calls."""

    name, identity, protocol = "a judge", "1", dict[str, str]()

    def __init__(self) -> None:
        self.calls = 0

    def features(self, batch: Batch) -> Tensor:
        self.calls += 1
        return batch.values.flatten(1)

    def classify(self, batch: Batch) -> Tensor | None:
        return None


VIEWS: dict[str, Tensors] = {
    "NaN": {"seen": torch.full((4, 3), math.nan)},
    "whole numbers": {"seen": torch.zeros(4, 3, dtype=torch.int64)},
    "flat": {"seen": torch.zeros(12)},
    "no features": {"logits": torch.zeros(4, 3)},
    "rows of others": {"seen": torch.zeros(4, 3), "logits": torch.zeros(5, 3)},
    "surplus": {"seen": torch.zeros(4, 3), "spy": torch.zeros(4)},
}


@pytest.mark.parametrize("kind", VIEWS)
def test_kept_features_that_are_no_features_are_computed_again_and_named(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    judge, batch = Judge(), Batch(torch.arange(12.0).reshape(4, 3))
    first = view_of_real(judge, batch, tmp_path)
    assert judge.calls == 1
    view_of_real(judge, batch, tmp_path)
    assert judge.calls == 1
    (file,) = tmp_path.rglob("*.safetensors")
    save_file(VIEWS[kind], file)
    with caplog.at_level(logging.WARNING, "advgen"):
        again = view_of_real(judge, batch, tmp_path)
    assert judge.calls == 2 and torch.equal(first.seen, again.seen) and isinstance(again, View)
    assert str(file) in caplog.text and "computed again" in caplog.text


def test_weights_of_a_judge_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    network, file = nn.Linear(2, 3), tmp_path / "judge.safetensors"
    for tensors, expected in (
        ({"weight": torch.zeros(3, 2)}, "missing: bias"),
        ({"weight": torch.full((3, 2), math.nan), "bias": torch.zeros(3)}, "weight holds 6 numbers"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3, dtype=torch.int32)}, r"bias is int32 \(3,\), expected float32"),
    ):
        save_file(tensors, file)
        said = refusal(lambda: load_weights(network, file, "the judge"))
        assert str(file) in said and re.search(expected, said), said
    file.write_bytes(b"x")
    assert str(file) in refusal(lambda: load_weights(network, file, "the judge"))


def test_statistics_of_batch_norm_are_free_only_if_they_are_estimated_again() -> None:
    network = nn.BatchNorm1d(2)
    tensors = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors["running_var"] = torch.tensor([1.0, -1.0])
    assert "running_var holds -1" in refusal(lambda: load_network(network, tensors, "it"))
    load_network(network, tensors, "it", refreshed=True)
    tensors["weight"][0] = math.inf
    assert "weight holds 1 number" in refusal(lambda: load_network(network, tensors, "it", refreshed=True))


def test_a_mask_that_is_infinite_by_design_still_loads() -> None:
    network = nn.Linear(1, 1)
    network.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    load_network(network, dict(network.state_dict()), "it")
    worse = dict(network.state_dict()) | {"mask": torch.tensor([-math.inf, -math.inf])}
    assert "mask holds 1 number" in refusal(lambda: load_network(network, worse, "it"))


def test_single_and_double_precision_may_be_read_as_each_other() -> None:
    network, double = nn.Linear(2, 2), nn.Linear(2, 2).double()
    load_network(network, dict(double.state_dict()), "it")
    assert torch.equal(network.weight, double.weight.float())


def test_whole_checkpoints_load_to_the_bit(genuine: Path, setup: Setup) -> None:
    parts, manifest = checkpoint.load(genuine / "run" / "checkpoints", STEP)
    unpack(setup.players, parts)
    again = pack(setup.players)
    assert clock_of(setup.config, manifest).step == STEP and set(again) == set(parts)
    for part, tensors in parts.items():
        known = load_file(saved(genuine / "run") / f"{part}.safetensors")
        for name, tensor in tensors.items():
            assert torch.equal(tensor.nan_to_num(), known[name].nan_to_num()) and tensor.dtype is known[name].dtype
            assert torch.equal(again[part][name].nan_to_num(), known[name].nan_to_num())


def test_every_type_of_safetensors_is_read_as_the_library_reads_it(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)
    types += (torch.uint8, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2)
    tensors = {str(dtype): (torch.rand(3, 5, generator=rng) * 9).to(dtype) for dtype in types}
    tensors |= {"empty": torch.zeros(0, 4), "scalar": torch.tensor(2.5)}
    save_file(tensors, tmp_path / "all.safetensors", {"who": "a test"})
    with (tmp_path / "all.safetensors").open("rb") as handle:
        file = TensorFile(tmp_path / "all.safetensors", handle)
        assert file.sizes == sizes_of(tensors) and file.metadata == {"who": "a test"}
        for name, tensor in file.read().items():
            assert torch.equal(tensor.contiguous().view(-1).view(torch.uint8), tensors[name].view(-1).view(torch.uint8)), name


class Peeking(nn.Module):
    """A network that cannot be made without values, and takes as much memory as it is told."""

    def __init__(self, width: int) -> None:
        super().__init__()
        assert torch.ones(1).item() == 1.0
        self.inner = nn.Linear(width, 4)


class Many(nn.Module):
    """Layers of nearly no size."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(number))


@pytest.mark.parametrize("make", [lambda: Peeking(10**11), lambda: Many(10**9), lambda: nn.Linear(10**9, 10**9)])
def test_networks_far_larger_than_their_file_are_refused_while_they_are_made(make: Callable[[], nn.Module]) -> None:
    said = refusal(lambda: require_room(make, sizes_of(nn.Linear(2, 2).state_dict()), "it"), UnfitError)
    assert "far larger" in said


def test_networks_that_look_at_values_are_compared_as_well() -> None:
    require_room(lambda: Peeking(3), sizes_of(Peeking(3).state_dict()), "it")
    said = refusal(lambda: require_room(lambda: Peeking(5), sizes_of(Peeking(3).state_dict()), "it"), UnfitError)
    assert "inner.weight is float32 (4, 3), expected float32 (4, 5)" in said


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.hann_window(10**11),
        lambda: torch.randn(10**11),
        lambda: torch.zeros(10**6, 10**6),
        lambda: torch.arange(10**11),
        lambda: torch.eye(10**6),
        lambda: torch.full((10**11,), 1.0),
    ],
)
def test_no_call_that_makes_a_tensor_escapes_the_allowance(make: Callable[[], Tensor]) -> None:
    with pytest.raises(AllowanceError), Allowance({}):
        make()


def test_planning_a_network_changes_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with torch.random.fork_rng(devices=[]):
        found = sizes_of(nn.Linear(3, 3).state_dict())
    require_room(lambda: nn.Linear(3, 3), found, "it")
    require_room(lambda: Peeking(3), sizes_of({"inner.weight": torch.zeros(4, 3), "inner.bias": torch.zeros(4)}), "it")
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("text", ['[1, 2.5, -3, true, null, "x"]', '{"a": {"b": [[]]}}', str(2**62)])
def test_honest_json_is_read_as_by_the_library(text: str) -> None:
    assert parse_json(text) == json.loads(text)


@pytest.mark.skipif(not hasattr(__import__("os"), "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(run: Path) -> None:
    import os

    (run / "facts.json").unlink()
    os.mkfifo(run / "facts.json")
    assert "is neither a file nor a folder" in refusal(lambda: advgen.load_generator(run))
    with pytest.raises(ValueError, match="not an ordinary file"):
        read_json(run / "facts.json")


BOMBS = """
import json, re, resource, sys
from pathlib import Path
import advgen
from advgen.errors import GenError
run = Path(sys.argv[1])
advgen.load_generator(run)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
said = []
def tell(part=None):
    try:
        advgen.load_generator(run)
        said.append("loaded")
    except GenError as error:
        said.append(str(error.exit_code))
config, facts = (run / "config.toml").read_text(), (run / "facts.json").read_text()
for width in (2048, 10**5):
    (run / "config.toml").write_text(re.sub(r"(?m)^width = \\d+", f"width = {width}", config))
    tell()
(run / "config.toml").write_text(config)
for more in ({"height": 2**15, "width": 2**15}, {"channels": 64}):
    (run / "facts.json").write_text(json.dumps(json.loads(facts) | more))
    tell()
(run / "facts.json").write_bytes(b"[" + b"[]," * 10_000_000 + b"[]]")
tell()
(run / "facts.json").write_bytes(b"[" * 10_000_000)
tell()
(run / "facts.json").write_text(facts)
checkpoint = run / "checkpoints" / "step-00000002"
Path(sys.argv[2]).replace(checkpoint / "average.safetensors")
(checkpoint / "manifest.json").write_text(Path(sys.argv[3]).read_text())
tell()
print(json.dumps({"said": said, "grown": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in KiB, as Linux tells it")
def test_memory_stays_bounded_whatever_files_claim(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step-00000000")
    giant = tmp_path / "giant"
    giant.write_bytes(header({"x": entry(shape=[2**27], offsets=[0, 2**29])}))
    with giant.open("r+b") as handle:
        handle.truncate(giant.stat().st_size + 2**29)  # sparse
    with giant.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    manifest = json.loads((saved(run) / "manifest.json").read_text())
    good = manifest["files"]["average"]
    manifest["files"]["average"] = {"sha256": digest, "bytes": giant.stat().st_size}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    command = [sys.executable, "-c", BOMBS, str(run), str(giant), str(tmp_path / "manifest.json")]
    ended = subprocess.run(command, env=environment(ROOT), capture_output=True, encoding="utf-8")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["said"] == ["5"] * 7 and good["bytes"] < 2**20, found
    assert found["grown"] < 300 * 1024, found


def test_this_file_has_many_inputs() -> None:
    tables = (ALTERED, MOMENTS, STATES, CLOCKS, HEADERS, MANIFESTS, TEXTS, IDENTITIES, FACTS, AUDIO_FACTS, TEXT_FACTS, LATENTS)
    assert sum(map(len, tables)) > 150
