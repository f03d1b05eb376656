"""Recorded updates: a replay does what the update would have done, though Python is not asked again."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from advgen.config.load import load_config
from advgen.recording import Recorder, recorder
from advgen.recording.graphs import CudaGraphs
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.step import critic_step, likelihood_step, train_step
from advgen.world import World
from advgen_audio.networks import critics
from advgen_text.generators import base, drawing

sys.path.insert(0, str(Path(__file__).parent))
from conftest import TINY

CPU = torch.device("cpu")
STEPS = {"adversarial": train_step, "likelihood": likelihood_step, "critic": critic_step}


class Traced:
    """Records tensor operations alone, with every number of Python's as it was: as blind as a GPU's graph.

    Recording runs the work, which a GPU's graph does not, so what it has moved in networks and chance is put back.
    """

    def __init__(self, *networks: torch.nn.Module) -> None:
        self.networks, self.kept, self.replays = networks, list[list[Tensor]](), 0

    def record(self, work: Callable[[], list[Tensor]]) -> Callable[[], None]:
        kept: list[Tensor] = []

        def once() -> list[Tensor]:
            kept[:] = work()
            return list(kept)

        before = [{name: value.clone() for name, value in each.state_dict().items()} for each in self.networks]
        with torch.random.fork_rng(devices=[]):
            graph = make_fx(once)()
        for network, values in zip(self.networks, before, strict=True):
            network.load_state_dict(values)
        self.kept.append(kept)

        def replay() -> None:
            self.replays += 1
            for others in self.kept:
                spoil(others if others is not kept else [])
            with torch.no_grad():
                for own, new in zip(kept, graph(), strict=True):
                    own.copy_(new)

        return replay

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        yield


def spoil(tensors: list[Tensor]) -> None:
    """Recordings share their memory, so a replay may write over what another has left."""
    for each in tensors:
        if each.is_floating_point() and not each.requires_grad:
            each.fill_(torch.nan)


@contextlib.contextmanager
def without_mkldnn() -> Iterator[None]:
    """Its recurrent layers cannot be traced."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def device_shuffle(hidden: Tensor, largest: int) -> Tensor:
    """Phase shuffle as on a GPU."""
    largest = min(largest, hidden.shape[-1] - 1)
    return critics.shifted(hidden, torch.randint(-largest, largest + 1, ())) if largest > 0 else hidden


def setup_of(plugin: str, preset: str, overrides: list[str]) -> Setup:
    record = find_plugin(plugin)
    config = load_config(record, preset=preset, overrides=overrides, cli={"train.steps": 1000}).config
    return build(record, config, World(0, 1, CPU))


def weights(setup: Setup) -> dict[str, Tensor]:
    players = setup.players
    named = {"generator": players.generator.network, "discriminator": players.discriminator.network}
    found = {f"{name}.{key}": value for name, network in named.items() for key, value in network.state_dict().items()}
    return found | {f"state.{key}": value for key, value in players.state.items()}


@pytest.mark.parametrize(
    ("plugin", "preset", "more"),
    [
        ("image", "default", []),
        pytest.param("image", "default", ["options.augment=ada", "schedules.burn_in.until=0.5"], marks=pytest.mark.slow),
        ("image", "default", ["penalties.lecam.weight=0.1", "penalties.r1.interval=2"]),
        ("image", "default", ["penalties={dragan={weight=1}}"]),
        ("image", "default", ["train.accumulate=2", "discriminator.steps=2"]),
        ("image", "classic", []),
        pytest.param(
            "image", "stylegan2-small", ["penalties.r1.interval=2", "penalties.path_length.interval=2"], marks=pytest.mark.slow
        ),
        ("text", "default", []),
        pytest.param("text", "cot", [], marks=pytest.mark.slow),
        pytest.param(
            "text",
            "default",
            ["estimator={name='ppo', entropy_floor=2.0, entropy_weight=0.01, real_share=0.3}"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "text", "default", ["schedules={'estimator.temperature'={kind='linear',start=1.5,end=0.5}}"], marks=pytest.mark.slow
        ),
        ("image", "default", ["penalties.r1={weight=0.7,interval=3}", "schedules={'penalties.r1.weight'={kind='linear'}}"]),
        ("audio", "default", []),
    ],
)
def test_replayed_updates_leave_the_weights_that_plain_updates_leave(
    plugin: str, preset: str, more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU: networks draw from the device's numbers, and shapes do not depend on samples.
    monkeypatch.setattr(recorder, "host_randomness", lambda: ())
    for module in (drawing, base):
        monkeypatch.setattr(module, "keeps_shapes", lambda tensor: True)
    monkeypatch.setattr(critics, "shuffle_phase", device_shuffle)
    given = [*TINY[plugin], "train.batch_size=4", *more]
    plain, recorded = (setup_of(plugin, preset, given) for _ in range(2))
    players = recorded.players
    backend = Traced(players.generator.network, players.discriminator.network)
    recorded.players.recorder = Recorder(backend)
    kinds = [phase.kind for phase in plain.config.phases]
    interval = max((each.interval for each in plain.config.penalties.values()), default=1)
    for step in range(max(6 + 2 * len(kinds) - 1, 3 * interval + 1)):
        kind = kinds[step % len(kinds)]
        with without_mkldnn():
            logs = [STEPS[kind](each.players, each.objective, each.draw, step, step / 10) for each in (plain, recorded)]
        assert logs[0].keys() == logs[1].keys()
        for name, value in logs[0].items():
            torch.testing.assert_close(
                value.double(), logs[1][name].double(), msg=lambda text, at=(name, step): f"{at}: {text}"
            )
    one, other = weights(plain), weights(recorded)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert len(backend.kept) >= 2 and backend.replays >= 4 and not recorded.players.recorder.refusals


def test_a_shift_on_the_device_is_the_slice_of_a_reflected_pad() -> None:
    hidden = torch.arange(12.0).view(1, 2, 6)
    for shift in range(-3, 4):
        padded = torch.nn.functional.pad(hidden, (3, 3), mode="reflect")[..., 3 + shift : 9 + shift]
        assert torch.equal(critics.shifted(hidden, torch.tensor(shift)), padded)


def test_an_update_that_cannot_be_recorded_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [*TINY["image"], "train.batch_size=4"]
    plain, other = (setup_of("image", "default", given) for _ in range(2))
    backend = Traced(other.players.generator.network, other.players.discriminator.network)
    monkeypatch.setattr(backend, "record", lambda work: work() and fail("CUDA error: operation not permitted\nwhen capturing"))
    other.players.recorder = Recorder(backend)
    for step in range(4):
        for each in (plain, other):
            train_step(each.players, each.objective, each.draw, step, 0.0)
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(plain).items())
    refused = "CUDA error: operation not permitted"
    assert other.players.recorder.refusals == {"generator": refused, "discriminator": refused}


@pytest.mark.parametrize(("plugin", "preset"), [("text", "default"), ("image", "classic"), ("image", "resnet-small")])
def test_an_update_that_waits_for_the_device_is_run_again_and_never_recorded(
    plugin: str, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [*TINY[plugin], "train.batch_size=4"]
    plain, other = (setup_of(plugin, preset, given) for _ in range(2))
    backend = Traced(other.players.generator.network, other.players.discriminator.network)

    @contextlib.contextmanager
    def waits() -> Iterator[None]:
        yield
        fail("called a synchronizing CUDA operation")

    monkeypatch.setattr(backend, "watched", waits)
    other.players.recorder = Recorder(backend)
    for step in range(4):
        for each in (plain, other):
            train_step(each.players, each.objective, each.draw, step, 0.0)
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(plain).items())
    assert not backend.kept and set(other.players.recorder.refusals.values()) == {"it waits for the device"}


def test_an_update_whose_networks_draw_on_the_cpu_is_never_recorded() -> None:
    setup = setup_of("audio", "default", [*TINY["audio"], "train.batch_size=4"])
    backend = Traced(setup.players.generator.network, setup.players.discriminator.network)
    setup.players.recorder = Recorder(backend)
    for step in range(4):
        train_step(setup.players, setup.objective, setup.draw, step, 0.0)
    refused = "random numbers are drawn on the CPU"
    assert not backend.kept and setup.players.recorder.refusals == {"discriminator": refused, "generator": refused}


def test_other_errors_of_an_update_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    setup = setup_of("image", "default", [*TINY["image"], "train.batch_size=4"])
    setup.players.recorder = Recorder(Traced())
    train_step(setup.players, setup.objective, setup.draw, 0, 0.0)
    monkeypatch.setattr(setup.players.judges, "forward", lambda *given: fail("out of memory"))
    with pytest.raises(RuntimeError, match="out of memory"):
        train_step(setup.players, setup.objective, setup.draw, 1, 0.0)


def fail(text: str) -> None:
    raise RuntimeError(text)


def test_what_other_parts_of_a_run_remember_does_not_disturb_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "host_randomness", lambda: ())
    given = [*TINY["image"], "train.batch_size=4", "penalties.lecam.weight=0.1"]
    plain, other = (setup_of("image", "default", given) for _ in range(2))
    backend = Traced(other.players.generator.network, other.players.discriminator.network)
    other.players.recorder = Recorder(backend)
    for step in range(6):
        for each in (plain, other):
            if step > 1:
                each.players.state["overfitting.seen"] = torch.ones(step, 4)
            train_step(each.players, each.objective, each.draw, step, 0.0)
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(plain).items())
    assert len(backend.kept) == 2


def test_a_new_phase_begins_without_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "host_randomness", lambda: ())
    setup = setup_of("image", "default", [*TINY["image"], "train.batch_size=4"])
    backend = Traced(setup.players.generator.network, setup.players.discriminator.network)
    setup.players.recorder = Recorder(backend)
    for step in range(8):
        if step == 4:
            setup.players.recorder.forget()
        train_step(setup.players, setup.objective, setup.draw, step, 0.0)
    assert len(backend.kept) == 4


def test_the_watch_for_waits_warns_of_nothing_and_is_taken_off_again(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = [0]

    def change(mode: int | str) -> None:
        modes.append(mode)
        if mode == "error":
            warnings.warn("a prototype feature", UserWarning, stacklevel=1)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", change)
    with pytest.raises(RuntimeError, match="synchronizing"), CudaGraphs().watched():
        fail("called a synchronizing CUDA operation")
    assert modes == [0, "error", 0]
