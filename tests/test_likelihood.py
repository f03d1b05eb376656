"""Likelihoods in an evaluation: of held-out data, a position and a padded position, and of own samples."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import advgen
from advgen import Batch, ConfigError, Generator, Modality
from advgen.evaluation import evaluate_run
from advgen.metrics.likelihood import likelihood_metrics
from advgen.sampling import load_run
from advgen.sweeping import sweep_runs

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny


class Counting(Modality[Any]):
    """A position costs its value in nats."""

    likely = True

    def likelihood(self, generator: Generator, batch: Batch) -> Tensor:
        if not self.likely:
            raise ConfigError("this generator has none")
        return batch.values


def test_nats_are_counted_by_valid_and_by_padded_position() -> None:
    Counting.__abstractmethods__ = frozenset()
    modality, network = Counting(None, {}), nn.Linear(1, 1)
    held_out = Batch(
        torch.tensor([[2.0, 4.0, 9.0], [6.0, 9.0, 9.0]]), torch.tensor([[True, True, False], [True, False, False]])
    )
    own = Batch(torch.full((300, 2), 0.5))
    found = likelihood_metrics(modality, network, held_out, own)  # type: ignore[arg-type]
    assert found == {"nll_test": pytest.approx(4.0), "nll_test_padded": pytest.approx(2.0), "nll_div": pytest.approx(0.5)}
    modality.likely = False
    assert likelihood_metrics(modality, network, held_out, own) == {}  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("likelihood") / "run"
    advgen.train("text", out=folder, overrides=tiny("text"), steps=3, progress=False, device="cpu")
    return folder


def test_a_text_generators_report_holds_what_its_teacher_forced_scores_say(run: Path) -> None:
    report = evaluate_run(run, 40, device="cpu")["modality"]
    loaded = load_run(run, "cpu")
    held_out = loaded.corpus().splits["test"]
    batch = held_out.batch(torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[:2000], torch.Generator())
    with torch.no_grad():
        rows = loaded.generator.score(batch.values, batch.condition).log_softmax(-1)
    nats = -(rows.gather(2, batch.values.unsqueeze(2)).squeeze(2) * batch.mask).double().sum()
    assert report["nll_test"] == pytest.approx(float(nats / batch.mask.sum()), rel=1e-5)
    assert report["nll_test_padded"] == pytest.approx(float(nats / batch.mask.numel()), rel=1e-5)
    assert 0 < report["nll_div"] < math.log(len(loaded.modality.tokenizer)) * 1.5


def test_a_sweep_measures_likelihood_at_each_temperature(run: Path) -> None:
    cold, warm = (point["metrics"] for point in sweep_runs([run], "temperature=0.2,1", 40, device="cpu")["points"])
    assert cold["nll_div"] < warm["nll_div"] and cold["nll_test"] != warm["nll_test"]


@pytest.mark.slow
def test_other_modalities_report_none(tmp_path: Path) -> None:
    advgen.train("image", out=tmp_path / "run", overrides=tiny("image"), steps=1, progress=False, device="cpu")
    assert "nll_test" not in evaluate_run(tmp_path / "run", 40, device="cpu")["modality"]
