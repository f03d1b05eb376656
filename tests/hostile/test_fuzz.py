"""Mutated files of a run and of an exported folder end with refusals, or change nothing; never with anything else."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny

import advgen
from advgen.errors import GenError
from advgen.export import export_run
from advgen.runs import describe_run

SHORT, LONG = 150, 10_000
NUMBERS = ("-1", "0", "1e400", "NaN", "-Infinity", "1" + "0" * 18, "1" + "0" * 400, "2147483648", "0.1", "true", "null")
TEXTS = (
    '""',
    '"../../x"',
    '"\\u0000"',
    '"' + "a" * 300 + '"',
    "[]",
    "{}",
    '"\\ud800"',
    '"/etc/passwd"',
    "[[[[]]]]",
    '"evil.py"',
)
JSON_FILES = ("run.json", "facts.json", "manifest", "config.json", "best.json")


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two checkpoints and its exported folder, as small as they can be."""
    folder = tmp_path_factory.mktemp("genuine")
    advgen.train("text", steps=2, out=folder / "run", overrides=tiny("text", "train.checkpoint_every=1"), progress=False)
    export_run(folder / "run", "huggingface", folder / "export")
    return folder


def targets(folder: Path) -> list[Path]:
    """The files that are read when the folder is opened, the newest checkpoint's among them."""
    names = ("run.json", "facts.json", "config.toml", "config.json", "checkpoints/step-00000002/manifest.json")
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1:]
    weights = [*folder.glob("*.safetensors"), *(path for step in newest for path in step.glob("*.safetensors"))]
    return [path for path in (*(folder / name for name in names), *sorted(weights)) if path.is_file()]


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Change a file in one of the ways that chance and malice change files."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [flip, cut, repeat, insert, replace_token, replace_token, swap_digits]
    return rng.choice(ways)(content, rng)


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def repeat(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start : start + rng.randint(1, 64)] * rng.randint(2, 40) + content[start:]


def insert(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content) + 1)
    return content[:start] + rng.randbytes(rng.randint(1, 32)) + content[start:]


def replace_token(content: bytes, rng: random.Random) -> bytes:
    """Put another value in the place of a number or a text, as somebody would who knows the format."""
    import re

    tokens = list(re.finditer(rb'-?\d+(?:\.\d+)?|"[^"\n]{0,80}"|true|false|null', content))
    if not tokens:
        return flip(content, rng)
    token = rng.choice(tokens)
    return content[: token.start()] + rng.choice(NUMBERS + TEXTS).encode() + content[token.end() :]


def swap_digits(content: bytes, rng: random.Random) -> bytes:
    places = [place for place, byte in enumerate(content) if 48 <= byte < 58]
    if not places:
        return flip(content, rng)
    changed = bytearray(content)
    changed[rng.choice(places)] = rng.randrange(48, 58)
    return bytes(changed)


@contextlib.contextmanager
def mutated(folder: Path, rng: random.Random) -> Iterator[Path]:
    """One file of the folder changed, its hash put right where one is kept; the folder is as before after the block."""
    target = rng.choice(targets(folder))
    content = target.read_bytes()
    changed = mutate(content, rng)
    others = _with_right_hash(target, changed) if rng.random() < 0.7 else {}
    before = {path: path.read_bytes() for path in others}
    try:
        for path, text in {target: changed, **others}.items():
            path.write_bytes(text)
        yield target
    finally:
        for path, text in {target: content, **before}.items():
            path.write_bytes(text)


def _with_right_hash(target: Path, changed: bytes) -> dict[Path, bytes]:
    """The manifest or configuration as somebody would write it who wants the changed weights taken for the right ones."""
    digest = hashlib.sha256(changed).hexdigest()
    for keeper in (target.parent / "manifest.json", target.parent / "config.json"):
        if target.suffix == ".safetensors" and keeper.is_file():
            about: Any = json.loads(keeper.read_text())
            entry = about["files"][target.stem] if "files" in about else about["weights"]
            entry["sha256"] = digest
            if "bytes" in entry:
                entry["bytes"] = len(changed)
            return {keeper: json.dumps(about).encode()}
    return {}


def open_and_use(folder: Path, is_run: bool, rng: random.Random) -> None:
    """Do what a user would: look at it, draw from it, and sometimes go on with it."""
    if is_run:
        describe_run(folder)
    values = advgen.load_generator(folder).draw(2, seed=0).values
    assert torch.isfinite(values.double()).all()
    if is_run and rng.random() < 0.05:
        advgen.resume(folder, device="cpu", progress=False)


def run_trials(genuine: Path, tmp_path: Path, first: int, count: int) -> tuple[int, int]:
    """Open ``count`` mutated folders; return how many were refused and how many opened as if nothing had happened."""
    for name in ("run", "export"):
        shutil.copytree(genuine / name, tmp_path / name)
    refused = opened = 0
    for number in range(first, first + count):
        rng = random.Random(number)
        kind = rng.choice(("run", "run", "export"))
        with mutated(tmp_path / kind, rng) as target:
            try:
                open_and_use(tmp_path / kind, kind == "run", rng)
                opened += 1
            except GenError as error:
                refused += 1
                assert "\n" not in str(error), (number, target, error)
            except Exception as error:
                raise AssertionError(f"mutation {number} of {target.name}: {type(error).__name__}: {error}") from error
    return refused, opened


def test_mutated_files_end_with_refusals_alone(genuine: Path, tmp_path: Path, count_trial: Callable[[], None]) -> None:
    refused, opened = run_trials(genuine, tmp_path, 0, SHORT)
    for _ in range(SHORT):
        count_trial()
    assert refused + opened == SHORT and refused > SHORT // 3


@pytest.mark.slow
def test_ten_thousand_mutated_files_end_with_refusals_alone(
    genuine: Path, tmp_path: Path, count_trial: Callable[[], None]
) -> None:
    refused, opened = run_trials(genuine, tmp_path, SHORT, LONG)
    for _ in range(LONG):
        count_trial()
    print(f"{refused} refused, {opened} opened")
    assert refused + opened == LONG
