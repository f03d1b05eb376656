"""Images wherever they lie: kinds of files, zip archives, Hugging Face sets, the cache, and training's view of them."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import advgen
from advgen import Corpus, DataError, DataRequest, PluginError, ZipFolder
from advgen.data.resident import Movable, keep_on_device
from advgen.latent.between import Walk, interpolate_run
from advgen.latent.projecting import project_run
from advgen.latent.search import Search
from advgen.sampling import sample_run
from advgen_image import decoding, idx, store
from advgen_image.config import ImageConfig
from advgen_image.decoding import Target, decode, read_header
from advgen_image.inspection import inspect_images
from advgen_image.modality import ImageModality
from advgen_image.sources import ArrayStore, ImageSource, TensorStore, View, viewed


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def read(place: Path | str, **options: Any) -> Corpus:
    path, address = (place, "") if isinstance(place, Path) else (None, place)
    return ImageModality.read(ImageConfig(**options), DataRequest(path, address=address))


def whole(corpus: Corpus, split: str) -> Any:
    source = corpus.splits[split]
    return source.batch(torch.arange(len(source)), rng())


def pixels(seed: int, side: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)


def encoded(seed: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(seed)).save(stream, kind)
    return stream.getvalue()


def make_files(root: Path, count: int = 40) -> Path:
    for index in range(count):
        file = root / "ab"[index % 2] / f"{index:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(index))
    return root


def pack(folder: Path, archive: Path, top: str = "mine/") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as whole_archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            whole_archive.write(file, top + file.relative_to(folder).as_posix())
    return archive


def as_bytes(batch: Any) -> set[bytes]:
    return {image.numpy().tobytes() for image in batch.values}


def write_idx(file: Path, values: np.ndarray) -> None:
    content = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes()
    file.write_bytes(gzip.compress(content) if file.suffix == ".gz" else content)


# Sizes


@pytest.mark.parametrize("kind", ["files", "idx"])
def test_one_side_alone_cuts_and_leaves_the_other_as_the_data_have_it(kind: str, tmp_path: Path) -> None:
    images = np.stack([pixels(index, channels=1)[..., 0] for index in range(40)])
    if kind == "idx":
        write_idx(tmp_path / "train-images-idx3-ubyte", images)
    for index, image in enumerate(images if kind == "files" else ()):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    corpus = read(tmp_path, image_height=4)
    assert (corpus.facts["height"], corpus.facts["width"]) == (4, 8)
    found = set.union(*(as_bytes(whole(corpus, split)) for split in ("train", "validation", "test")))
    assert found == {image[2:6].tobytes() for image in images}  # as wide as before, so not scaled


def test_one_side_alone_is_not_enough_where_images_have_several_sizes(tmp_path: Path) -> None:
    make_files(tmp_path)
    Image.fromarray(pixels(99, 16)).save(tmp_path / "a" / "large.png")
    with pytest.raises(DataError, match=r"2 sizes.*set options\.image_height and options\.image_width"):
        read(tmp_path, image_height=4)
    assert read(tmp_path, image_height=4, image_width=8).facts["width"] == 8


# Classes

WAY = "move what lies beside the class folders into one of them"
STRAY = f"1 of 41 images has no class (top.png), so the run is unconditional; {WAY}"


def test_one_image_beside_the_class_folders_is_told_in_a_folder_a_zip_and_a_list(tmp_path: Path) -> None:
    folder = make_files(tmp_path / "files")
    assert read(folder).notes == ()
    (folder / "top.png").write_bytes(encoded(99))
    names = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*.png"))]
    (folder / "list.csv").write_text("path,label\n" + "".join(f"{name},{name[0] if '/' in name else ''}\n" for name in names))
    assert read(folder).facts["classes"] == [] and read(folder).notes == (STRAY,)
    assert read(pack(folder, tmp_path / "files.zip")).notes == (STRAY,)
    assert read(folder / "list.csv").notes == (STRAY.split(";")[0] + "; give each a label there",)
    assert read(folder, conditional=False).notes == ()


def test_classes_of_few_images_are_told_by_size(tmp_path: Path) -> None:
    folder = make_files(tmp_path)
    for number, name in enumerate(["c", "d", "d"]):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{number}.png").write_bytes(encoded(60 + number))
    (note,) = read(folder).notes
    assert note.startswith("2 of 4 classes have fewer than 10 images (c: 1, d: 2)")
    assert inspect_images(ImageConfig(), DataRequest(folder), lambda *_: None).remarks == [note]


def test_a_run_says_and_keeps_what_its_data_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_files(tmp_path / "files")
    (folder / "top.png").write_bytes(encoded(99))
    small = {"width": 4, "doublings": 0}
    advgen.train("image", data=folder, options=small, steps=1, out=tmp_path / "run", progress=True)
    assert STRAY in capsys.readouterr().err
    assert STRAY in (tmp_path / "run" / "log.txt").read_text()


def test_one_image_as_data_names_its_folder(tmp_path: Path) -> None:
    folder = make_files(tmp_path, 8)
    with pytest.raises(DataError, match=rf"00.png is one image.*its folder has 4 images: give that, --data {folder}/a$"):
        read(folder / "a" / "00.png")


# Kinds of files


def target(channels: int, side: int = 4) -> Target:
    return Target(channels, side, side, False)


def saved(file: Path, picture: Image.Image, **more: Any) -> Path:
    picture.save(file, **more)
    return file


def mode_of(file: Path) -> str:
    with Image.open(file) as picture:
        return picture.mode


def test_a_palette_keeps_its_colours_and_its_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((0, 0), 0)
    file = saved(tmp_path / "a.png", picture, transparency=0)
    assert read_header(file).alpha and read_header(file).colour
    found = decode(file, target(4))
    assert found[:, 0, 0].tolist()[3] == 0 and found[:, 1, 1].tolist() == [0, 0, 255, 255]


def test_what_is_transparent_lies_on_white_where_transparency_is_not_kept(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 4), (200, 0, 0, 0))
    picture.putpixel((1, 0), (200, 0, 0, 255))
    file = saved(tmp_path / "a.png", picture)
    found = decode(file, target(3))
    assert found[:, 0, 0].tolist() == [255, 255, 255] and found[:, 0, 1].tolist() == [200, 0, 0]
    grey = saved(tmp_path / "b.png", Image.new("LA", (4, 4), (0, 0)))
    assert decode(grey, target(1))[0, 0, 0] == 255


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", ".jpg"), ("CMYK", ".tif"), ("LAB", ".tif"), ("YCbCr", ".jpg")])
def test_other_colour_spaces_become_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    colour = {"CMYK": (0, 255, 255, 0), "LAB": (137, 208, 195), "YCbCr": (76, 85, 255)}[mode]
    file = saved(tmp_path / f"a{suffix}", Image.new(mode, (16, 16), colour))
    red, green, blue = decode(file, target(3, 16))[:, 8, 8].tolist()
    assert red > 225 and green < 40 and blue < 40


def test_grey_with_transparency_and_one_bit_are_read_as_they_look(tmp_path: Path) -> None:
    grey = saved(tmp_path / "a.png", Image.new("LA", (4, 4), (70, 128)))
    assert decode(grey, target(4))[:, 0, 0].tolist() == [70, 70, 70, 128]
    bit = saved(tmp_path / "b.png", Image.new("1", (4, 4), 1))
    assert decode(bit, target(1)).max() == 255 and not read_header(bit).colour


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "P", "RGB", "CMYK"])
def test_what_is_opaque_becomes_wholly_opaque_in_two_channels(tmp_path: Path, mode: str) -> None:
    kind = np.uint16 if mode == "I;16" else np.uint8
    grey = Image.fromarray(np.full((4, 4), 255 * (257 if mode == "I;16" else 1), kind))
    picture = grey if mode in ("L", "I;16") else grey.convert("RGB").convert(mode)
    found = decode(saved(tmp_path / "a.tif", picture), target(2))
    assert found.shape == (2, 4, 4) and (found == 255).all()


def test_grey_with_transparency_has_two_channels_until_a_file_has_colour(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for index in range(30):
        saved(folder / f"{index:02d}.png", Image.fromarray(pixels(index, channels=2)))
    saved(folder / "30.png", Image.fromarray(pixels(30, channels=1)[:, :, 0]))
    corpus = read(folder)
    assert (
        corpus.facts["channels"] == 2
        and inspect_images(ImageConfig(), DataRequest(folder), lambda *_: None).details["decoded"]["channels"] == 2
    )
    kept = {bytes(row.permute(1, 2, 0).contiguous().numpy()) for split in corpus.splits for row in whole(corpus, split).values}
    assert all(pixels(index, channels=2).tobytes() in kept for index in range(30))
    (folder / "31.png").write_bytes(encoded(31))
    assert read(folder).facts["channels"] == 4 and read(folder, channels=2).facts["channels"] == 2


def test_two_channels_go_through_training_sampling_walks_and_projection(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for index in range(30):
        saved(folder / f"{index:02d}.png", Image.fromarray(pixels(index, 16, 2)))
    options = {"width": 4, "doublings": 0, "augment": "diffaugment"}
    advgen.train("image", data=folder, options=options, steps=2, out=tmp_path / "run", progress=False, device="cpu")
    sampled = sample_run(tmp_path / "run", 3, out=tmp_path / "drawn", device="cpu")
    assert {mode_of(path) for path in (*sampled.files, *sampled.overview)} == {"LA"}
    walked = interpolate_run(tmp_path / "run", Walk([0, 1], frames=2, kind="gif"), out=tmp_path / "walk", device="cpu")
    assert mode_of(walked.files[0]) in ("L", "P", "RGB")
    projected = project_run(tmp_path / "run", folder / "00.png", Search(steps=1, starts=1), out=tmp_path / "p", device="cpu")
    assert projected.remarks == []
    with Image.open(tmp_path / "p" / "target.png") as kept:
        assert np.array_equal(np.asarray(kept), pixels(0, 16, 2))


def test_the_orientation_of_a_camera_is_told_and_undone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (16, 8))
    picture.paste((255, 255, 255), (0, 0, 8, 8))  # white on the left: upright, on top
    file = saved(tmp_path / "a.png", picture, exif=exif)
    header = read_header(file)
    assert header.turned and (header.height, header.width) == (16, 8)
    found = decode(file, Target(3, 16, 8, False))
    assert found[:, 2, 4].min() == 255 and found[:, 13, 4].max() == 0


def animate(file: Path, num: int, seed: int = 0) -> Path:
    frames = [Image.fromarray(pixels(seed + number)) for number in range(num)]
    more = {"lossless": True} if file.suffix == ".webp" else {}
    frames[0].save(file, save_all=True, append_images=frames[1:], **more)
    return file


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_every_picture_of_an_animated_file_is_a_sample_of_its_file_s_split(tmp_path: Path, suffix: str) -> None:
    for index in range(30):
        animate(tmp_path / f"{index:02d}{suffix}", 3, seed=10 * index)
    first, every = read(tmp_path), read(tmp_path, animation="every")
    assert sum(map(len, first.splits.values())) == 30 and first.fingerprint != every.fingerprint
    rows = {name: whole(every, name).values for name in ("train", "test")}
    assert {len(part) % 3 for part in rows.values()} == {0} and len(rows["test"])
    assert torch.equal(rows["train"][::3], whole(first, "train").values)
    known = {pixels(seed).transpose(2, 0, 1).tobytes() for seed in range(300)}
    assert {row.numpy().tobytes() for row in rows["train"]} <= known


def test_gif_files_are_read(tmp_path: Path) -> None:
    file = animate(tmp_path / "a.gif", 4)
    assert read_header(file).frames == 4 and decode(file, target(3, 8)).shape == (3, 8, 8)


def test_bombs_are_refused_by_name_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path)
    Image.new("L", (40, 40)).save(tmp_path / "a" / "wide.png")
    animate(tmp_path / "b" / "long.webp", 6)
    monkeypatch.setattr(decoding, "LARGEST_PIXELS", 1000)
    monkeypatch.setattr(decoding, "LARGEST_ANIMATION", 300)
    assert len(read(tmp_path).bad) == 1 and "wide.png: 40x40 pixels are more than the limit of 1000" in read(tmp_path).bad[0]
    told = read(tmp_path, animation="every").bad
    assert "long.webp: 8x8 pixels in each of 6 pictures are more than the limit of 300" in told[1]
    with pytest.raises(DataError, match=r"wide\.png"):
        ImageModality.read(ImageConfig(), DataRequest(tmp_path, max_bad=0))


def test_pages_of_different_sizes_are_refused_by_name(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8)), Image.new("L", (8, 9))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"a\.tif: page 1 is 8x9, the first 8x8"):
        read(tmp_path, animation="every")


def test_damaged_metadata_is_a_bad_image_and_no_crash(tmp_path: Path) -> None:
    make_files(tmp_path)
    stream = io.BytesIO()
    Image.fromarray(pixels(0)).save(stream, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    (tmp_path / "a" / "odd.jpg").write_bytes(stream.getvalue())
    corpus = read(tmp_path)
    assert sum(map(len, corpus.splits.values())) + len(corpus.bad) == 41


# Zip archives


def test_a_zip_is_read_in_place_and_equals_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    one, two = read(make_files(tmp_path / "in")), read(pack(tmp_path / "in", tmp_path / "in.zip"))
    assert one.fingerprint == two.fingerprint and two.facts["classes"] == ["a", "b"] and two.facts["corpus"] == "zip"
    for name in one.splits:
        assert torch.equal(whole(one, name).values, whole(two, name).values)
    assert not (tmp_path / "cache").exists()


def test_a_damaged_member_is_named_and_skipped(tmp_path: Path) -> None:
    archive = pack(make_files(tmp_path / "in"), tmp_path / "in.zip")
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as listed:
        start = listed.getinfo("mine/a/10.png").header_offset
    content[start + 120] ^= 0xFF
    archive.write_bytes(bytes(content))
    corpus = read(archive)
    assert len(corpus.bad) == 1 and corpus.bad[0].startswith("a/10.png: ")


def test_a_zip_without_images_is_unpacked_for_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for part, count in (("train", 60), ("t10k", 10)):
        values = np.random.default_rng(count).integers(0, 256, (count, 8, 8), dtype=np.uint8)
        header = struct.pack(">4I", 0x803, *values.shape)
        (tmp_path / "in" / f"{part}-images-idx3-ubyte").write_bytes(header + values.tobytes())
    corpus = read(pack(tmp_path / "in", tmp_path / "mnist.zip"))
    assert corpus.facts["corpus"] == "idx" and len(corpus.splits["test"]) == 10


def test_a_zip_s_files_lose_the_folders_that_hold_them_all(tmp_path: Path) -> None:
    archive = pack(make_files(tmp_path / "in", 4), tmp_path / "in.zip", "one/two/")
    assert list(ZipFolder(archive).files) == ["a/00.png", "a/02.png", "b/01.png", "b/03.png"]


# The cache


def test_an_interrupted_or_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_files(tmp_path / "in")
    plain = whole(read(folder), "train").values
    real, calls = store.os.replace, []

    def killed(source: Any, destination: Any) -> None:
        calls.append(destination)
        if str(destination).endswith(".json"):
            raise KeyboardInterrupt
        real(source, destination)

    monkeypatch.setattr(store.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        read(folder, memory_mib=0)
    monkeypatch.setattr(store.os, "replace", real)
    assert torch.equal(whole(read(folder, memory_mib=0), "train").values, plain)
    (array,) = (tmp_path / "cache" / "advgen" / "images").glob("*.npy")
    array.write_bytes(array.read_bytes()[:200])
    assert torch.equal(whole(read(folder, memory_mib=0), "train").values, plain)
    array.with_suffix(".json").write_text('{"kept": ')
    assert torch.equal(whole(read(folder, memory_mib=0), "train").values, plain)
    assert not list(array.parent.glob(f"{store.DRAFT}*"))


def test_drafts_of_killed_processes_are_swept_and_those_of_living_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "JUST_MADE_SECONDS", -1)
    dead, living = tmp_path / f"{store.DRAFT}dead", tmp_path / f"{store.DRAFT}living"
    for draft in (dead, living):
        draft.mkdir()
        (draft / "values.npy").write_bytes(b"x" * 100)
    with FileLock(living / store.LOCK):
        store._sweep(tmp_path)
    assert not dead.exists() and living.exists()


def test_a_full_disk_is_a_refusal_that_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "posix_fallocate", full, raising=False)
    with pytest.raises(DataError, match=r"cannot be kept in .*No space left.*options\.memory_mib"):
        read(make_files(tmp_path / "in"), memory_mib=0)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_beyond_the_memory_are_mapped_with_the_same_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(idx, "BLOCK_BYTES", 1000)  # several blocks
    (tmp_path / "in").mkdir()
    for part, count in (("train", 60), ("t10k", 10)):
        values = np.random.default_rng(count).integers(0, 256, (count, 8, 12), dtype=np.uint8)
        write_idx(tmp_path / "in" / f"{part}-images-idx3-ubyte{suffix}", values)
    for options in ({}, {"channels": 2, "image_height": 8, "image_width": 8}):
        plain, mapped = read(tmp_path / "in", **options), read(tmp_path / "in", memory_mib=0, **options)
        assert plain.fingerprint == mapped.fingerprint and isinstance(mapped.splits["train"].store.array, np.memmap)
        assert not isinstance(plain.splits["train"].store.array, np.memmap)
        for split in plain.splits:
            assert torch.equal(whole(plain, split).values, whole(mapped, split).values)
    assert len(list((tmp_path / "cache" / "advgen" / "images").glob("*.npy"))) == 2


@pytest.mark.parametrize(("change", "found"), [(-1, "7679"), (1, "more than 7680")])
def test_idx_files_that_end_elsewhere_are_refused_and_leave_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: int, found: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "train-images-idx3-ubyte"
    write_idx(file, np.zeros((120, 8, 8), np.uint8))
    content = file.read_bytes()
    file.write_bytes(content[:change] if change < 0 else content + b"x")
    for memory_mib in (0, 512):
        with pytest.raises(DataError, match=f"holds {found} bytes of data, expected 7680"):
            read(tmp_path / "in", memory_mib=memory_mib)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_an_idx_file_that_claims_more_than_four_gibibytes_is_refused_unread(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 2**31, 64, 64))
    with pytest.raises(DataError, match="unpacks to more than 4294967296 bytes"):
        read(tmp_path)


# Mirrors, windows, and the device


def test_windows_and_mirrors_are_those_of_a_plain_loop() -> None:
    values = torch.arange(5 * 2 * 7 * 9, dtype=torch.int32).reshape(5, 2, 7, 9)
    found = viewed(values, View(margin=3, flip=True, random=True), rng(4))
    draws = torch.rand(5, 3, generator=rng(4))
    for row, (mirror, top, left) in enumerate(draws.tolist()):
        window = values[row, :, int(top * 4) :, int(left * 4) :][:, :4, :6]
        assert torch.equal(found[row], window.flip(2) if mirror < 0.5 else window)
    assert torch.equal(viewed(values[:3], View(3, True, True), rng(4)), found[:3])


def test_held_out_samples_are_the_middle_and_are_not_mirrored(tmp_path: Path) -> None:
    folder = make_files(tmp_path)
    plain, moved = read(folder), read(folder, flip=True)
    assert torch.equal(whole(plain, "test").values, whole(moved, "test").values)
    assert torch.equal(whole(plain, "train").values, whole(moved, "reference").values)
    mirrored = (whole(moved, "train").values == whole(plain, "train").values.flip(3)).flatten(1).all(1)
    assert 0.2 < mirrored.float().mean() < 0.8
    cropped = read(folder, crop_margin=4)
    assert (cropped.facts["height"], cropped.facts["width"]) == (8, 8)
    assert {whole(cropped, name).values.shape[2:] for name in cropped.splits} == {(8, 8)}


def test_a_source_that_is_kept_on_a_device_draws_the_same(tmp_path: Path) -> None:
    folder = make_files(tmp_path)
    for options in ({}, {"memory_mib": 0}):
        source = read(folder, flip=True, crop_margin=2, **options).splits["train"]
        assert isinstance(source, ImageSource) and isinstance(source, Movable)
        moved = source.to(torch.device("cpu"))
        assert isinstance(moved.store, TensorStore)
        one, two = (each.batch(torch.tensor([3, 0, 3]), rng(1)) for each in (source, moved))
        assert torch.equal(one.values, two.values) and torch.equal(one.condition["label"], two.condition["label"])


def test_sixteen_bit_images_take_two_bytes_a_value_everywhere_and_come_out_whole() -> None:
    values = np.array([0, 1, 32767, 32768, 65535], np.uint16)[:, None, None, None].repeat(4, 2)
    kept = ArrayStore(values, torch.tensor([4, 0, 3]))
    moved = kept.to(torch.device("cpu"))
    assert kept.num_bytes == moved.num_bytes == moved.values.nbytes == 3 * 4 * 2
    for store_ in (kept, moved):
        taken = store_.take(torch.tensor([2, 0]))
        assert taken.dtype == torch.int32 and taken[:, 0, 0, 0].tolist() == [32768, 65535]


def test_splits_of_images_in_memory_share_one_array(tmp_path: Path) -> None:
    corpus = read(make_files(tmp_path))
    assert len({id(source.store.array) for source in corpus.splits.values()}) == 1


def test_data_move_only_where_they_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ImageSource(TensorStore(torch.zeros(10, 1, 10, 10, dtype=torch.uint8)), None, 10)
    device = torch.device("cpu")
    assert keep_on_device(source, device, 0.5) == (source, ())
    monkeypatch.setattr("advgen.data.resident.free_bytes", lambda _: 4000)
    kept, notes = keep_on_device(source, device, 0.25)
    assert kept is not source and "are kept on cpu" in notes[0]
    left, notes = keep_on_device(source, device, 0.2)
    assert left is source and "stay in main memory" in notes[0]
    assert keep_on_device(source, device, 0.0) == (source, ())


# Hugging Face data sets


@pytest.fixture(scope="module")
def datasets() -> Any:
    found = pytest.importorskip("datasets")
    found.disable_progress_bars()
    return found


def make_set(datasets: Any, count: int, seed: int = 0, names: tuple[str, ...] = ("zebra", "ant")) -> Any:
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=list(names)), "note": datasets.Value("string")}
    rows = range(seed, seed + count)
    content = {
        "picture": [{"bytes": encoded(row), "path": None} for row in rows],
        "kind": [row % 2 for row in rows],
        "note": [f"n{row % 3}" for row in rows],
    }
    return datasets.Dataset.from_dict(content, features=datasets.Features(features))


def test_a_saved_set_keeps_its_splits_classes_and_their_order(tmp_path: Path, datasets: Any) -> None:
    parts = {"train": make_set(datasets, 30), "valid": make_set(datasets, 4, 50), "test": make_set(datasets, 6, 60)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    corpus = read(tmp_path / "saved")
    assert {name: len(source) for name, source in corpus.splits.items()} == {"train": 30, "validation": 4, "test": 6}
    assert corpus.facts["classes"] == ["zebra", "ant"] and corpus.facts["corpus"] == "hub"
    batch = whole(corpus, "test")
    assert (
        np.array_equal(batch.values[1].numpy(), pixels(61).transpose(2, 0, 1))
        and batch.condition["label"].tolist() == [0, 1] * 3
    )
    report = inspect_images(ImageConfig(), DataRequest(tmp_path / "saved"), lambda *_: None)
    assert report.count == 40 and list(report.classes.items()) == [("zebra", 20), ("ant", 20)]
    assert report.splits == {"train": 30, "validation": 4, "test": 6}


def test_rows_without_a_class_are_told(tmp_path: Path, datasets: Any) -> None:
    kinds = [None if row == 4 else row % 2 for row in range(30)]
    make_set(datasets, 30).remove_columns("kind").add_column("kind", kinds).save_to_disk(tmp_path / "saved")
    corpus = read(tmp_path / "saved", label_column="kind")
    assert corpus.facts["classes"] == []
    assert corpus.notes[0].startswith("1 of 30 images has no class (train/4), so the run is unconditional; label them, or name")


def test_parquet_files_are_read_alone_and_as_a_folder(tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    make_set(datasets, 30).to_parquet(folder / "train-00000-of-00001.parquet")
    make_set(datasets, 5, 70).to_parquet(folder / "test-00000-of-00001.parquet")
    corpus = read(tmp_path / "set", label_column="note")
    assert len(corpus.splits["test"]) == 5 and corpus.facts["classes"] == ["n0", "n1", "n2"]
    alone = read(folder / "train-00000-of-00001.parquet", label_column="none")
    assert sum(map(len, alone.splits.values())) == 30 and alone.facts["classes"] == []
    assert alone.fingerprint == read(folder / "train-00000-of-00001.parquet", label_column="none").fingerprint


def test_bytes_without_any_mark_are_images_where_one_column_has_them(tmp_path: Path, datasets: Any) -> None:
    content = {"raw": [encoded(row) for row in range(30)] + [None], "number": list(range(31))}
    datasets.Dataset.from_dict(content).save_to_disk(tmp_path / "saved")
    corpus = read(tmp_path / "saved")
    assert sum(map(len, corpus.splits.values())) == 30 and corpus.bad == ("train/30: has no image",)


def test_wrong_columns_are_refused_with_those_that_are_there(tmp_path: Path, datasets: Any) -> None:
    make_set(datasets, 30).save_to_disk(tmp_path / "saved")
    for option, name, message in (
        ("image_column", "img", r"no column 'img'.*it has picture \(.*\), kind \(int64\), note \(string\)"),
        ("image_column", "note", "column note holds no encoded images"),
        ("label_column", "picture", "expected classes, whole numbers or text"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path / "saved", **{option: name})
    make_set(datasets, 5).add_column("other", [encoded(1)] * 5).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match=r"2 columns hold images.*set options\.image_column"):
        read(tmp_path / "two")


def test_a_damaged_row_is_named(tmp_path: Path, datasets: Any) -> None:
    content = {"raw": [encoded(row) for row in range(30)] + [b"junk", b""]}
    datasets.Dataset.from_dict(content).save_to_disk(tmp_path / "saved")
    assert [reason.split(":")[0] for reason in read(tmp_path / "saved").bad] == ["train/30", "train/31"]


def test_an_address_is_fetched_by_the_package_with_its_revision(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(*names: Any, **more: Any) -> Any:
        asked.append((names, more))
        return {"train": make_set(datasets, 30), "unsupervised": make_set(datasets, 3, 90)}

    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = read("hub:owner/name@v2", subset="small")
    assert asked == [(("owner/name", "small"), {"revision": "v2"})]
    assert sum(map(len, corpus.splits.values())) == 30


def test_a_set_that_cannot_be_fetched_or_has_no_training_split_is_refused(
    datasets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"hub:owner/name .*cannot be fetched.*save_to_disk"):
        read("hub:owner/name")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"extra": make_set(datasets, 3)})
    with pytest.raises(DataError, match="has the splits extra, expected one called train"):
        read("hub:owner/name")


def test_the_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    monkeypatch.setitem(sys.modules, "datasets", None)  # so that an import fails, loaded before or not
    with pytest.raises(PluginError, match=r'pip install "advgen\[hub\]"'):
        read(tmp_path)


# gen data inspect


def test_inspection_tells_turned_animated_and_decoded_images(tmp_path: Path) -> None:
    make_files(tmp_path / "in")
    animate(tmp_path / "in" / "a" / "long.webp", 5)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels(99)).save(tmp_path / "in" / "b" / "turned.jpg", exif=exif)
    found = inspect_images(
        ImageConfig(animation="every"), DataRequest(pack(tmp_path / "in", tmp_path / "in.zip")), lambda *_: None
    )
    assert found.count == 46 and found.details["turned_by_exif"] == {"count": 1, "examples": ["b/turned.jpg"]}
    assert found.details["pictures_of_animated"]["max"] == 5
    assert found.details["decoded"] == {"mib": 0.0, "kept_in": "memory", "channels": 3}


def test_an_address_is_inspected_as_asked(datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from advgen.data.survey import inspect_data

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": make_set(datasets, 30)})
    found = inspect_data("hub:owner/name", "image", progress=False)
    assert (found.plugin, found.path, found.report.count) == ("image", "hub:owner/name", 30)
