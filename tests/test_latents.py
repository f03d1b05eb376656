"""Between samples: seeds, truncation, grids, interpolation, mixed styles, latents as files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import advgen
from advgen.cli import main
from advgen.cli.seeds import parse_seeds
from advgen.contracts import Generator
from advgen.errors import ConfigError, DataError
from advgen.latent.between import Walk, interpolate_run, mix_run
from advgen.latent.space import Place, along_sphere, evenly, load_places, save_places
from advgen.runs import checkpoint
from advgen.sampling import load_run, sample_run
from advgen.wanted import Drawn, draw_seeds

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

STYLED = ["options.family=stylegan2", "options.width=4", "options.doublings=1", "options.noise_size=8", "train.batch_size=8"]
OVERRIDES = {"image": tiny("image"), "styled": STYLED, "audio": tiny("audio"), "text": tiny("text")}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """One run of two steps of each kind, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), dict[str, Path]()

    def run(kind: str) -> Path:
        if kind not in made:
            plugin = "image" if kind == "styled" else kind
            result = advgen.train(plugin, out=folder / kind, overrides=OVERRIDES[kind], steps=2, device="cpu", progress=False)
            made[kind] = result.folder
        return made[kind]

    return run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


# Seeds


def test_seeds_are_ranges_and_numbers_each_once() -> None:
    assert parse_seeds("0-3,70, 2,5-5") == (0, 1, 2, 3, 70, 5)


@pytest.mark.parametrize("text", ["", "3-1", "a", "1,,2", "-4", "1.5", "0-999999999"])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--seeds .*(expected 0-63,70|ask for fewer)"):
        parse_seeds(text)


@pytest.mark.parametrize("kind", ["image", "styled", "audio", "text"])
def test_sample_of_a_seed_is_the_same_whatever_the_others(kind: str, runs: Callable[[str], Path]) -> None:
    space = load_run(runs(kind), "cpu").space()
    alone, among = draw_seeds(space, [7]), draw_seeds(space, [3, 7, 900])
    assert torch.equal(alone.values[0], among.values[1])
    assert not torch.equal(among.values[0], among.values[1])


def test_files_are_named_by_their_seeds_and_an_earlier_call_is_cleared(runs: Callable[[str], Path], tmp_path: Path) -> None:
    first = sample_run(runs("image"), seeds=[70, 2, 3], out=tmp_path, device="cpu")
    assert [path.name for path in first.files] == ["00002.png", "00003.png", "00070.png"] and first.num_samples == 3
    before = first.files[2].read_bytes()
    second = sample_run(runs("image"), seeds=[70], out=tmp_path, device="cpu")
    assert second.files[0].read_bytes() == before
    assert [path.name for path in second.removed] == ["00002.png", "00003.png"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["00070.png", "overview.png"]


def test_seeds_of_text_are_lines_in_their_order(runs: Callable[[str], Path], tmp_path: Path) -> None:
    sample_run(runs("text"), seeds=[5, 6, 90], out=tmp_path, device="cpu")
    lines = (tmp_path / "samples.txt").read_text().splitlines()
    sample_run(runs("text"), seeds=[90], out=tmp_path, device="cpu")
    assert len(lines) == 3 and (tmp_path / "samples.txt").read_text().splitlines() == lines[2:]


def test_noise_of_a_seed_is_the_same_in_every_class(runs: Callable[[str], Path]) -> None:
    space = load_run(runs("image"), "cpu").space()
    one, other = space.place(4, 0), space.place(4, 2)
    assert torch.equal(one.latent, other.latent)
    assert not torch.equal(space.render(one).values, space.render(other).values)


def test_sampling_leaves_the_global_random_state_alone(runs: Callable[[str], Path]) -> None:
    space = load_run(runs("styled"), "cpu").space()
    before = torch.random.get_rng_state()
    space.render(space.place(1))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": [1], "num_samples": 3}, r"--seeds names one sample each.*one or the other"),
        ({"seeds": []}, r"names no seed"),
        ({"grid": "4by8"}, r"--grid 4by8: expected classes, or rows x columns such as 4x8"),
        ({"grid": "0x3"}, r"--grid 0x3"),
        ({"grid": "classes", "label": "circle"}, r"every class of every seed.*leave out"),
        ({"latent": "x.safetensors", "seeds": [1]}, r"--from-latent has its samples in its file"),
        ({"latent": "x.safetensors"}, r"x.safetensors does not exist"),
        ({"num_samples": 0}, r"at least one sample"),
    ],
)
def test_contradictions_are_refused(given: dict[str, object], said: str, runs: Callable[[str], Path]) -> None:
    with pytest.raises(advgen.GenError, match=said):
        sample_run(runs("image"), device="cpu", **given)  # type: ignore[arg-type]


# Truncation


@pytest.mark.parametrize("kind", ["image", "styled", "audio"])
def test_truncation_goes_from_the_mean_to_the_sample(kind: str, runs: Callable[[str], Path]) -> None:
    loaded = load_run(runs(kind), "cpu")
    whole, same, half, mean = (loaded.draw(6, label=0, truncation=psi).values for psi in (None, 1.0, 0.5, 0.0))
    assert torch.allclose(whole, same, atol=1e-6)
    assert torch.allclose(mean, mean[:1].expand_as(mean), atol=1e-5)
    assert 0 < (half - mean).square().mean() < (whole - mean).square().mean()


def test_truncation_of_seeds_is_that_of_counted_samples(runs: Callable[[str], Path], tmp_path: Path) -> None:
    loaded = load_run(runs("image"), "cpu")
    place, half = loaded.space().place(3), loaded.space(0.5).place(3)
    assert torch.allclose(half.latent, place.latent / 2)
    result = sample_run(runs("image"), seeds=[1, 2], label=1, truncation=0.0, out=tmp_path, device="cpu")
    assert np.array_equal(pixels(result.files[0]), pixels(result.files[1]))


def test_text_refuses_truncation_with_the_reason(runs: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"--truncation 0.5: these samples have no mean latent.*leave it out"):
        sample_run(runs("text"), 2, truncation=0.5, device="cpu")


def test_mean_style_is_followed_in_training_and_saved(runs: Callable[[str], Path]) -> None:
    generator = load_run(runs("styled"), "cpu").generator
    followed = generator.get_buffer("followed")
    assert followed.sum() > 0 and torch.isfinite(generator.get_buffer("means")).all()
    assert (generator.get_buffer("means")[followed > 0].abs().sum(1) > 0).all()


def test_followed_mean_is_that_of_the_mapping_where_weights_stand_still(runs: Callable[[str], Path]) -> None:
    generator = load_run(runs("styled"), "cpu").generator
    generator.get_buffer("followed").zero_()
    rng = torch.Generator().manual_seed(0)
    noise, condition = torch.randn(64, 8, generator=rng), {"label": torch.ones(64, dtype=torch.int64)}
    estimated = generator.mean_latent(generator.latent(noise, condition), condition)[0]
    for _ in range(40):
        generator.follow(torch.randn(64, 8, generator=rng), condition)
    assert generator.get_buffer("followed").tolist() == [0, 40, 0]
    assert torch.allclose(generator.get_buffer("means")[1], estimated, rtol=0.03, atol=0.05)


@pytest.mark.parametrize("further", [["train.accumulate=4"], ["penalties.path_length={weight=2.0, interval=1}"]])
def test_an_update_moves_the_mean_style_once_by_its_whole_batch(further: list[str], tmp_path: Path) -> None:
    """The first update, after which the noise of each place may tell weights apart."""
    exact = [*STYLED, "train.precision=float64", "options.style_mixing=0.0", "options.minibatch_group=1"]
    means = list[torch.Tensor]()
    for name, more in (("plain", []), ("further", further)):
        advgen.train("image", out=tmp_path / name, overrides=[*exact, *more], steps=1, device="cpu", progress=False)
        generator = checkpoint.load(tmp_path / name / "checkpoints", 1)[0]["generator"]
        assert generator["followed"].max() == 1
        means.append(generator["means"])
    assert means[0].abs().max() > 0
    if "accumulate" in further[0]:
        assert torch.allclose(*means, rtol=0, atol=1e-9)


def test_weights_without_a_followed_mean_can_still_be_loaded(runs: Callable[[str], Path]) -> None:
    generator = load_run(runs("styled"), "cpu").generator
    old = {name: value for name, value in generator.state_dict().items() if name not in ("means", "followed")}
    generator.load_state_dict(old)
    assert generator.get_buffer("followed").sum() == 0
    assert torch.isfinite(generator.mean_latent(torch.zeros(2, 8), {"label": torch.tensor([0, 2])})).all()


# Grids


def test_grid_has_a_row_for_each_seed_and_a_column_for_each_class(runs: Callable[[str], Path], tmp_path: Path) -> None:
    result = sample_run(runs("image"), seeds=[4, 9], grid="classes", out=tmp_path, device="cpu")
    names = sorted(str(path.relative_to(tmp_path)) for path in result.files)
    assert names == sorted(f"{kind}/0000{seed}.png" for kind in ("circle", "square", "triangle") for seed in (4, 9))
    shown = pixels(result.overview[0])
    assert shown.shape == (2 * 64 + 2, 3 * 64 + 4, 3)
    cell = pixels(tmp_path / "square" / "00009.png").repeat(2, 0).repeat(2, 1)
    assert np.array_equal(shown[66:130, 66:130], cell)


def test_grid_of_rows_and_columns_draws_as_many_as_it_has_places(runs: Callable[[str], Path], tmp_path: Path) -> None:
    result = sample_run(runs("image"), grid="2x5", out=tmp_path, device="cpu")
    assert len(result.files) == 10 and pixels(result.overview[0]).shape == (2 * 64 + 2, 5 * 64 + 8, 3)


def test_runs_of_consecutive_numbers_are_written_together() -> None:
    names = [("", number) for number in (3, 4, 5, 9)] + [("a", 10)]
    drawn = Drawn(advgen.Batch(torch.zeros(5, 1)), names)
    assert list(drawn.blocks(2, one_file=False)) == [(0, 2, "", 3), (2, 3, "", 5), (3, 4, "", 9), (4, 5, "a", 10)]
    assert list(drawn.blocks(9, one_file=True)) == [(0, 4, "", 0), (4, 5, "a", 0)]


# Interpolation


def test_half_way_between_unit_vectors_at_right_angles_lies_on_the_sphere() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert torch.allclose(along_sphere(one, other, 0.5), torch.full((1, 2), 0.5**0.5))
    assert torch.allclose(along_sphere(one, other, 1 / 3), torch.tensor([[3**0.5 / 2, 0.5]]))
    assert torch.allclose(along_sphere(one, 3 * one, 0.25), 1.5 * one)
    assert torch.equal(along_sphere(one, -one, 0.25), 0.5 * one)  # no arc is the shortest


def test_steps_are_spread_evenly_with_both_ends() -> None:
    assert evenly(25, 9) == [0, 3, 6, 9, 12, 15, 18, 21, 24] and evenly(3, 9) == [0, 1, 2] and evenly(10, 3) == [0, 5, 9]


@pytest.mark.parametrize("kind", ["image", "styled"])
def test_walk_begins_and_ends_at_the_samples_of_its_seeds(kind: str, runs: Callable[[str], Path], tmp_path: Path) -> None:
    wanted = Walk([3, 8, 5], frames=4, columns=5, kind="apng")
    result = interpolate_run(runs(kind), wanted, tmp_path / "walk", "cpu")
    singles = sample_run(runs(kind), seeds=[3, 5, 8], out=tmp_path / "singles", device="cpu")
    cells = {path.stem: pixels(path).repeat(2, 0).repeat(2, 1) for path in singles.files}
    shown = pixels(result.overview[0])
    assert shown.shape == (2 * 64 + 2, 5 * 64 + 8, 3)  # a row for each leg
    assert np.array_equal(shown[:64, :64], cells["00003"]) and np.array_equal(shown[66:, -64:], cells["00005"])
    assert np.array_equal(shown[:64, -64:], cells["00008"]) and np.array_equal(shown[66:, :64], cells["00008"])
    with Image.open(result.files[0]) as film:
        assert film.n_frames == 9


def test_walk_through_classes_has_a_row_for_each_seed_and_comes_back(runs: Callable[[str], Path], tmp_path: Path) -> None:
    wanted = Walk([1, 2], classes=["all"], frames=2, columns=7, loop=True)
    result = interpolate_run(runs("image"), wanted, tmp_path, "cpu")
    shown = pixels(result.overview[0])
    assert shown.shape == (2 * 64 + 2, 7 * 64 + 12, 3) and np.array_equal(shown[:, :64], shown[:, -64:])
    with Image.open(result.files[0]) as film:
        assert film.format == "GIF" and film.n_frames == 6 and film.info["loop"] == 0


def test_between_two_classes_lies_a_mixture_of_both(runs: Callable[[str], Path]) -> None:
    space = load_run(runs("image"), "cpu").space()
    middle = space.between(space.place(1, 0), space.place(1, 2), 0.25)
    assert torch.allclose(middle.condition["label"], torch.tensor([[0.75, 0.0, 0.25]]))
    pure = Place(middle.latent, {"label": space.shares(torch.tensor([2]))})
    assert torch.allclose(space.render(pure).values, space.render(space.place(1, 2)).values, atol=1e-6)
    assert space.render(middle).condition["label"].tolist() == [0]


def test_mapped_latents_are_interpolated_in_a_straight_line(runs: Callable[[str], Path]) -> None:
    space = load_run(runs("styled"), "cpu").space()
    one, other = space.place(1, 0), space.place(2, 1)
    assert space.kind == "mapped"
    assert torch.allclose(space.between(one, other, 0.5).latent, (one.latent + other.latent) / 2)


def test_audio_walks_within_a_class_as_a_strip_and_refuses_what_lies_between_classes(
    runs: Callable[[str], Path], tmp_path: Path
) -> None:
    result = interpolate_run(runs("audio"), Walk([1, 2], label=0, frames=2, columns=3), tmp_path, "cpu")
    assert sorted(path.suffix for path in result.overview) == [".png", ".wav"] and not result.files
    with pytest.raises(ConfigError, match=r"takes one class at a time.*--class C"):
        interpolate_run(runs("audio"), Walk([1], classes=["0", "1"], frames=2), tmp_path, "cpu")
    with pytest.raises(ConfigError, match=r"--format gif: plugin audio.*makes no animations"):
        interpolate_run(runs("audio"), Walk([1, 2], kind="gif"), tmp_path, "cpu")


def test_text_refuses_interpolation_and_projection(runs: Callable[[str], Path], tmp_path: Path) -> None:
    from advgen.latent.projecting import project_run

    with pytest.raises(
        ConfigError, match=r"gen interpolate: the generator draws its samples piece by piece, so nothing lies between"
    ):
        interpolate_run(runs("text"), Walk([1, 2]), tmp_path, "cpu")
    (tmp_path / "line.txt").write_text("a line")
    with pytest.raises(
        ConfigError, match=r"gen project: the generator draws its samples piece by piece, so there is no latent to seek"
    ):
        project_run(runs("text"), tmp_path / "line.txt", device="cpu")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Walk([1]), r"two stations at least"),
        (Walk([1], classes=["circle"]), r"two stations at least"),
        (Walk([1], classes=["circle", "oval"]), r"class 'oval' does not exist.*circle"),
        (Walk([1, 2], label="circle", classes=["all"]), r"one of the two"),
        (Walk([1, 2], kind="mp4"), r"--format mp4: plugin image does not make it; known: gif.*apng"),
        (Walk([1, 2], frames=0), r"at least 1 frame"),
    ],
)
def test_walks_that_cannot_be_are_refused(wanted: Walk, said: str, runs: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        interpolate_run(runs("image"), wanted, tmp_path, "cpu")


@pytest.mark.parametrize("classes", [["all"], ["circle", "square"]])
def test_a_walk_through_classes_is_refused_where_the_run_has_none(classes: list[str], tmp_path: Path) -> None:
    for index in range(30):
        Image.fromarray(np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / f"{index}.png")
    options = {"width": 4, "doublings": 0}
    run = advgen.train("image", data=tmp_path, out=tmp_path / "run", options=options, steps=1, device="cpu", progress=False)
    with pytest.raises(ConfigError, match="--classes: this run has no classes"):
        interpolate_run(run.folder, Walk([1, 2], classes=classes), tmp_path / "walk", "cpu")
    with pytest.raises(ConfigError, match=r"class 'circle' .* has no classes: leave --class"):
        sample_run(run.folder, 2, label="circle", out=tmp_path / "drawn", device="cpu")


# Styles


def test_mixed_styles_stand_between_their_sources(runs: Callable[[str], Path], tmp_path: Path) -> None:
    result = mix_run(runs("styled"), [1, 2], [5, 6, 7], label=0, out=tmp_path / "mix", device="cpu")
    shown = pixels(result.overview[0])
    assert shown.shape == (3 * 64 + 4, 4 * 64 + 6, 3) and (shown[:64, :64] == 255).all()
    single = sample_run(runs("styled"), seeds=[6], label=0, out=tmp_path / "one", device="cpu").files[0]
    assert np.array_equal(shown[:64, 132:196], pixels(single).repeat(2, 0).repeat(2, 1))


def test_mixing_a_style_with_itself_changes_nothing_and_layers_decide_what_is_taken(runs: Callable[[str], Path]) -> None:
    space = load_run(runs("styled"), "cpu").space()
    one, other = space.place(1, 0), space.place(2, 0)
    generator: Generator = space.generator
    with torch.no_grad():
        own = generator.mix(one.latent, one.latent, one.condition, 3).values
        late, early = (generator.mix(one.latent, other.latent, one.condition, start).values for start in (7, 1))
        alone = generator.render(one.latent, one.condition).values
        last = generator.render(other.latent, one.condition).values
    assert torch.allclose(own, alone, atol=1e-6)
    assert not torch.equal(late, alone) and not torch.equal(early, last)
    assert (early - last).square().mean() < (late - last).square().mean()


def test_mixing_needs_styles_and_a_layer_that_is_there(runs: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the networks have no styles to mix.*preset stylegan2"):
        mix_run(runs("image"), [1], [2], out=tmp_path, device="cpu")
    with pytest.raises(ConfigError, match=r"--from-layer 8: the generator has 8 layers.*expected 1 to 7"):
        mix_run(runs("styled"), [1], [2], start=8, out=tmp_path, device="cpu")


# Files of latents


@pytest.mark.parametrize("kind", ["image", "styled"])
def test_latents_are_rendered_again_from_their_file(kind: str, runs: Callable[[str], Path], tmp_path: Path) -> None:
    loaded = load_run(runs(kind), "cpu")
    place = loaded.space().place(11, 1)
    save_places(tmp_path / "latent.safetensors", place, {"space": loaded.space().kind, "weights": loaded.weights})
    result = sample_run(runs(kind), latent=tmp_path / "latent.safetensors", out=tmp_path / "again", device="cpu")
    single = sample_run(runs(kind), seeds=[11], label=1, out=tmp_path / "one", device="cpu")
    assert result.files[0].read_bytes() == single.files[0].read_bytes()


def test_latents_of_other_spaces_and_damaged_files_are_refused(runs: Callable[[str], Path], tmp_path: Path) -> None:
    space, path = load_run(runs("image"), "cpu").space(), tmp_path / "latent.safetensors"
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"cannot be read as latents.*gen project"):
        load_places(path, space)
    save_file({"weights": torch.zeros(2)}, path)
    with pytest.raises(DataError, match=r"no tensor 'latent'"):
        load_places(path, space)
    save_file({"latent": torch.zeros(1, 5), "label": torch.zeros(1, dtype=torch.int64)}, path)
    with pytest.raises(DataError, match=r"holds latents \(5,\).*this run's are \(8,\)"):
        load_places(path, space)
    save_file({"latent": torch.zeros(1, 8)}, path, {"space": "mapped"})
    with pytest.raises(DataError, match=r"of a mapped space, this run's are \(8,\) of a noise space"):
        load_places(path, space)
    save_file({"latent": torch.zeros(1, 8), "label": torch.tensor([9])}, path)
    with pytest.raises(DataError, match=r"names no class of this run for latent 0, which has 3"):
        load_places(path, space)


def test_latents_of_other_weights_are_rendered_with_a_warning(
    runs: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space, path = load_run(runs("image"), "cpu").space(), tmp_path / "latent.safetensors"
    save_places(path, space.place(1), {"space": "noise", "weights": "0" * 64, "run": "runs/other", "step": "5"})
    sample_run(runs("image"), latent=path, out=tmp_path / "out", device="cpu")
    assert "was found in other weights (runs/other step 5)" in caplog.text


# The command line


def gen(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def test_the_commands_tell_where_their_files_are(
    runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--device", "cpu", "--out", tmp_path)
    assert gen("sample", runs("styled"), "--seeds", "0-2,9", "--truncation", "0.7", "--grid", "2x2", *place) == 0
    assert capsys.readouterr().out == f"4 samples in {tmp_path}\n  overview: {tmp_path / 'overview.png'}\n"
    assert gen("interpolate", runs("styled"), "--seeds", "1,2", "--frames", "2", "--columns", "3", *place) == 0
    assert f"2 files of 3 samples in {tmp_path}\n" in capsys.readouterr().out
    assert gen("mix", runs("styled"), "--coarse", "1", "--fine", "2", *place) == 0
    assert capsys.readouterr().out == f"1 file of 3 samples in {tmp_path}\n  {tmp_path / 'overview.png'}\n"
    assert gen("sample", runs("styled"), "--seeds", "2-1", *place) == 2
    assert gen("sample", runs("styled"), "--seeds", "1", "--from", tmp_path, *place) == 2
    assert "--seeds says which samples are drawn, --from makes them of files" in capsys.readouterr().err
