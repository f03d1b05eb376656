"""The rehearsal before a run leaves nothing behind, whatever networks keep."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advgen import Discriminator, Modality, Mode, Verdict
from advgen.config.load import load_config
from advgen.errors import ConfigError, ContractError
from advgen.registry import find_plugin
from advgen.rehearsal import FEW, rehearse, unchanged
from advgen.setup import Setup, build
from advgen.step import train_step
from advgen.world import World

sys.path.insert(0, str(Path(__file__).parent))
from conftest import TINY
from test_plugin_errors import FORWARD, planted
from test_recording import weights


def setup_of(plugin: str, preset: str | None, *overrides: str) -> Setup:
    record = find_plugin(plugin)
    config = load_config(record, preset=preset, overrides=[*TINY.get(plugin, []), "train.batch_size=8", *overrides]).config
    return build(record, config, World(0, 1, torch.device("cpu")))


@pytest.mark.parametrize(
    ("plugin", "preset", "more"),
    [
        ("image", "classic", []),  # BatchNorm
        ("image", "resnet-small", []),  # spectral norms, which move with every call
        ("image", "default", ["options.augment=ada"]),  # random numbers inside the discriminator
        ("text", "default", []),
        ("audio", "default", []),
    ],
)
def test_a_run_is_the_same_to_the_bit_with_and_without_a_rehearsal(
    plugin: str, preset: str, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for rehearsed in (True, False):
        if not rehearsed:
            monkeypatch.setattr("advgen.setup.rehearse", lambda *given: None)
        torch.manual_seed(3)
        setup = setup_of(plugin, preset, *more)
        after = torch.rand(())
        for step in range(2):
            train_step(setup.players, setup.objective, setup.draw, step, step / 2)
        found.append({**weights(setup), "random": after})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value.nan_to_num(), found[1][name].nan_to_num()), name


class Counting(nn.Module):
    """Counts its calls in a buffer that is written, and in one that is replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.inner = nn.BatchNorm1d(2)

    def forward(self, values: Tensor) -> Tensor:
        self.written += 1
        self.replaced = self.replaced + 1
        found: Tensor = self.inner(values)
        return found


def test_buffers_that_are_written_or_replaced_are_put_back() -> None:
    network, values = Counting(), torch.randn(5, 2)
    network(values)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    kept = dict(network.named_buffers())
    with pytest.raises(ZeroDivisionError), unchanged(network):
        network(values)
        assert network.written[0] == network.replaced[0] == 2
        raise ZeroDivisionError
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(each is kept[name] for name, each in network.named_buffers())


class Grouped(Discriminator):
    batch_group = 4

    def __init__(self, seen: list[int]) -> None:
        super().__init__()
        self.layer, self.counts = nn.Linear(2, 1), seen

    def forward(self, seen: Tensor, condition: Any, mask: Tensor | None = None) -> Verdict:
        self.counts.append(len(seen))
        return Verdict.of(self.layer(seen).squeeze(1))


def test_samples_that_are_judged_in_groups_are_rehearsed_in_whole_groups(tmp_path: Path) -> None:
    setup = setup_of(str(planted(tmp_path)), None)
    counts = list[int]()
    setup.players.discriminator.network = Grouped(counts)
    rehearse(setup.players, setup.objective, setup.corpus.splits["train"])
    assert counts == [8, 8] and FEW == 5


MODES = "        found = Sample(self.layers(noise))\n        {}\n        return found"


@pytest.mark.parametrize(
    ("estimator", "fields", "error", "message"),
    [
        ("score_function", "", ConfigError, "needs a generator that returns log_prob and entropy; use pathwise"),
        (
            "score_function",
            "found = Sample(found.values, log_prob=found.values[:, 0], entropy=found.values)",
            ContractError,
            r"DotsGenerator.forward \(dots.py:\d+\) returned a Sample whose log_prob is float32 \(5,\), expected",
        ),
        (
            "straight_through",
            "found = Sample(found.values, relaxed=found.values)",
            ContractError,
            r"returned a Sample whose relaxed is float32 \(5, 2\), expected floats \(5, 2, V\) for mode='relaxed'",
        ),
        (
            "straight_through",
            "found = Sample(found.values.round().long())",
            ContractError,
            r"returned a Sample whose relaxed is None, expected floats \(5, 2, V\) for mode='relaxed'",
        ),
    ],
)
def test_what_an_estimator_reads_of_a_sample_is_looked_at_before_the_run(
    estimator: str, fields: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    plugin = planted(tmp_path, (FORWARD, MODES.format(f'if mode != "values":\n            {fields or "pass"}')))
    with pytest.raises(error, match=message):
        setup_of(str(plugin), None, f"estimator.name='{estimator}'")


def test_a_cost_that_no_term_makes_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"auxiliary.mel: this plugin has no such term; known: likelihood, size, level"):
        setup_of(str(planted(tmp_path)), None, "auxiliary.mel=1.0")


class Mixed:
    """A base that several modalities of a plugin may share."""

    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        return torch.randn(num_samples + 1, 2, generator=generator)


class Halves(Modality[Any]):
    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        return torch.randn(2, 2, generator=generator)


class Wholes(Halves):
    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Mode = "values") -> Tensor:
        return super().noise(2, generator, mode=mode)[:1]


def without_abstract_methods(kind: type[Modality[Any]]) -> Modality[Any]:
    kind.__abstractmethods__ = frozenset()
    return kind(None, {})


def test_a_method_that_is_mixed_in_is_checked_as_one_of_the_class() -> None:
    modality = without_abstract_methods(type("Joined", (Mixed, Modality), {}))
    with pytest.raises(ContractError, match=r"Joined.noise \(.*:\d+\) returned float32 \(5, 2\), expected \(4, ...\)"):
        modality.noise(4, torch.Generator())


def test_a_method_that_calls_its_parents_is_checked_after_it() -> None:
    modality = without_abstract_methods(Wholes)
    with pytest.raises(ContractError, match=r"Wholes.noise \(.*:\d+\) returned float32 \(1, 2\), expected \(2, ...\)"):
        modality.noise(2, torch.Generator())


def test_a_method_is_checked_at_its_first_call_in_each_mode_and_not_again() -> None:
    modality = without_abstract_methods(Halves)
    assert len(modality.noise(2, torch.Generator())) == 2
    assert len(modality.noise(7, torch.Generator())) == 2
    with pytest.raises(ContractError, match=r"Halves.noise .* expected \(7, ...\)"):
        modality.noise(7, torch.Generator(), mode="relaxed")
