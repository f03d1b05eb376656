"""What a published HiFi-GAN checkpoint keeps for its training: critics and optimizers, against networks of that layout."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import spectral_norm, weight_norm

from advgen import Sample, read_pickled
from advgen.cli import main
from advgen.importing import ImportResult, import_run
from advgen_audio import discriminators
from advgen_audio.discriminators import CriticSet, MultiPeriodCritic, MultiScaleCritic
from advgen_audio.vocoders import Hifigan, HifiganShape
from advgen_audio.vocoding import critics_import
from advgen_audio.vocoding.critics_import import Training
from advgen_audio.vocoding.published import published_name

WIDTH = 8
CONFIG: dict[str, Any] = {
    "resblock": "2",
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5, 7],
    "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
    "num_mels": 80,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
}


class Layers(nn.Module):
    """Convolutions, then one to a score, with leaky slopes between them, under the norms that were current in 2020."""

    def __init__(self, convs: list[nn.Module], last: nn.Module, norm: Any) -> None:
        super().__init__()
        self.convs, self.conv_post = nn.ModuleList(norm(layer) for layer in convs), norm(last)

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.convs:
            hidden = F.leaky_relu(layer(hidden), 0.1)
        return self.conv_post(hidden).flatten(1)


class Critics(nn.Module):
    def __init__(self, parts: list[Layers]) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(parts)


def period_layers() -> Layers:
    widths = [1, WIDTH, 4 * WIDTH, 16 * WIDTH, 32 * WIDTH, 32 * WIDTH]
    strides = [3, 3, 3, 3, 1]
    convs = [nn.Conv2d(a, b, (5, 1), (s, 1), (2, 0)) for (a, b), s in zip(itertools.pairwise(widths), strides, strict=True)]
    return Layers(convs, nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)), weight_norm)


def scale_layers(norm: Any) -> Layers:
    table = [(0, 1, 15, 1, 1), (1, 1, 41, 2, 4), (1, 2, 41, 2, 8), (2, 4, 41, 4, 16), (4, 8, 41, 4, 16)]
    table += [(8, 8, 41, 1, 16), (8, 8, 5, 1, 1)]
    convs = [nn.Conv1d(a * WIDTH or 1, b * WIDTH, k, s, k // 2, groups=g) for a, b, k, s, g in table]
    return Layers(convs, nn.Conv1d(8 * WIDTH, 1, 3, padding=1), norm)


def published_critics() -> tuple[Critics, Critics]:
    """Periods and scales, the first scale under spectral norm."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer norms name their tensors otherwise
        periods = Critics([period_layers() for _ in range(5)])
        scales = Critics([scale_layers(spectral_norm), scale_layers(weight_norm), scale_layers(weight_norm)])
    return periods, scales


def scores(periods: Critics, scales: Critics, waveform: Tensor) -> list[Tensor]:
    """Of waveforms (B, 1, T) as published."""
    found = []
    for part, period in zip(periods.discriminators, (2, 3, 5, 7, 11), strict=True):
        short = -waveform.shape[-1] % period
        whole = F.pad(waveform, (0, short), mode="reflect") if short else waveform
        found.append(part(whole.view(len(whole), 1, -1, period)))
    for place, part in enumerate(scales.discriminators):
        waveform = F.avg_pool1d(waveform, 4, 2, padding=2) if place else waveform
        found.append(part(waveform))
    return found


def adam_after_a_step(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(parameters, 1.5e-5, betas=(0.8, 0.99))
    for index, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 1.0 + index)
    optimizer.step()
    return optimizer


def generator_tensors() -> dict[str, Tensor]:
    """A generator's state in its published order: first layer, upsampling, blocks, last layer; bias, length, direction."""
    channels, rng, layers = CONFIG["upsample_initial_channel"], torch.Generator().manual_seed(3), list[tuple[str, Any]]()
    layers.append(("conv_pre", (channels, 80, 7)))
    for stage, kernel in enumerate(CONFIG["upsample_kernel_sizes"]):
        layers.append((f"ups.{stage}", (channels >> stage, channels >> stage + 1, kernel)))
    for stage, (place, size) in itertools.product(range(3), enumerate(CONFIG["resblock_kernel_sizes"])):
        width = channels >> stage + 1
        layers += [(f"resblocks.{3 * stage + place}.convs.{index}", (width, width, size)) for index in range(2)]
    layers.append(("conv_post", (1, channels >> 3, 7)))
    state = {}
    for name, shape in layers:
        state[f"{name}.bias"] = torch.zeros(shape[1] if name.startswith("ups") else shape[0])
        state[f"{name}.weight_g"] = torch.rand(shape[0], 1, 1, generator=rng)
        state[f"{name}.weight_v"] = torch.randn(shape, generator=rng)
    return state


def by_address(state: dict[str, Any]) -> dict[str, Any]:
    """An optimizer's state as torch 1.4 filed it: by numbers that mean nothing, which the group lists in order."""
    keys = [140_000_000_000_000 + 8 * index for index in state["state"]]
    counted = {key: {**entry, "step": int(entry["step"])} for key, entry in zip(keys, state["state"].values(), strict=True)}
    return {"state": counted, "param_groups": [{**state["param_groups"][0], "params": keys}]}


def gen(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """The set of critics, a quarter and a sixteenth as wide as published: the wide one's file has 850 MB."""

    def critics() -> CriticSet:
        return CriticSet({"period": MultiPeriodCritic(WIDTH), "scale": MultiScaleCritic(WIDTH)})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(discriminators, "hifigan_critics", critics)
        yield


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as published: the generator, and beside it what its training left, as an old torch wrote it."""
    folder = tmp_path_factory.mktemp("theirs")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    state = generator_tensors()
    torch.save({"generator": state}, folder / "g_00000001")
    periods, scales = published_critics()
    on_generator = adam_after_a_step([nn.Parameter(tensor.clone()) for tensor in state.values()])
    on_critics = adam_after_a_step(list(itertools.chain(scales.parameters(), periods.parameters())))
    left = {"mpd": periods.state_dict(), "msd": scales.state_dict(), "steps": 1, "epoch": 0}
    left |= {"optim_g": by_address(on_generator.state_dict()), "optim_d": by_address(on_critics.state_dict())}
    torch.save(left, folder / "do_00000001")
    return folder


@pytest.fixture(scope="module")
def imported(theirs: Path, tmp_path_factory: pytest.TempPathFactory) -> ImportResult:
    return import_run("hifigan", theirs, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def found(theirs: Path) -> dict[str, Tensor]:
    return read_pickled(theirs / "do_00000001", numbers=True)


def parts(result: ImportResult) -> dict[str, dict[str, Tensor]]:
    return {file.stem: load_file(file) for file in (result.run / "checkpoints" / "step-00000000").glob("*.safetensors")}


def take(found: dict[str, Tensor], theirs: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    """What is taken where the file holds this."""
    monkeypatch.setattr(critics_import, "read_pickled", lambda file, numbers: found)
    shape = HifiganShape(80, 256, 16, 3, (8, 8, 4), False, (3, 5, 7), ((1, 2), (2, 6), (3, 12)))
    return critics_import.read_training(theirs / "g_00000001", Hifigan(shape), discriminators.hifigan_critics())


def test_imported_critics_score_as_the_published_ones(imported: ImportResult) -> None:
    critics = discriminators.hifigan_critics().eval()
    critics.load_state_dict(parts(imported)["discriminator"])
    periods, scales = published_critics()
    adam_after_a_step(list(itertools.chain(scales.parameters(), periods.parameters())))
    waveform = torch.randn(2, 1, 1000, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = [head.scores.flatten(1) for head in critics(critics.embed(Sample(waveform)), {}).heads]
        expected = scores(periods.eval(), scales.eval(), waveform)
    for one, other in zip(made, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_moments_lie_at_their_parameters(imported: ImportResult) -> None:
    periods, scales = published_critics()
    # The published gradient of the parameter numbered i was 1 + i; its first moment is 0.2 of that.
    number = {id(parameter): i for i, parameter in enumerate(itertools.chain(scales.parameters(), periods.parameters()))}
    named = [(f"critics.period.{name}", each) for name, each in periods.named_parameters()]
    named += [(f"critics.scale.{name}", each) for name, each in scales.named_parameters()]
    published = {name: number[id(parameter)] for name, parameter in named}
    state = parts(imported)["discriminator_optimizer"]
    for index, (name, _) in enumerate(discriminators.hifigan_critics().named_parameters()):
        moment = state[f"{index}.exp_avg"]
        torch.testing.assert_close(moment, torch.full_like(moment, 0.2 * (1 + published[published_name(name)])))
        assert float(state[f"{index}.step"]) == 1
    for index, tensor in enumerate(generator_tensors().values()):
        moment = parts(imported)["generator_optimizer"][f"{index}.exp_avg"]
        torch.testing.assert_close(moment, torch.full_like(tensor, 0.2 * (1 + index)))


def test_the_import_says_what_it_took_and_left(imported: ImportResult) -> None:
    said = "\n".join(imported.notes)
    assert "do_00000001: took both critics (" in said and "the generator's optimizer, the discriminator's optimizer" in said
    assert "after 1 steps; left: its place in schedule and data" in said
    assert "--set generator.learning_rate=1.5e-05 --set discriminator.learning_rate=1.5e-05" in said


def test_training_on_takes_critics_and_optimizers_along(
    imported: ImportResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data := tmp_path / "data").mkdir()
    for number in range(40):
        noise = 0.3 * np.random.default_rng(number).standard_normal(2048)
        soundfile.write(data / f"{number}.wav", noise.astype(np.float32), 22050)
    plan = ["--config", imported.run / "config.toml", "--data", data, "--from", imported.run, "--steps", 1]
    plan += ["--set", "train.batch_size=2", "--options.segment", 1024, "--device", "cpu"]
    assert gen("train", *plan, "--out", tmp_path / "more") == 0, capsys.readouterr().err
    said = capsys.readouterr().err
    assert "left 0" in said.split("discriminator took")[1].splitlines()[0]
    assert "generator's optimizer goes on" in said and "discriminator's optimizer goes on" in said
    step = load_file(tmp_path / "more" / "checkpoints" / "step-00000001" / "discriminator_optimizer.safetensors")["0.step"]
    assert float(step) == 2
    assert gen("train", *plan, "--out", tmp_path / "other", "--set", "generator.optimizer=adam") == 0
    said = capsys.readouterr().err
    assert "generator's optimizer starts anew" in said and "discriminator's optimizer goes on" in said


def test_critics_of_another_layout_are_left_with_the_reason(
    found: dict[str, Tensor], theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = {name: each for name, each in found.items() if name != "msd/discriminators.1.convs.0.weight_g"}
    taken = take(lacking, theirs, monkeypatch)
    assert not taken.discriminator and set(taken.optimizers) == {"generator"}
    assert "msd does not fit the published critics: missing: discriminators.1.convs.0.weight_g" in taken.notes[0]
    assert "critics left" in taken.notes[0]


def test_an_optimizer_of_other_parameters_is_left(
    found: dict[str, Tensor], theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (f"optim_g/param_groups/0/params/{index}" for index in (0, 1))
    swapped = {**found, first: found[second], second: found[first]}
    more = sum(name.startswith("optim_d/param_groups/0/params/") for name in found)
    swapped[f"optim_d/param_groups/0/params/{more}"] = torch.tensor(7)
    taken = take(swapped, theirs, monkeypatch)
    assert taken.discriminator and not taken.optimizers
    assert "optim_g left" in taken.notes[0] and "more parameters than the network" in taken.notes[1]


def test_a_generator_alone_is_imported_and_a_broken_file_beside_it_refused(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(theirs, tmp_path / "theirs")
    (tmp_path / "theirs" / "do_00000001").write_bytes(b"half a download")
    assert gen("import", "hifigan", tmp_path / "theirs", "--out", tmp_path / "run") != 0
    said = capsys.readouterr().err
    assert "do_00000001 is not a checkpoint that torch can read" in said and "move it away" in said
    (tmp_path / "theirs" / "do_00000001").unlink()
    assert gen("import", "hifigan", tmp_path / "theirs", "--out", tmp_path / "run") == 0
    assert "no do_00000001 beside it" in capsys.readouterr().out
    assert {file.stem for file in (tmp_path / "run" / "checkpoints").rglob("*.safetensors")} == {"generator"}


class Runs:
    """A pickle of this runs a command where it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_code_beside_a_generator_is_not_run(theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(theirs, folder := tmp_path / "theirs")
    torch.save({"mpd": Runs(f"touch {tmp_path}/ran")}, folder / "do_00000001")
    assert gen("import", "hifigan", folder, "--out", tmp_path / "run") != 0
    assert "holds code" in capsys.readouterr().err and not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()
