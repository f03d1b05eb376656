"""The image plugin: its corpus and reader, its files, its networks and its judge."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import advgen
from advgen import Batch, Corpus, DataError, DataRequest, GenError
from advgen.metrics.report import better_direction
from advgen_image import advgen_register, shapes
from advgen_image import judge as judge_module
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality
from advgen_image.modulation import ModulatedGenerator
from advgen_image.networks import ImageDiscriminator, ImageGenerator, ImageShape, choose_depth

SMALL = ImageConfig(width=8, noise_size=20)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def request(path: Path | None = None, **more: object) -> DataRequest:
    return DataRequest(path, **more)  # type: ignore[arg-type]


def save_noise(file: Path, mode: str = "RGB", size: tuple[int, int] = (16, 16), seed: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    if mode == "I;16":
        picture = Image.fromarray(random.integers(0, 65536, size[::-1], dtype=np.uint16))
    else:
        picture = Image.fromarray(random.integers(0, 256, (*size[::-1], 4), dtype=np.uint8))
        picture = picture.convert("RGB").convert(mode) if mode == "P" else picture.convert(mode)
    picture.save(file)
    return file


def read_pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def make_folder(root: Path, count: int = 40, mode: str = "RGB", suffix: str = ".png", classes: int = 2) -> Path:
    for index in range(count):
        save_noise(root / f"class{index % classes}" / f"{index}{suffix}", mode, seed=index)
    return root


def write_idx(file: Path, values: np.ndarray) -> None:
    data = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)


def make_idx(root: Path, suffix: str = "", count: int = 60, side: int = 28) -> Path:
    random = np.random.default_rng(0)
    for part, number in (("train", count), ("t10k", 10)):
        write_idx(root / f"{part}-images-idx3-ubyte{suffix}", random.integers(0, 256, (number, side, side), dtype=np.uint8))
        write_idx(root / f"{part}-labels-idx1-ubyte{suffix}", (np.arange(number) % 10).astype(np.uint8))
    return root


# The embedded corpus and its reader


@pytest.fixture(scope="module")
def corpus_images() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    return shapes.make_shapes(2000)


@pytest.fixture(scope="module")
def embedded() -> Corpus:
    return ImageModality.read(SMALL, request())


def test_corpus_is_the_same_every_time() -> None:
    assert np.array_equal(shapes.make_shapes(50)[0], shapes.make_shapes(50)[0])
    assert not np.array_equal(shapes.make_shapes(50)[0], shapes.make_shapes(50, seed=1)[0])


def test_reader_is_right_on_the_corpus_itself(corpus_images: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    images, factors = corpus_images
    reading = shapes.read_shapes(images / 255.0)
    assert reading.valid.mean() >= 0.99
    for name, bins in factors.items():
        assert (reading.factors[name] == bins).mean() >= 0.98, name


def test_reader_refuses_empty_double_and_noisy_images(corpus_images: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    images = corpus_images[0][:200] / 255.0
    blank = np.full_like(images, shapes.BACKGROUND)
    left, right = images.copy(), np.roll(images, 16, axis=3)
    noise = np.random.default_rng(0).random(images.shape)
    assert shapes.read_shapes(blank).valid.mean() == 0
    assert shapes.read_shapes(np.maximum(left, right)).valid.mean() == 0
    assert shapes.read_shapes(noise).valid.mean() == 0


def paint(colour: np.ndarray) -> np.ndarray:
    """One square of radius 7 in the middle, (1, 3, 32, 32), in a colour that broadcasts to (1, 3, 32, 32)."""
    cover = shapes.draw(np.array([1]), np.array([7.0]), np.array([16.0]), np.array([16.0]))[:, None]
    return np.asarray(shapes.BACKGROUND + cover * (colour - shapes.BACKGROUND))


def test_reader_refuses_a_shape_of_two_colours() -> None:
    red, yellow = (shapes.hue_to_rgb(np.array([hue]))[:, :, None, None] for hue in (0.0, 1 / 6))
    left = np.arange(32)[None, None, None, :] < 18
    assert shapes.read_shapes(paint(red)).valid[0]
    assert not shapes.read_shapes(paint(np.where(left, red, yellow))).valid[0]


@pytest.mark.parametrize("colour", [(0.95, 0.95, 0.95), (0.4, 0.1, 0.1), (0.95, 0.6, 0.6)])
def test_reader_refuses_white_dark_and_pale_shapes(colour: tuple[float, float, float]) -> None:
    assert not shapes.read_shapes(paint(np.array(colour)[None, :, None, None])).valid[0]


def test_reader_refuses_smears_and_takes_a_slight_blur(corpus_images: tuple[np.ndarray, dict[str, np.ndarray]]) -> None:
    images = corpus_images[0][:200] / 255.0
    shares = [shapes.read_shapes(gaussian_filter(images, (0, 0, width, width))).valid.mean() for width in (0.5, 2.0)]
    assert shares[0] > 0.95 and shares[1] == 0


def test_reader_refuses_compact_patches_without_the_outline_of_a_shape() -> None:
    random = np.random.default_rng(0)
    pixels = np.arange(32) - 15.5
    bump = 3 * np.exp(-(pixels[:, None] ** 2 + pixels[None, :] ** 2) / 80)
    rough = gaussian_filter(random.standard_normal((200, 32, 32)), (0, 3, 3))
    cover = (rough / rough.std() + bump > 1.5)[:, None]
    colour = shapes.hue_to_rgb(random.random(200))[:, :, None, None]
    assert shapes.read_shapes(shapes.BACKGROUND + cover * (colour - shapes.BACKGROUND)).valid.mean() < 0.05


def test_total_variation_is_small_on_held_out_and_large_when_a_shape_is_missing(embedded: Corpus) -> None:
    corpus = embedded
    modality = ImageModality(SMALL, corpus.facts)
    test = corpus.splits["test"]
    batch = modality.prepare(test.batch(torch.arange(len(test)), rng()))
    honest = modality.metrics(batch, batch)
    assert honest["valid_share"] >= 0.99 and honest["shape_as_asked"] >= 0.98
    assert max(value for name, value in honest.items() if name.startswith("factor_tv/")) < 0.1
    circles = modality.metrics(Batch(batch.values[batch.condition["label"] == 0]), batch)
    assert circles["factor_tv/shape"] == pytest.approx(2 / 3, abs=0.03)


def test_metrics_of_shapes_have_a_direction_and_say_what_they_are(embedded: Corpus) -> None:
    modality = ImageModality(SMALL, embedded.facts)
    batch = modality.prepare(embedded.splits["test"].batch(torch.arange(64), rng()))
    assert set(modality.metric_notes()) == set(modality.metrics(batch, batch))
    assert better_direction("shape_as_asked", modality) == better_direction("valid_share", modality) == "higher"
    assert better_direction("factor_tv/hue", modality) == "lower"
    assert ImageModality(SMALL, {**embedded.facts, "corpus": "folder"}).metric_notes() == {}


def test_hues_between_those_of_the_corpus_are_told(embedded: Corpus) -> None:
    factors = {**shapes.make_shapes(60)[1], "hue": np.arange(60) % 6}
    cover = shapes.draw(factors["shape"], np.full(60, 6.0), np.full(60, 16.0), np.full(60, 16.0))[:, None]
    for shift, expected in ((0.0, 0.0), (1 / 12, 1.0)):
        colour = shapes.hue_to_rgb(factors["hue"] / 6 + shift)[:, :, None, None]
        found = shapes.shapes_metrics(shapes.BACKGROUND + cover * (colour - shapes.BACKGROUND), embedded.facts["factors"])
        assert found["valid_share"] == 1 and found["hue_between"] == expected


def test_metrics_of_samples_without_any_shape_say_so(embedded: Corpus) -> None:
    corpus = embedded
    blank = Batch(torch.full((8, 3, 32, 32), -0.8))
    found = ImageModality(SMALL, corpus.facts).metrics(blank, blank)
    assert found["valid_share"] == 0 and found["factor_tv/hue"] == 1


# Splits and sources


def test_facts_are_json_and_rebuild_the_modality_without_data(embedded: Corpus) -> None:
    import json

    corpus = embedded
    facts = json.loads(json.dumps(corpus.facts))
    modality = ImageModality(SMALL, facts)
    condition = modality.condition(4, rng())
    sample = modality.generator()(modality.noise(4, rng()), condition)
    assert sample.values.shape == (4, 3, 32, 32) and sample.values.abs().max() <= 1


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_keep_their_own_test_split(tmp_path: Path, suffix: str) -> None:
    corpus = ImageModality.read(SMALL, request(make_idx(tmp_path, suffix)))
    assert len(corpus.splits["test"]) == 10
    assert len(corpus.splits["train"]) + len(corpus.splits["validation"]) == 60
    assert corpus.facts["classes"] == [str(digit) for digit in range(10)]
    batch = corpus.splits["test"].batch(torch.arange(10), rng())
    assert batch.values.dtype == torch.uint8 and batch.values.shape == (10, 1, 28, 28)
    assert batch.condition["label"].tolist() == list(range(10))


def test_idx_images_are_resized_when_asked(tmp_path: Path) -> None:
    config = ImageConfig(image_height=32, image_width=32, channels=3)
    assert ImageModality.read(config, request(make_idx(tmp_path))).splits["train"].batch(torch.tensor([0]), rng()).values.shape[
        1:
    ] == (
        3,
        32,
        32,
    )


def test_sub_folders_are_classes_and_splits_are_disjoint(tmp_path: Path) -> None:
    corpus = ImageModality.read(SMALL, request(make_folder(tmp_path)))
    assert corpus.facts["classes"] == ["class0", "class1"]
    assert sum(len(source) for source in corpus.splits.values()) == 40
    rows = [source.batch(torch.arange(len(source)), rng()).values.flatten(1) for source in corpus.splits.values()]
    assert len({bytes(row.numpy()) for part in rows for row in part}) == 40


def test_a_single_class_trains_unconditionally(tmp_path: Path) -> None:
    corpus = ImageModality.read(SMALL, request(make_folder(tmp_path, classes=1)))
    modality = ImageModality(SMALL, corpus.facts)
    assert corpus.facts["classes"] == [] and modality.condition(3, rng()) == {}


@pytest.mark.parametrize(
    ("mode", "suffix", "channels", "bits"),
    [
        ("L", ".png", 1, 8),
        ("RGB", ".jpg", 3, 8),
        ("RGB", ".bmp", 3, 8),
        ("RGB", ".webp", 3, 8),
        ("RGBA", ".png", 4, 8),
        ("P", ".png", 3, 8),
        ("1", ".png", 1, 8),
        ("LA", ".png", 2, 8),
        ("I;16", ".png", 1, 16),
        ("I;16", ".tif", 1, 16),
    ],
)
def test_every_kind_of_file_is_read(tmp_path: Path, mode: str, suffix: str, channels: int, bits: int) -> None:
    corpus = ImageModality.read(SMALL, request(make_folder(tmp_path, mode=mode, suffix=suffix)))
    assert (corpus.facts["channels"], corpus.facts["bits"]) == (channels, bits)
    prepared = ImageModality(SMALL, corpus.facts).prepare(corpus.splits["train"].batch(torch.arange(8), rng()))
    assert prepared.values.dtype == torch.float32 and prepared.values.shape[1:] == (channels, 16, 16)
    assert -1 <= prepared.values.min() < prepared.values.max() <= 1


def test_sixteen_bit_values_survive_reading_and_writing(tmp_path: Path) -> None:
    corpus = ImageModality.read(SMALL, request(make_folder(tmp_path / "in", mode="I;16")))
    modality = ImageModality(SMALL, corpus.facts)
    raw = corpus.splits["train"].batch(torch.arange(4), rng())
    paths = modality.write(modality.prepare(raw), tmp_path / "out")
    for path, image in zip(paths, raw.values, strict=True):
        assert np.array_equal(read_pixels(path).astype(np.int32), image[0].numpy())


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    for index in range(40):
        exif = Image.Exif()
        exif[0x0112] = 6
        picture = Image.new("RGB", (16, 8))
        picture.save(tmp_path / f"{index}.jpg", exif=exif)
    facts = ImageModality.read(SMALL, request(tmp_path)).facts
    assert (facts["height"], facts["width"]) == (16, 8)


def test_mixed_sizes_are_refused_by_name_and_cropped_when_asked(tmp_path: Path) -> None:
    make_folder(tmp_path)
    save_noise(tmp_path / "class0" / "odd.png", size=(20, 12))
    with pytest.raises(DataError, match=r"odd\.png is 12x20; set options\.image_height"):
        ImageModality.read(SMALL, request(tmp_path))
    facts = ImageModality.read(ImageConfig(image_height=8, image_width=8), request(tmp_path)).facts
    assert (facts["height"], facts["width"]) == (8, 8)


def test_large_folders_are_mapped_from_the_cache_with_the_same_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path / "in")
    (tmp_path / "in" / "class0" / "broken.png").write_bytes(b"\x89PNG broken")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    plain = ImageModality.read(SMALL, request(tmp_path / "in"))
    for _ in range(2):
        mapped = ImageModality.read(SMALL.model_copy(update={"memory_mib": 0}), request(tmp_path / "in"))
        for name, source in plain.splits.items():
            own, other = (s.batch(torch.arange(len(source)), rng()) for s in (source, mapped.splits[name]))
            assert torch.equal(own.values, other.values) and torch.equal(own.condition["label"], other.condition["label"])
    assert len(list((tmp_path / "cache" / "advgen" / "images").glob("*.npy"))) == 1


# Bad input


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        ImageModality.read(SMALL, request(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="holds no images"):
        ImageModality.read(SMALL, request(tmp_path))
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(DataError, match=r"found: \.txt"):
        ImageModality.read(SMALL, request(tmp_path))
    with pytest.raises(DataError, match="is a file"):
        ImageModality.read(SMALL, request(tmp_path / "notes.txt"))


def test_damaged_files_are_named_and_skipped_up_to_the_limit(tmp_path: Path) -> None:
    make_folder(tmp_path)
    (tmp_path / "class0" / "empty.png").touch()
    (tmp_path / "class0" / "text.jpg").write_text("not an image")
    whole = save_noise(tmp_path / "class1" / "cut.png", seed=99).read_bytes()
    (tmp_path / "class1" / "cut.png").write_bytes(whole[: len(whole) // 2])
    corpus = ImageModality.read(SMALL, request(tmp_path))
    assert sorted(line.split(":")[0] for line in corpus.bad) == ["class0/empty.png", "class0/text.jpg", "class1/cut.png"]
    assert sum(len(source) for source in corpus.splits.values()) == 40
    with pytest.raises(DataError, match=r"3 of 43 images .*\n.*empty\.png: the file is empty"):
        ImageModality.read(SMALL, request(tmp_path, max_bad=2))


def test_a_picture_with_too_many_pixels_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path)
    save_noise(tmp_path / "class0" / "huge.png", size=(64, 64))
    monkeypatch.setattr("advgen_image.decoding.LARGEST_PIXELS", 1000)
    assert "huge.png" in ImageModality.read(SMALL, request(tmp_path)).bad[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert "too many pixels" in ImageModality.read(SMALL, request(tmp_path)).bad[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:100], "holds .* bytes of data, expected"),
        (lambda data: b"", "is not an idx file"),
        (lambda data: data[:2] + b"\x0d" + data[3:], "type 0x0d"),
    ],
)
def test_damaged_idx_files_are_refused_by_name(tmp_path: Path, damage: object, message: str) -> None:
    file = make_idx(tmp_path) / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=f"train-images.* {message}"):
        ImageModality.read(SMALL, request(tmp_path))


def test_a_cut_gzip_and_missing_labels_are_refused(tmp_path: Path) -> None:
    file = make_idx(tmp_path, ".gz") / "train-labels-idx1-ubyte.gz"
    write_idx(file, np.zeros(3, np.uint8))
    with pytest.raises(DataError, match="holds 3 labels, expected 60"):
        ImageModality.read(SMALL, request(tmp_path))
    write_idx(file, np.zeros(60, np.uint8))
    images = tmp_path / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        ImageModality.read(SMALL, request(tmp_path))


@pytest.mark.parametrize(
    ("side", "depth", "message"), [(27, None, "26x26 or 28x28"), (28, 3, "24x24 or 32x32"), (100, None, "96x96")]
)
def test_sizes_that_the_strides_do_not_divide_name_the_nearest(side: int, depth: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        choose_depth(side, side, depth)


# Networks


@pytest.mark.parametrize(("height", "width", "depth"), [(28, 28, 2), (32, 32, 3), (64, 64, 4), (16, 48, 2), (8, 8, 1)])
def test_depth_follows_the_size(height: int, width: int, depth: int) -> None:
    assert choose_depth(height, width) == depth


@pytest.mark.parametrize("kind", [ImageGenerator, ModulatedGenerator])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_networks_of_any_shape_agree(kind: type[ImageGenerator | ModulatedGenerator], channels: int, num_classes: int) -> None:
    shape = ImageShape(channels, 24, 16, num_classes)
    generator = kind(shape, noise_size=10, width=4, depth=2, norm="none", normal_init=False)
    discriminator = ImageDiscriminator(shape, width=4, depth=2, norm="none", normal_init=True)
    for condition in ({}, {"label": torch.tensor([0, 2, 1])}):
        sample = generator(torch.randn(3, 10), condition)
        assert sample.values.shape == (3, channels, 24, 16)
        assert discriminator(discriminator.embed(sample), condition).heads[0].scores.shape == (3,)


@pytest.mark.parametrize("kind", [ImageGenerator, ModulatedGenerator])
def test_label_reaches_both_players(kind: type[ImageGenerator | ModulatedGenerator]) -> None:
    shape = ImageShape(1, 16, 16, 3)
    generator = kind(shape, noise_size=10, width=4, depth=2, norm="none", normal_init=False)
    discriminator = ImageDiscriminator(shape, width=4, depth=2, norm="none", normal_init=False)
    noise, one, two = torch.randn(2, 10), {"label": torch.tensor([0, 0])}, {"label": torch.tensor([1, 1])}
    image = generator(noise, one).values
    assert not torch.allclose(image, generator(noise, two).values)
    assert not torch.allclose(discriminator(image, one).heads[0].scores, discriminator(image, two).heads[0].scores)


def test_noise_modulates_every_layer_of_the_default_generator() -> None:
    shape = ImageShape(3, 16, 16, 2)
    generator = ModulatedGenerator(shape, noise_size=10, width=4, depth=2, norm="none", normal_init=False)
    torch.nn.init.zeros_(generator.project.weight)  # only the modulation is left to tell two noises apart
    images = generator(torch.randn(2, 10), {"label": torch.tensor([0, 0])}).values
    assert not torch.allclose(images[0], images[1])
    images.square().sum().backward()
    assert all(layer.style.weight.grad.abs().sum() > 0 for layer in generator.modulations)


def test_default_discriminator_judges_each_image_alone_and_allows_double_backward() -> None:
    discriminator = ImageDiscriminator(ImageShape(1, 16, 16), width=4, depth=2, norm="none", normal_init=False).double()
    images = torch.randn(4, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    scores = discriminator(images, {}).heads[0].scores
    assert torch.allclose(scores[:1], discriminator(images[:1], {}).heads[0].scores)
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    first = discriminator.blocks[0][0].weight.grad
    assert first is not None and first.abs().sum() > 0


def test_classic_preset_pins_the_textbook_networks(embedded: Corpus) -> None:
    spec = advgen_register()
    modality = ImageModality(ImageConfig(**spec.presets["classic"]["options"]), embedded.facts)
    norms = [m for m in modality.discriminator().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == modality.depth - 1
    assert modality.noise(2, rng()).shape == (2, 100)
    assert modality.generator().project.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert spec.presets["classic"]["average"] == {"enabled": False}


@pytest.mark.parametrize("noise_size", [1, 20, 64, 100])
def test_noise_row_does_not_depend_on_the_rows_after_it(embedded: Corpus, noise_size: int) -> None:
    modality = ImageModality(ImageConfig(noise_size=noise_size), embedded.facts)
    first, many = rng(3), rng(3)
    parts = torch.cat([modality.noise(3, first), modality.noise(7, first)])
    assert torch.equal(parts, modality.noise(10, many)) and parts.shape == (10, noise_size)


def test_unconditional_model_refuses_a_class(embedded: Corpus) -> None:
    config = ImageConfig(conditional=False)
    modality = ImageModality(config, embedded.facts)
    assert modality.condition(3, rng()) == {}
    with pytest.raises(GenError, match="conditional"):
        modality.condition(3, rng(), label=1)


@pytest.mark.slow
def test_default_preset_learns_the_embedded_shapes(tmp_path: Path) -> None:
    run = advgen.load_generator(advgen.train("image", out=tmp_path / "run", steps=3000, progress=False, device="cpu").folder)
    batch = run.draw(500)
    found = run.modality.metrics(batch, batch)
    assert found["valid_share"] >= 0.7
    assert max(value for name, value in found.items() if name.startswith("factor_tv/")) < 0.2


# Judge and files


def test_judge_classifies_shapes_is_cached_and_leaves_the_global_randomness_alone(
    embedded: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_module, "STEPS", 110)
    corpus = embedded
    modality = ImageModality(SMALL, corpus.facts)
    before = torch.random.get_rng_state()
    judge = modality.judge(corpus, tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    test = modality.prepare(corpus.splits["test"].batch(torch.arange(300), rng()))
    found = judge.classify(test)
    assert found is not None and (found == test.condition["label"]).float().mean() > 0.8
    monkeypatch.setattr(judge_module, "_fit", lambda *_: pytest.fail("trained again"))
    assert torch.equal(modality.judge(corpus, tmp_path).features(test), judge.features(test))
    assert judge.name == "own-cnn-classifier" and judge.features(test).shape == (300, 64)
    (file,) = tmp_path.rglob("judge.safetensors")
    assert judge.protocol["weights"] == f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert "64 numbers" in judge.protocol["layer"] and "32x32" in judge.protocol["resizer"]


def test_judge_without_classes_is_an_autoencoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "STEPS", 2)
    corpus = ImageModality.read(SMALL, request(make_folder(tmp_path / "in", classes=1)))
    modality = ImageModality(SMALL, corpus.facts)
    judge = modality.judge(corpus, tmp_path / "cache")
    batch = modality.prepare(corpus.splits["train"].batch(torch.arange(5), rng()))
    assert judge.classify(batch) is None and judge.features(batch).shape == (5, 64)
    assert set(judge.protocol) == {"layer", "resizer", "weights"}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_samples_and_overview_are_png_files(tmp_path: Path, channels: int) -> None:
    facts = {"height": 16, "width": 16, "channels": channels, "bits": 8, "classes": [], "class_counts": [], "corpus": "folder"}
    modality = ImageModality(SMALL, facts)
    batch = Batch(torch.rand(5, channels, 16, 16) * 2 - 1)
    paths = modality.write(batch, tmp_path / "out", start=3)
    assert [path.name for path in paths] == [f"0000{index}.png" for index in range(3, 8)]
    pixels = read_pixels(paths[0]).reshape(16, 16, channels)
    assert np.abs(pixels / 127.5 - 1 - batch.values[0].permute(1, 2, 0).numpy()).max() < 0.005
    (grid,) = modality.overview(batch, tmp_path / "step-1.5")
    assert grid.name == "step-1.5.png" and read_pixels(grid).shape[:2] == (2 * 66 - 2, 3 * 66 - 2)


def test_entry_module_does_not_import_torch() -> None:
    code = "import sys, advgen_image, advgen_image.config; advgen_image.advgen_register(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=False).returncode == 0
