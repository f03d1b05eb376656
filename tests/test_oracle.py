"""The oracle of benchmarks/oracle.py: its formula, and what it reads parameters from."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from advgen import DataError

sys.path.insert(0, str(Path(__file__).parent))
from test_bleu import captions

WORDS = 30


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("oracle")


def test_the_oracle_is_the_published_lstm_gate_by_gate(bench: Any) -> None:
    given = bench.drawn_parameters(0, WORDS)
    words = torch.tensor([[3, 7, 1, 29]])
    hidden = memory = torch.zeros(bench.WIDTH)
    before, expected = 0, []
    for word in words[0].tolist():
        x = given["embedding"][before]
        gate = {name: x @ given[f"w{name}"] + hidden @ given[f"u{name}"] + given[f"b{name}"] for name in ("i", "f", "og", "c")}
        memory = gate["f"].sigmoid() * memory + gate["i"].sigmoid() * gate["c"].tanh()
        hidden = gate["og"].sigmoid() * memory.tanh()
        expected.append(-(hidden @ given["wo"] + given["bo"]).log_softmax(0)[word])
        before = word
    torch.testing.assert_close(bench.Oracle(given).nats(words)[0], torch.stack(expected), atol=1e-4, rtol=1e-4)


def test_its_samples_are_as_likely_as_its_entropy_says_and_any_others_less(bench: Any) -> None:
    oracle, rng = bench.Oracle(bench.drawn_parameters(0, WORDS)), torch.Generator().manual_seed(0)
    own = oracle.nats(oracle.draw(400, 6, rng)).mean()
    assert own < oracle.nats(torch.randint(WORDS, (400, 6), generator=rng)).mean() - 1


@pytest.mark.parametrize("form", ["named.npz", "ordered.npz", "weights.safetensors", "folder", "bare"])
def test_parameters_are_read_by_name_or_in_the_published_order(form: str, bench: Any, tmp_path: Path) -> None:
    given = bench.drawn_parameters(0, WORDS)
    arrays = {("g_emb" if name == "embedding" else name): value.numpy() for name, value in given.items()}
    path = tmp_path / form
    if form == "named.npz":
        np.savez(path, **arrays)
    elif form == "ordered.npz":
        np.savez(path, *arrays.values())
    elif form == "folder":
        path.mkdir()
        for name, value in arrays.items():
            np.savez(path / f"{name}.npz", value)
    elif form == "bare":  # as they are handed on: plain arrays by the name of archives
        path.mkdir()
        for name, value in arrays.items():
            with (path / f"{name}.npz").open("wb") as stream:
                np.save(stream, value)
    else:
        save_file(given, path)
    found = bench.read_parameters(path, WORDS)
    assert all(torch.equal(found[name], value) for name, value in given.items())


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return captions(tmp_path_factory.mktemp("oracle")) / "seqgan_oracle" / "npz"


def test_the_published_oracle_is_as_uncertain_as_published(bench: Any, published: Path) -> None:
    oracle = bench.Oracle(bench.read_parameters(published, 5000))
    own = oracle.draw(1000, bench.LENGTH, torch.Generator().manual_seed(1))
    words, state = oracle.start(len(own))
    total = torch.zeros(len(own))
    for place in range(bench.LENGTH):  # the entropy of each step is the mean NLL of what it draws, with far less scatter
        rows, state = oracle.step(words, state)
        words = own[:, place]
        total -= (rows.exp() * rows).sum(1)
    assert total.mean().item() / bench.LENGTH == pytest.approx(bench.PUBLISHED, abs=0.02)
    bench.check_published(oracle.nats(own).mean(1), bench.LENGTH)


@pytest.mark.slow
def test_the_published_oracles_own_nll_is_the_published_one(bench: Any, published: Path) -> None:
    oracle = bench.Oracle(bench.read_parameters(published, 5000))
    own = oracle.nats(oracle.draw(6000, bench.LENGTH, torch.Generator().manual_seed(0))).mean()
    assert own.item() == pytest.approx(5.750, abs=0.02)


def test_an_oracle_with_another_nll_is_refused_as_the_published_one(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(bench.drawn_parameters(0, WORDS), tmp_path / "other.safetensors")
    given = ["--oracle", str(tmp_path / "other.safetensors"), "--vocabulary", str(WORDS), "--train", "50", "--test", "50"]
    monkeypatch.setattr("sys.argv", ["oracle.py", *given, "--samples", "200", "--device", "cpu"])
    with pytest.raises(DataError, match=r"--oracle: its own NLL is .* the published oracle's is 5\.750 \+- 0\.02"):
        bench.main()
    near = torch.full((1000,), 5.765) + 0.1 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    bench.check_published(near, bench.LENGTH)
    with pytest.raises(DataError, match="other parameters"):
        bench.check_published(near + 0.05, bench.LENGTH)
    bench.check_published(near + 5, 40)  # nothing is published for other lengths


def test_a_pickle_and_a_file_of_another_size_are_refused(bench: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="convert a pickle"):
        bench.read_parameters(tmp_path / "target_params.pkl", WORDS)
    save_file(bench.drawn_parameters(0, WORDS), tmp_path / "small.safetensors")
    with pytest.raises(DataError, match=r"embedding is \(30, 32\), expected \(5000, 32\)"):
        bench.read_parameters(tmp_path / "small.safetensors", 5000)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"cut\.npz cannot be read as arrays"):
        bench.read_parameters(tmp_path / "cut.npz", WORDS)


def test_the_frontier_is_the_published_one_and_says_nothing_outside_it(bench: Any) -> None:
    assert bench.frontier(8.0) == pytest.approx(7.92) and bench.frontier(5.75) == pytest.approx(9.59)
    assert bench.frontier(5.0) is None and bench.frontier(9.5) is None


def test_a_plan_of_minutes_ends_with_them_and_one_of_steps_counts_them(bench: Any) -> None:
    device = torch.device("cpu")
    assert list(bench.Plan(4, None, device).progress()) == [0, 0.25, 0.5, 0.75]
    done = []
    for share in bench.Plan(4, 0.002, device).progress():
        done.append(share)
        sum(range(20_000))  # works, as steps do: waiting takes no processor time
    assert len(done) > 4 and done == sorted(done) and done[0] >= 0 and done[-1] < 1
