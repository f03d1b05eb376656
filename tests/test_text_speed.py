"""The text benchmark: both sides do the same work."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen_text.bleu import bleu
from advgen_text.tokenizer import EOS


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    yield importlib.import_module("text_speed")
    for name in ("text_speed", "step"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("kind", ["lstm", pytest.param("transformer", marks=pytest.mark.slow)])
def test_the_plain_loop_samples_from_the_same_distribution(bench: Any, kind: str) -> None:
    torch.manual_seed(0)
    writer = bench.make_generator(bench.CONFIGS[kind], {"length": 3, "classes": []}, 9).eval()
    torch.nn.init.normal_(writer.tokens.weight, std=0.7)
    writer.never[:, EOS] = -1e9
    if kind == "transformer":
        writer.never[:] = 0  # the package's own loop draws any token
    with torch.no_grad():
        theirs = bench.plain_sampler(writer, 3)(20_000)[:, -2:]
        ours = writer.draw(torch.rand(20_000, 3), {})
    ours = ours[:, :2] if kind == "transformer" else ours[:, -2:]
    counts = [torch.bincount(9 * pair[:, 0] + pair[:, 1], minlength=81) / 20_000 for pair in (ours, theirs)]
    assert (counts[0] - counts[1]).abs().max() < 0.02 < counts[0].max()


def test_plain_bleu_has_the_precisions_of_the_fast_one(bench: Any) -> None:
    lines = [line.split() for line in ("a dog runs in the park .", "the cat sleeps .", "a dog sleeps in the sun .")]
    first, second = bench.plain_bleu(lines[0], lines[1:], 2)
    assert bleu(lines[:1], lines[1:])[2] == pytest.approx((first * second) ** 0.5)


def test_both_measures_print_a_row(bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("a dog runs .\na cat runs .\n" * 5)
    bench.main(["bleu", "--text", str(tmp_path / "a.txt"), "--references", str(tmp_path / "a.txt"), "--lines", "1"])
    sizes = {"generator": "lstm", "batch": 2, "length": 3, "vocabulary": 20, "rounds": 2, "device": "cpu"}
    bench.main(["sampling", *(part for name, value in sizes.items() for part in (f"--{name}", str(value)))])
    rows = capsys.readouterr().out
    assert '"self_bleu_seconds"' in rows and '"plain_tokens_per_second"' in rows
    with pytest.raises(SystemExit):
        bench.main(["bleu", "--text", str(tmp_path / "none.txt"), "--references", str(tmp_path / "a.txt")])
