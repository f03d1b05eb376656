"""The image benchmarks: their data, their arithmetic, and the whole path on a handful of digits."""

from __future__ import annotations

import gzip
import importlib
import json
import math
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from advgen import ArraySource, Corpus, DataError, DataRequest
from advgen.updates.discriminator import discriminator_costs
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality

TINY = ["options.width=4", "options.noise_size=8", "train.batch_size=8", "train.log_every=1"]


@pytest.fixture
def benchmarks(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``import`` as from a script of the folder."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("plugins", "trained", "stacked_mnist", "limited_data", "image_speed", "image_loops", "step"):
            del sys.modules[name]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """300 training and 60 test digits, each a flat grey of its class, in MNIST's files."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for name, num in (("train", 300), ("t10k", 60)):
        labels = np.arange(num, dtype=np.uint8) % 10
        pixels = np.broadcast_to((labels * 25)[:, None, None], (num, 28, 28))
        for kind, axes, array in (("images", 3, pixels), ("labels", 1, labels)):
            header = bytes([0, 0, 8, axes]) + struct.pack(f">{axes}I", *array.shape)
            with gzip.open(folder / f"{name}-{kind}-idx{axes}-ubyte.gz", "wb") as stream:
                stream.write(header + array.tobytes())
    return folder


# StackedMNIST


def test_three_digits_lie_in_the_channels_and_the_mode_is_their_number(benchmarks: Any, digits: Path) -> None:
    plugin = benchmarks("plugins.stacked_mnist")
    corpus = plugin.StackedModality.read(plugin.StackedConfig(num_stacked=50), DataRequest(digits))
    train = corpus.splits["train"]
    assert [len(corpus.splits[name]) for name in ("train", "validation", "test")] == [50, 2000, 26000]
    values = train.batch(torch.arange(50), torch.Generator()).values
    assert values.shape == (50, 3, 28, 28) and values.dtype == torch.uint8
    classes = values[:, :, 0, 0].long() // 25
    assert torch.equal(classes[:, 0] * 100 + classes[:, 1] * 10 + classes[:, 2], train.modes())
    assert len(train.triples.unique()) > 90, "digits of both parts are used"


def test_what_is_held_out_does_not_depend_on_how_much_is_trained_on(benchmarks: Any, digits: Path) -> None:
    plugin = benchmarks("plugins.stacked_mnist")
    read = [plugin.StackedModality.read(plugin.StackedConfig(num_stacked=num), DataRequest(digits)) for num in (5, 50)]
    assert torch.equal(read[0].splits["test"].triples, read[1].splits["test"].triples)
    assert read[0].fingerprint != read[1].fingerprint


def test_modes_and_kl_by_hand(benchmarks: Any) -> None:
    module = benchmarks("stacked_mnist")
    even = module.score("even", torch.arange(1000).repeat(3))
    assert (even.modes, even.num_images) == (1000, 3000) and even.kl == pytest.approx(0.0, abs=1e-12)
    assert module.score("one", torch.full((50,), 7)).kl == pytest.approx(math.log(1000))
    half = module.score("half", torch.arange(500))
    assert half.modes == 500 and half.kl == pytest.approx(math.log(2))
    assert module.floor(26_000) == pytest.approx(0.0192, abs=5e-5)


def test_the_floor_is_what_even_random_modes_score(benchmarks: Any) -> None:
    module = benchmarks("stacked_mnist")
    random = torch.Generator().manual_seed(0)
    values = [module.score("", torch.randint(1000, (26_000,), generator=random)).kl for _ in range(20)]
    assert sum(values) / 20 == pytest.approx(module.floor(26_000), rel=0.05)


def test_stacked_mnist_trains_scores_and_goes_on_where_it_was(
    benchmarks: Any, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = benchmarks("stacked_mnist")
    monkeypatch.setattr(module, "NUM_JUDGED", 100)
    monkeypatch.setitem(benchmarks("plugins.stacked_mnist").SIZES, "test", 2000)
    settings = [part for each in [*TINY, "options.num_stacked=40"] for part in ("--set", each)]
    place = ["--data", str(digits), "--out", str(tmp_path / "out"), "--device", "cpu", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["stacked_mnist.py", *place, "--steps", "2", *settings, "--json"])
    module.main()
    first = json.loads(capsys.readouterr().out)
    assert first["runs"][0]["steps"] == 2 and 1 <= first["runs"][0]["modes"] <= 100
    assert [each["name"] for each in first["real"]] == ["real data, same classifier", "real data, own labels"]
    assert first["real"][1]["modes"] > 800 and first["real"][1]["kl"] == pytest.approx(module.floor(2000), rel=0.3)
    module.main()
    assert json.loads(capsys.readouterr().out)["runs"] == first["runs"]
    run = ["--run", str(tmp_path / "out" / "default-0")]
    monkeypatch.setattr(sys, "argv", ["stacked_mnist.py", *place, *run])
    module.main()
    table = capsys.readouterr().out
    assert "PacDCGAN2" in table and f"{first['runs'][0]['kl']:.4f}" in table


# Limited data


def test_subsets_are_fixed_and_a_smaller_one_lies_in_a_larger(benchmarks: Any) -> None:
    subset = benchmarks("plugins.few_images").subset
    source = ArraySource(torch.arange(90)[:, None], condition={"label": torch.arange(90) % 3})
    corpus = Corpus({"classes": ["a", "b", "c"], "class_counts": [30, 30, 30]}, {"train": source, "test": source}, "f")
    small, large, other = (subset(corpus, keep, seed) for keep, seed in ((10, 0), (40, 0), (10, 1)))
    values = [part.splits["train"].batch(torch.arange(10), torch.Generator()).values for part in (small, large, other)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    assert sum(small.facts["class_counts"]) == 10 and small.splits["test"] is source
    assert len({corpus.fingerprint, small.fingerprint, large.fingerprint, other.fingerprint}) == 4
    with pytest.raises(DataError, match=r"options\.keep=91: the train split holds 90 images"):
        subset(corpus, 91, 0)


def test_limited_data_trains_every_arm_and_prints_them_beside_copies(
    benchmarks: Any, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = benchmarks("limited_data")
    monkeypatch.setattr("advgen_image.judge.STEPS", 10)
    settings = [part for each in TINY if "batch" not in each for part in ("--set", each)]
    plan = ["--keep", "20", "--steps", "2", "--batch", "8", "--upright", "--device", "cpu"]
    place = ["--data", str(digits), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["limited_data.py", *place, *plan, *settings])
    module.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["the", "none", "diffaugment", "ada", "lecam"]
    found = json.loads((tmp_path / "out" / "limited_data.json").read_text())["runs"]
    assert all(each["score_gap"] is not None and each["steps"] == 2 for each in found[1:])
    configs = {arm: (tmp_path / "out" / f"20-{arm}-0" / "config.toml").read_text() for arm in module.ARMS}
    assert 'augment = "ada"' in configs["ada"] and "lecam" in configs["lecam"] and "lecam" not in configs["none"]


def test_a_plan_in_minutes_gives_ada_a_speed_of_its_own(benchmarks: Any) -> None:
    module = benchmarks("limited_data")
    by_steps = module.parse_arguments(["--data", "x", "--steps", "100", "--batch", "10"])
    by_minutes = module.parse_arguments(["--data", "x", "--minutes", "4"])
    assert "options.ada_images=200" in module.overrides_of("ada", by_steps)
    assert f"options.ada_images={module.ADA_IMAGES}" in module.overrides_of("ada", by_minutes)


# Rows of pictures


def test_rows_of_a_picture_become_a_list_of_files_that_the_plugin_reads(tmp_path: Path, root: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    (tmp_path / "rows").mkdir()
    for part in (0, 1):
        Image.fromarray(rows[6 * part : 6 * part + 6]).save(tmp_path / "rows" / f"batch_{part}.png")
    np.save(tmp_path / "rows" / "labels.npy", np.arange(12, dtype=np.uint8) % 3)
    script = str(root / "examples" / "unpack_rows.py")
    command = [sys.executable, script, str(tmp_path / "rows"), str(tmp_path / "out"), "--test", "4"]
    assert "12 images of 4x4, 4 held out" in subprocess.run(command, check=True, capture_output=True, text=True).stdout
    corpus = ImageModality.read(ImageConfig(), DataRequest(tmp_path / "out" / "photos.csv", validation_share=0.2))
    assert len(corpus.splits["test"]) == 4 and corpus.facts["classes"] == ["0", "1", "2"]
    held_out = corpus.splits["test"].batch(torch.arange(4), torch.Generator())
    places = [
        int((rows.reshape(12, 4, 4, 3) == image).all((1, 2, 3)).argmax()) for image in held_out.values.movedim(1, -1).numpy()
    ]
    assert [place % 3 for place in places] == held_out.condition["label"].tolist()


# Speed


@pytest.mark.parametrize("preset", ["default", "classic", "r3-small", "resnet-small", "stylegan2-small"])
def test_the_plain_loop_of_each_family_trains_both_players(preset: str, benchmarks: Any, tmp_path: Path) -> None:
    module, loops = benchmarks("image_speed"), benchmarks("image_loops")
    small = ["--set", "options.width=8"]
    arguments = module.parse(["pairs", "--pairs", "1", "--steps", "1", "--batch", "8", *small])
    data = module.make_images(tmp_path, 16, 80)
    loop = loops.PlainLoop(module.prepared(preset, 16, arguments, data))
    before = [[each.detach().clone() for each in network.parameters()] for network in (loop.generator, loop.critic)]
    loop(), loop()  # blocks that start as the identity move from the second on
    for old, network in zip(before, (loop.generator, loop.critic), strict=True):
        moved = [not torch.equal(one, other) for one, other in zip(old, network.parameters(), strict=True)]
        assert sum(moved) > len(moved) / 2 and all(each.isfinite().all() for each in network.parameters())


def test_the_plain_loop_pays_the_costs_that_advgen_pays(benchmarks: Any, tmp_path: Path) -> None:
    module, loops = benchmarks("image_speed"), benchmarks("image_loops")
    plain = ["--set", "options.width=8", "--set", "discriminator.mismatch=0.0"]
    arguments = module.parse(["pairs", "--batch", "8", *plain])
    setup = module.prepared("default", 16, arguments, module.make_images(tmp_path, 16, 80))
    loop, (chunk,), paid = loops.PlainLoop(setup), setup.draw("discriminator", 0), list[float]()
    costs, _ = discriminator_costs(setup.players, setup.objective, chunk, 0, 0.0)
    loop.batch = lambda: chunk.real
    loop.draw = lambda real: setup.players.generates(chunk.noise, chunk.real.condition).values
    loop.learn = lambda which, cost: paid.append(float(cost.detach()))
    loop.critic_step()
    assert paid == [pytest.approx(float(sum(costs.values()).detach()), rel=1e-5)]


def test_turns_are_whole_cycles_of_lazy_penalties(benchmarks: Any, tmp_path: Path) -> None:
    module = benchmarks("image_speed")
    arguments = module.parse(["sizes", "--batch", "8", "--set", "options.width=8"])
    data = module.make_images(tmp_path, 16, 80)
    setups = {preset: module.prepared(preset, 16, arguments, data) for preset in ("default", "stylegan2-small")}
    assert {preset: module.turn(setup, 4) for preset, setup in setups.items()} == {"default": 4, "stylegan2-small": 16}
