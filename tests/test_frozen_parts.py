"""Parts of a network that do not train stay as they are, under every setting, and everything else works as without them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import advgen
from advgen.config.load import load_config
from advgen.config.model import PlayerConfig
from advgen.engine import make_player
from advgen.errors import CheckpointError, ContractError
from advgen.recording import Recorder, recorder
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.step import train_step
from advgen.testing import check_plugin
from advgen.world import World

sys.path.insert(0, str(Path(__file__).parent))
from test_recording import Traced, weights

CPU = torch.device("cpu")
DOTS = (Path(__file__).parent / "dots.py").read_text()
GENERATOR = "        self.layers = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))\n"
DISCRIMINATOR = "        self.layers = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))\n"
FREEZE = "        self.layers[0].requires_grad_(False)\n"
TABLES = (
    "        self.table = nn.Parameter(torch.arange(3), requires_grad=False)\n"
    '        self.register_buffer("counts", torch.arange(4))\n'
)
GROUPS = "\n    def parameter_groups(self):\n        return [{{'params': self.layers[0].parameters()}}, {}]\n"


def changed(*changes: tuple[str, str]) -> str:
    text = DOTS
    for before, after in changes:
        assert text.count(before) == 1
        text = text.replace(before, after)
    return text


FROZEN = changed((GENERATOR, GENERATOR + FREEZE + TABLES), (DISCRIMINATOR, DISCRIMINATOR + FREEZE))


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    path = tmp_path / "frozen.py"
    path.write_text(FROZEN)
    return path


def setup_of(plugin: Path, *overrides: str) -> Setup:
    record = find_plugin(str(plugin))
    return build(record, load_config(record, overrides=overrides).config, World(0, 1, CPU))


SETTINGS: dict[str, list[str]] = {
    "as the preset has it": [],
    "micro-batches": ["train.accumulate=2"],
    "a penalty of its own update": ["penalties.r1.own_step=true", "penalties.r1.interval=1"],
    "all penalties": ["penalties={r2={weight=0.1}, wgan_gp={weight=0.1}, dragan={weight=0.1}, lecam={weight=0.1}}"],
    "clipping by the norm": ["generator.clip={kind='quantile', limit=0.5}", "discriminator.clip={kind='norm', limit=0.1}"],
    "clipping by value": ["generator.clip={kind='value', limit=0.1}"],
    "plain descent with decay": ["generator.optimizer='sgd'", "discriminator.optimizer='sgd'", "generator.weight_decay=0.5"],
    "other optimizers with decay": ["generator={optimizer='adamw', weight_decay=0.5}", "discriminator.optimizer='rmsprop'"],
    "balanced costs": ["balance={loss=1.0, size=1.0}", "auxiliary={size=false}"],
    "paths through a mean over the batch": ["loss='relativistic_average'"],
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_frozen_parts_stay_and_the_rest_trains(setting: str, frozen: Path) -> None:
    setup = setup_of(frozen, "average.half_life_steps=1.0", *SETTINGS[setting])
    before = {name: value.clone() for name, value in weights(setup).items()}
    for step in range(3):
        train_step(setup.players, setup.objective, setup.draw, step, step / 3)
    after = weights(setup)
    stays = {name for name in before if not name.startswith("state.") and torch.equal(before[name], after[name])}
    own = {"layers.0.weight", "layers.0.bias"}
    assert stays == {f"{player}.{name}" for player in ("generator", "discriminator") for name in own} | {
        "generator.table",
        "generator.counts",
    }
    average, network = setup.players.average, setup.players.generator.network
    assert average is not None and torch.equal(average.layers[0].weight, network.layers[0].weight)  # type: ignore[index, union-attr]
    flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
    assert flags == {"table": False} | {f"layers.{layer}.{name}": layer == 2 for layer in (0, 2) for name in ("weight", "bias")}


def test_a_plugin_with_frozen_parts_keeps_the_whole_contract(frozen: Path) -> None:
    assert "resumes_exactly" in check_plugin(str(frozen))


def test_replayed_updates_leave_the_weights_that_plain_updates_leave(frozen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "host_randomness", lambda: ())
    plain, recorded = setup_of(frozen), setup_of(frozen)
    players = recorded.players
    backend = Traced(players.generator.network, players.discriminator.network)
    players.recorder = Recorder(backend)
    for step in range(6):
        for each in (plain, recorded):
            train_step(each.players, each.objective, each.draw, step, 0.0)
    assert all(torch.equal(value, weights(recorded)[name]) for name, value in weights(plain).items())
    assert backend.replays >= 4 and not players.recorder.refusals


def test_a_run_with_frozen_parts_resumes_to_the_bit(frozen: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"steps": 4, "device": "cpu", "progress": False}
    advgen.train(str(frozen), out=tmp_path / "whole", **given)
    advgen.train(str(frozen), out=tmp_path / "cut", stop_after=2, **given)
    advgen.resume(tmp_path / "cut", plugin=str(frozen), device="cpu", progress=False)
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / run / "checkpoints" / "step-00000004").glob("*.safetensors")}
        for run in ("whole", "cut")
    )
    assert one == other and "average.safetensors" in one


def test_a_resume_with_other_parts_frozen_is_refused(tmp_path: Path) -> None:
    from advgen.runs.checkpoint import pack_optimizer, unpack_optimizer

    def optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        made = torch.optim.Adam(parameters)
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        made.step()
        return made

    two, one = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))
    saved = pack_optimizer(optimizer([two, one]))
    for others in ([one, two], [two]):
        told = "generator_optimizer does not fit the checkpoint: .* the plugin trained other"
        with pytest.raises(CheckpointError, match=rf"{told} parameters"):
            unpack_optimizer(optimizer(others), saved, "generator_optimizer")


class Grouped(nn.Module):
    """Two layers, the first of which is frozen or not."""

    def __init__(self, groups: Callable[[Grouped], Any], frozen: bool = True) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 3).requires_grad_(not frozen), nn.Linear(3, 1)
        self.groups = groups

    def parameter_groups(self) -> Any:
        return self.groups(self)


def groups_of(player: Any) -> list[tuple[float, list[Tensor]]]:
    return [(group["lr"], group["params"]) for group in player.optimizer.param_groups]


def test_groups_of_a_networks_own_are_kept_without_frozen_parameters_and_without_empty_groups() -> None:
    def groups(network: Grouped) -> list[dict[str, Any]]:
        slow = {"params": [*network.first.parameters(), network.second.bias], "lr": 0.5}
        return [slow, {"params": network.first.weight, "lr": 0.3}, {"params": network.second.weight}]

    network = Grouped(groups)
    settings = PlayerConfig(learning_rate=0.1)
    expected = [(0.5, [network.second.bias]), (0.1, [network.second.weight])]
    for (rate, parameters), (known, listed) in zip(groups_of(make_player("x", network, settings, CPU)), expected, strict=True):
        assert rate == known and [id(each) for each in parameters] == [id(each) for each in listed]
    plain = Grouped(lambda network: network.parameters())
    (group,) = groups_of(make_player("x", plain, settings, CPU))
    assert [id(each) for each in group[1]] == [id(plain.second.weight), id(plain.second.bias)]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            lambda network: None,
            r"Grouped.parameter_groups \(.*:\d+\) returned None, expected parameters, or tables",
        ),
        (lambda network: [1.0], r"gave groups that the optimizer refuses: optimizer can only optimize Tensors.*float"),
        (lambda network: [{"lr": 0.1}], "returned list, expected parameters, or tables with params, as for torch.optim"),
        (lambda network: network.first.parameters(), r"Grouped \(.*:\d+\) has no parameter that trains, expected at least one"),
        (lambda network: [{"params": [network.second.bias]}] * 2, "gave groups that the optimizer refuses: .*more than one"),
    ],
)
def test_groups_that_no_optimizer_takes_are_refused(groups: Callable[[Grouped], Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        make_player("discriminator", Grouped(groups), PlayerConfig(), CPU)


PHASES = "phases=[{kind='critic', share=0.5}, {kind='likelihood', share=0.5}]"
LIKELY = """
    def likelihood(self, generator, batch):
        return generator.layers(torch.ones(len(batch), 3)).sub(batch.values).square().sum(1)

    def enter_phase(self, kind, generator, discriminator):
        {}

    def judge(self, corpus, cache):
"""


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("generator.layers[0].requires_grad_(False)", "layers.0.weight of the generator"),
        ("discriminator.layers[2] = nn.Linear(8, 1)", "layers.2.weight of the discriminator"),
        ("generator.layers[0].weight.data.zero_()", ""),
    ],
)
def test_a_phase_may_change_weights_but_not_which_parameters_train(change: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "phased.py"
    path.write_text(changed(("\n    def judge(self, corpus, cache):\n", LIKELY.format(change))))
    given: dict[str, Any] = {"steps": 2, "device": "cpu", "progress": False, "overrides": [PHASES]}
    if not what:
        assert advgen.train(str(path), out=tmp_path / "run", **given).step == 2
        return
    expected = rf"enter_phase replaced, froze or unfroze {re.escape(what)}, Dots\w+ \(phased.py:\d+\), expected values"
    with pytest.raises(ContractError, match=expected):
        advgen.train(str(path), out=tmp_path / "run", **given)
