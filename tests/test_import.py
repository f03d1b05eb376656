"""Published HiFi-GAN checkpoints as runs: against an independent reading of the published network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor

from advgen import load_generator
from advgen.cli import main

CONFIG: dict[str, Any] = {
    "resblock": "1",
    "upsample_rates": [8, 8, 2, 2],
    "upsample_kernel_sizes": [16, 16, 4, 4],
    "upsample_initial_channel": 32,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "segment_size": 8192,
    "num_mels": 80,
    "num_freq": 1025,
    "n_fft": 1024,
    "hop_size": 256,
    "win_size": 1024,
    "sampling_rate": 22050,
    "fmin": 0,
    "fmax": 8000,
    "fmax_for_loss": None,
}
THIRD = CONFIG | {
    "resblock": "2",
    "upsample_rates": [8, 8, 4],
    "upsample_kernel_sizes": [16, 16, 8],
    "resblock_kernel_sizes": [3, 5, 7],
    "resblock_dilation_sizes": [[1, 2], [2, 6], [3, 12]],
}
# Another rate, hop, window and band limit, and strides that are not the derived ones.
OTHER = CONFIG | {
    "upsample_rates": [4, 4, 4, 2],
    "upsample_kernel_sizes": [8, 8, 8, 4],
    "hop_size": 128,
    "win_size": 400,
    "n_fft": 512,
    "num_mels": 40,
    "sampling_rate": 16000,
    "fmin": 50,
    "fmax": 7600,
}


CONFIGS = {"first": CONFIG, "third": THIRD, "other": OTHER}


def layers(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Name, shape of weight_v, and size of the bias of every layer in the published layout."""
    channels = config["upsample_initial_channel"]
    yield "conv_pre", (channels, config["num_mels"], 7), channels
    for stage, kernel in enumerate(config["upsample_kernel_sizes"]):
        yield f"ups.{stage}", (channels, channels // 2, kernel), channels // 2
        channels //= 2
        for place, (size, dilations) in enumerate(
            zip(config["resblock_kernel_sizes"], config["resblock_dilation_sizes"], strict=True)
        ):
            block = f"resblocks.{stage * len(config['resblock_kernel_sizes']) + place}"
            names = ("convs1", "convs2") if config["resblock"] == "1" else ("convs",)
            for name in names:
                for index in range(len(dilations)):
                    yield f"{block}.{name}.{index}", (channels, channels, size), channels
    yield "conv_post", (1, channels, 7), 1


def published_tensors(config: Mapping[str, Any]) -> dict[str, Tensor]:
    """A state of the published layout, loud enough that every layer shows in the output."""
    rng = torch.Generator().manual_seed(3)
    state = {}
    for name, shape, num_bias in layers(config):
        direction = torch.randn(shape, generator=rng)
        inputs = direction.numel() / shape[0]
        state[f"{name}.weight_v"] = direction
        length = direction.norm(dim=(1, 2), keepdim=True)
        state[f"{name}.weight_g"] = length / inputs**0.5 * (0.5 + torch.rand(shape[0], 1, 1, generator=rng))
        state[f"{name}.bias"] = 0.1 * torch.randn(num_bias, generator=rng)
    return state


def reference(config: Mapping[str, Any], state: Mapping[str, Tensor], mel: Tensor) -> Tensor:
    """The published generator as plain functions: mel (1, M, F) -> waveform (1, 1, T)."""

    def weight(name: str) -> Tensor:
        direction = state[f"{name}.weight_v"]
        return state[f"{name}.weight_g"] * direction / direction.flatten(1).norm(dim=1)[:, None, None]

    def convolve(name: str, hidden: Tensor, dilation: int = 1) -> Tensor:
        size = state[f"{name}.weight_v"].shape[-1]
        padding = (size * dilation - dilation) // 2
        return F.conv1d(hidden, weight(name), state[f"{name}.bias"], padding=padding, dilation=dilation)

    def block(name: str, hidden: Tensor, dilations: list[int]) -> Tensor:
        for index, dilation in enumerate(dilations):
            if config["resblock"] == "1":
                inner = convolve(f"{name}.convs1.{index}", F.leaky_relu(hidden, 0.1), dilation)
                inner = convolve(f"{name}.convs2.{index}", F.leaky_relu(inner, 0.1))
            else:
                inner = convolve(f"{name}.convs.{index}", F.leaky_relu(hidden, 0.1), dilation)
            hidden = hidden + inner
        return hidden

    hidden = convolve("conv_pre", mel)
    width = len(config["resblock_kernel_sizes"])
    for stage, (rate, size) in enumerate(zip(config["upsample_rates"], config["upsample_kernel_sizes"], strict=True)):
        hidden = F.leaky_relu(hidden, 0.1)
        bias = state[f"ups.{stage}.bias"]
        hidden = F.conv_transpose1d(hidden, weight(f"ups.{stage}"), bias, stride=rate, padding=(size - rate) // 2)
        parts = [
            block(f"resblocks.{stage * width + place}", hidden, dilations)
            for place, dilations in enumerate(config["resblock_dilation_sizes"])
        ]
        hidden = torch.stack(parts).sum(0) / width
    return torch.tanh(convolve("conv_post", F.leaky_relu(hidden, 0.01)))


def publish(folder: Path, config: Mapping[str, Any] = CONFIG, state: Mapping[str, Tensor] | None = None) -> Path:
    """A checkpoint beside its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = published_tensors(config) if state is None else state
    torch.save({"generator": dict(tensors)}, folder / "g_02500000")
    return folder / "g_02500000"


def gen(*arguments: object) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    code = gen(*arguments)
    said = capsys.readouterr().err
    assert code in (2, 4, 5), said
    assert said.count("\n") == 1, said
    return said


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run imported of each configuration."""
    folder = tmp_path_factory.mktemp("imported")
    for name, config in CONFIGS.items():
        newest = publish(folder / name / "theirs", config)
        (newest.parent / "g_00000100").write_bytes(b"an older one, not to be read")
        assert gen("import", "hifigan", newest.parent, "--out", folder / name / "run") == 0
    return {name: folder / name / "run" for name in CONFIGS}


@pytest.mark.parametrize("name", CONFIGS)
def test_an_imported_generator_gives_the_published_networks_output(name: str, runs: dict[str, Path]) -> None:
    config, loaded = CONFIGS[name], load_generator(runs[name], device="cpu")
    mel = torch.randn(1, config["num_mels"], 23, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = loaded.generator(torch.zeros(1, 0), {"mel": mel}).values
        expected = reference(config, published_tensors(config), mel)
    assert expected.shape == (1, 1, 23 * config["hop_size"]) and float(expected.std()) > 0.01
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_imported_front_end_is_that_of_config_json(name: str, runs: dict[str, Path]) -> None:
    config = CONFIGS[name]
    spec = json.loads((runs[name] / "facts.json").read_text())["mel"]
    names = {"rate_hz": "sampling_rate", "hop": "hop_size", "n_fft": "n_fft", "num_mels": "num_mels"}
    assert {name: spec[name] for name in names} == {name: config[other] for name, other in names.items()}
    assert (spec["fmin_hz"], spec["fmax_hz"], spec["window"] or 1024) == (config["fmin"], config["fmax"], config["win_size"])
    assert (spec["scale"], spec["norm"], spec["floor"], spec["padding"]) == ("slaney", "slaney", 1e-5, "same")


def test_weights_saved_without_weight_norm_give_the_same_output(tmp_path: Path) -> None:
    state = published_tensors(CONFIG)
    plain = {name: tensor for name, tensor in state.items() if name.endswith("bias")}
    for name in [name for name in state if name.endswith("weight_v")]:
        length = state[name].norm(dim=(1, 2), keepdim=True)
        plain[name.removesuffix("_v")] = state[name] / length * state[name.removesuffix("v") + "g"]
    assert gen("import", "hifigan", publish(tmp_path / "theirs", state=plain), "--out", tmp_path / "run") == 0
    mel = torch.randn(1, 80, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        made = load_generator(tmp_path / "run", device="cpu").generator(torch.zeros(1, 0), {"mel": mel}).values
    torch.testing.assert_close(made, reference(CONFIG, state, mel), atol=1e-5, rtol=0)


def test_an_imported_run_copies_files_and_says_what_it_is(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "speech.wav", 0.1 * np.sin(np.arange(3001) / 9), 22050)
    out = ("--device", "cpu", "--out", tmp_path / "copies")
    assert gen("sample", runs["first"], "--from", tmp_path / "speech.wav", *out) == 0
    assert len(soundfile.read(tmp_path / "copies" / "speech.wav")[0]) == 3001
    assert gen("sample", runs["first"], "-n", 2, *out) == 0
    assert gen("runs", "show", runs["first"]) == 0
    assert "imported from hifigan" in capsys.readouterr().out
    about = json.loads((runs["first"] / "run.json").read_text())
    assert about["plugin"] == "audio" and about["imported"]["file"].endswith("theirs/g_02500000")


def test_training_goes_on_from_an_imported_run_and_resuming_it_is_answered_with_how(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data := tmp_path / "data").mkdir()
    for number in range(40):
        noise = 0.3 * np.random.default_rng(number).standard_normal(2048)
        soundfile.write(data / f"{number}.wav", noise.astype(np.float32), 16000)
    said = refused(capsys, "resume", runs["other"], "--device", "cpu")
    assert f"gen train --config {runs['other']}/config.toml --data DATA --from {runs['other']}" in said
    assert "was imported" in refused(capsys, "evaluate", runs["other"], "--device", "cpu")
    words = said.split("train on with: gen ")[1].replace("DATA", str(data)).split()
    small = ["--set", "train.batch_size=2", "--options.segment", "1024", "--options.critics", "small", "--device", "cpu"]
    assert gen(*words, *small, "--steps", 1, "--out", tmp_path / "more") == 0, capsys.readouterr().err
    num = len(list(layers(OTHER))) * 3
    assert f"generator took {num} tensors, left 0" in capsys.readouterr().err


class Runs:
    """A pickle of this runs a command where it is loaded."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


def test_a_pickle_with_code_is_refused_and_the_code_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path / "theirs")
    torch.save({"generator": Runs(f"touch {tmp_path}/ran")}, tmp_path / "theirs" / "g_02500000")
    said = refused(capsys, "import", "hifigan", tmp_path / "theirs", "--out", tmp_path / "run")
    assert "g_02500000 holds code (posix.system)" in said and "not run" in said
    assert not (tmp_path / "ran").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_what_is_no_checkpoint_is_refused_by_name(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    publish(tmp_path / "theirs").write_bytes(content)
    said = refused(capsys, "import", "hifigan", tmp_path / "theirs", "--out", tmp_path / "run")
    assert "g_02500000 is not a checkpoint that torch can read" in said and "weights_only" not in said


def test_a_checkpoint_of_something_else_is_refused_with_what_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"mpd": {"x": torch.zeros(1)}}, publish(tmp_path / "theirs"))
    said = refused(capsys, "import", "hifigan", tmp_path / "theirs", "--out", tmp_path / "run")
    assert "holds mpd; expected a HiFi-GAN generator" in said


def test_tensors_that_do_not_fit_are_named_as_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = published_tensors(CONFIG)
    del state["ups.1.weight_g"]
    state |= {"extra.weight_v": torch.zeros(1), "conv_pre.weight_v": torch.zeros(32, 100, 7)}
    said = refused(capsys, "import", "hifigan", publish(tmp_path / "theirs", state=state), "--out", tmp_path / "run")
    assert "missing: ups.1.weight_g" in said and "not known: extra.weight_v" in said
    assert "conv_pre.weight_v is (32, 100, 7), expected (32, 80, 7)" in said


def test_values_that_are_not_finite_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = published_tensors(CONFIG)
    state["conv_post.bias"] = torch.full((1,), torch.nan)
    said = refused(capsys, "import", "hifigan", publish(tmp_path / "theirs", state=state), "--out", tmp_path / "run")
    assert "not finite: conv_post.bias" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"upsample_rates": [8, 8, 2]}, "upsample_kernel_sizes is [16, 16, 4, 4]; only even rates"),
        ({"upsample_rates": [5, 5, 2, 2], "upsample_kernel_sizes": [10, 10, 4, 4]}, "only even rates"),
        ({"hop_size": 300}, "hop_size is 300; expected the product of upsample_rates, 256"),
        ({"resblock": "3"}, "resblock is '3'; expected '1' or '2'"),
        ({"resblock_kernel_sizes": [3, 3, 3]}, "only (3, 7, 11) is read"),
        ({"num_mels": "many"}, "num_mels is 'many'; expected a whole number above 0"),
        ({"fmax": 90000}, "its mel front end is not possible"),
        ({"fmin": "low"}, "fmin is 'low'; expected a frequency"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    change: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = publish(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(CONFIG | change))
    said = refused(capsys, "import", "hifigan", checkpoint, "--out", tmp_path / "run")
    assert "config.json" in said and message in said


def test_a_missing_config_and_an_unknown_format_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = publish(tmp_path / "theirs")
    (tmp_path / "theirs" / "config.json").unlink()
    assert "config.json is missing" in refused(capsys, "import", "hifigan", checkpoint, "--out", tmp_path / "run")
    assert "did you mean 'hifigan'" in refused(capsys, "import", "hifgan", checkpoint, "--out", tmp_path / "run")
    assert "does not exist" in refused(capsys, "import", "hifigan", tmp_path / "absent", "--out", tmp_path / "run")
    (tmp_path / "none").mkdir()
    assert "no file named like g_" in refused(capsys, "import", "hifigan", tmp_path / "none", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_taken_is_left_alone(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (runs["first"] / "run.json").read_bytes()
    said = refused(capsys, "import", "hifigan", publish(tmp_path / "theirs"), "--out", runs["first"])
    assert "already holds a run" in said and (runs["first"] / "run.json").read_bytes() == before
