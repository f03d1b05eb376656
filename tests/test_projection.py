"""``gen project``: the latent that reproduces a given image."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import advgen
from advgen import Batch, Sample
from advgen.cli import main
from advgen.errors import ConfigError, DataError
from advgen.latent.projecting import Projection, project_run
from advgen.latent.search import Measure, Search, pace, search
from advgen.sampling import load_run, sample_run
from advgen_image.single import read_one

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

STYLED = ["options.family=stylegan2", "options.width=4", "options.doublings=1", "options.noise_size=8", "train.batch_size=8"]
OVERRIDES = {"image": tiny("image"), "styled": STYLED}
QUICK = Search(steps=40, starts=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One run of two steps of each kind, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), dict[str, Path]()

    def run(kind: str) -> Path:
        if kind not in made:
            result = advgen.train("image", out=folder / kind, overrides=OVERRIDES[kind], steps=2, device="cpu", progress=False)
            made[kind] = result.folder
        return made[kind]

    return run


@pytest.fixture(scope="module")
def projected(runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Projection]:
    """A sample of each run, seed 100,000 of the class square, projected into the run again."""
    folder, made = tmp_path_factory.mktemp("projections"), dict[str, Projection]()

    def found(kind: str) -> Projection:
        if kind not in made:
            own = sample_run(runs(kind), seeds=[100_000], label="square", out=folder / f"{kind}-target", device="cpu")
            made[kind] = project_run(runs(kind), own.files[0], QUICK, out=folder / kind, device="cpu")
        return made[kind]

    return found


@pytest.mark.parametrize("kind", ["image", "styled"])
def test_the_latent_of_a_sample_of_the_run_is_found_again(kind: str, runs: Callable[[str], Path]) -> None:
    loaded = load_run(runs(kind), "cpu")
    space = loaded.space()
    own = space.place(100_000, 1)
    torch.manual_seed(0)
    critic = loaded.modality.discriminator().eval().requires_grad_(False)
    found = search(space, Measure(critic, Batch(space.render(own).values)), Search(steps=100, starts=2, label=1))
    assert torch.allclose(found.place.latent, own.latent, atol=0.05) and found.place.condition["label"].tolist() == [1]
    for name in ("features", "values"):
        assert found.distances["found"][name] < 0.05 * found.distances["nearest"][name]
        assert found.distances["nearest"][name] < found.distances["typical"][name]


@pytest.mark.parametrize("kind", ["image", "styled"])
def test_what_is_found_is_nearer_than_any_sample_that_the_search_begins_with(
    kind: str, projected: Callable[[str], Projection]
) -> None:
    total = {name: sum(row.values()) for name, row in projected(kind).distances.items()}
    assert total["found"] < 0.9 * total["nearest"] < 0.9 * total["typical"]


@pytest.mark.parametrize("kind", ["image", "styled"])
def test_the_record_says_how_and_how_near(kind: str, projected: Callable[[str], Projection]) -> None:
    result = projected(kind)
    folder = result.latent.parent
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    assert names == ["latent.safetensors", "progress.png", "projection.json", "projection.png", "target.png"]
    record = json.loads((folder / "projection.json").read_text())
    assert record["distances"] == result.distances and record["class"] == result.label in ("circle", "square", "triangle")
    assert record["search"]["steps"] == 40 and record["step"] == 2 and record["remarks"] == []
    assert record["space"] == ("mapped" if kind == "styled" else "noise")


@pytest.mark.parametrize("kind", ["image", "styled"])
def test_the_found_latent_renders_the_projection_again(
    kind: str, runs: Callable[[str], Path], projected: Callable[[str], Projection], tmp_path: Path
) -> None:
    result = projected(kind)
    again = sample_run(runs(kind), latent=result.latent, out=tmp_path, device="cpu")
    assert again.files[0].read_bytes() == (result.latent.parent / "projection.png").read_bytes()


def test_the_same_search_finds_the_same_latent(runs: Callable[[str], Path], tmp_path: Path) -> None:
    target = sample_run(runs("image"), seeds=[3], out=tmp_path / "target", device="cpu").files[0]
    wanted = Search(steps=4, starts=1)
    results = [project_run(runs("image"), target, wanted, out=tmp_path / name, device="cpu") for name in ("a", "b")]
    latents = [load_file(result.latent)["latent"] for result in results]
    assert torch.equal(*latents)
    other = project_run(runs("image"), target, Search(steps=4, starts=1, seed=1), out=tmp_path / "c", device="cpu")
    assert not torch.equal(load_file(other.latent)["latent"], latents[0])


def test_a_class_that_is_asked_for_is_kept(runs: Callable[[str], Path], tmp_path: Path) -> None:
    target = sample_run(runs("image"), seeds=[3], label=0, out=tmp_path / "target", device="cpu").files[0]
    result = project_run(runs("image"), target, Search(steps=2), label="triangle", out=tmp_path / "out", device="cpu")
    assert result.label == "triangle"


def test_images_of_another_size_or_kind_are_fitted_with_a_remark(runs: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray((np.arange(50 * 40).reshape(50, 40) % 255).astype(np.uint8)).save(path)
    result = project_run(runs("image"), path, Search(steps=1, starts=1), out=tmp_path / "out", device="cpu")
    assert result.remarks == ["scaled and cropped from 50x40 to 32x32", "made colour, it is grey"]
    with Image.open(tmp_path / "out" / "target.png") as target:
        assert target.size == (32, 32) and target.mode == "RGB"


@pytest.mark.parametrize(
    ("mode", "channels", "changes"),
    [
        ("RGB", 4, ["given transparency, it has none"]),
        ("RGBA", 3, ["laid on white, it has transparency"]),
        ("L", 4, ["made colour, it is grey", "given transparency, it has none"]),
        ("RGB", 1, ["made grey, it is colour"]),
        ("RGBA", 4, []),
    ],
)
def test_what_is_changed_of_a_file_is_told_alone(mode: str, channels: int, changes: list[str], tmp_path: Path) -> None:
    Image.new(mode, (8, 8)).save(tmp_path / "x.png")
    assert read_one(tmp_path / "x.png", {"channels": channels, "height": 8, "width": 8, "bits": 8})[1] == changes


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_what_is_no_image_is_named(content: bytes | None, runs: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "odd.png"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"odd.png.*expected an image"):
        project_run(runs("image"), path, QUICK, out=tmp_path / "out", device="cpu")
    with pytest.raises(DataError, match=r"missing.png does not exist"):
        project_run(runs("image"), tmp_path / "missing.png", QUICK, device="cpu")


@pytest.mark.parametrize(
    "wanted", [Search(steps=0), Search(starts=0), Search(starts=65), Search(learning_rate=0.0), Search(value_weight=-1.0)]
)
def test_numbers_that_no_search_has_are_refused(wanted: Search, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--(steps|learning-rate) .*expected"):
        project_run(tmp_path, tmp_path, wanted)


def test_distances_are_relative_to_the_target(runs: Callable[[str], Path]) -> None:
    loaded = load_run(runs("image"), "cpu")
    torch.manual_seed(0)
    critic = loaded.modality.discriminator().eval()
    target = Batch(torch.randn(1, 3, 32, 32))
    measure = Measure(critic, target)
    with torch.no_grad():
        same = measure(Sample(target.values), {})
        nothing = measure(Sample(torch.zeros(1, 3, 32, 32)), {})
        twice = measure(Sample(target.values.repeat(2, 1, 1, 1) * torch.tensor([1.0, 2.0])[:, None, None, None]), {})
    assert same.row(0) == {"features": 0.0, "values": 0.0}
    assert nothing.row(0)["values"] == pytest.approx(1.0)
    assert twice.values.tolist() == pytest.approx([0.0, 1.0]) and twice.features[1] > 0


def test_step_size_rises_then_falls_to_nothing() -> None:
    assert [round(pace(share), 3) for share in (0.0, 0.025, 0.05, 0.5, 0.75, 0.875, 1.0)] == [0, 0.5, 1, 1, 1, 0.5, 0]


def test_the_command_tells_the_distances_and_the_way_back(
    runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = sample_run(runs("image"), seeds=[3], out=tmp_path / "target", device="cpu").files[0]
    place = ["--steps", "2", "--starts", "1", "--out", str(tmp_path / "out"), "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        main(["project", str(runs("image")), str(target), *place])
    told = capsys.readouterr().out
    assert not ended.value.code and "  found    features " in told
    assert all(f"  {tmp_path / 'out' / name}.png\n" in told for name in ("target", "projection", "progress"))
    assert f"again: gen sample {runs('image')} --from-latent {tmp_path / 'out' / 'latent.safetensors'}" in told
