"""Images, arrays, sound, tables and tokenizers whose headers lie are refused in one line, before memory is taken for them."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import peak_below
from PIL import Image

from advgen import DataError, DataRequest
from advgen_audio.config import AudioConfig
from advgen_audio.data.decoding import read_channels, resampled
from advgen_audio.data.loading import load_folder
from advgen_audio.data.scanning import Rejects, scan
from advgen_audio.spectra.front_ends import MelSpec
from advgen_audio.vocoding.copy_synthesis import read_mel
from advgen_image import decoding
from advgen_image.config import ImageConfig
from advgen_image.decoding import BadImage, Target, decode_each, read_header
from advgen_image.folder import read_folder
from advgen_image.idx import read_idx
from advgen_text.config import TextConfig
from advgen_text.data import learn
from advgen_text.decoding import _lines
from advgen_text.reading import Notes, read_lines

MEBIBYTE = 2**20
SMALL = Target(3, 8, 8, False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def one_line(error: BaseException) -> None:
    assert "\n" not in str(error) and "Traceback" not in str(error) and len(str(error)) < 900, str(error)


def large_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 8 * MEBIBYTE]


# idx files


def idx(*shape: int, held: int = 0, kind: int = 8) -> bytes:
    return struct.pack(f">2xBB{len(shape)}I", kind, len(shape), *shape) + bytes(held)


IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"
IDX: dict[str, tuple[dict[str, bytes], str]] = {
    "3 GiB in 16 bytes": ({IMAGES: idx(3 * 2**10, 2**10, 2**10)}, "holds 0 bytes of data, expected 3221225472"),
    "2^96 bytes": ({IMAGES: idx(2**32 - 1, 2**32 - 1, 2**32 - 1)}, "unpacks to more than"),
    "more than it says": ({IMAGES: idx(2, 8, 8, held=1000)}, "holds more than 128 bytes of data"),
    "3 GiB in a gzip of 60 bytes": ({f"{IMAGES}.gz": gzip.compress(idx(3 * 2**10, 2**10, 2**10))}, "holds less than"),
    "1.5 GiB in a gzip of 2 MiB": (
        {f"{IMAGES}.gz": gzip.compress(idx(1536, 2**10, 2**10), 0) + np.random.default_rng(0).bytes(2 * MEBIBYTE)},
        "unpacks to more than 1 GiB, too much for a file of 2 MiB",
    ),
    "a gzip with nothing behind": ({f"{IMAGES}.gz": gzip.compress(idx(40, 8, 8))}, "holds 0 bytes of data, expected 2560"),
    "a gzip that goes on": ({f"{IMAGES}.gz": gzip.compress(idx(2, 8, 8, held=9 * MEBIBYTE))}, "holds more than 128 bytes"),
    "a gzip that is none": ({f"{IMAGES}.gz": b"\x1f\x8b" + bytes(90)}, "cannot be read"),
    "11 million images of one pixel": ({IMAGES: idx(11_000_000, 1, 1, held=11_000_000)}, "expected at most 10000000"),
    "4 billion labels": ({IMAGES: idx(40, 8, 8, held=2560), LABELS: idx(2**32 - 1)}, "holds|unpacks to more than"),
    "1 GiB of labels": ({IMAGES: idx(40, 8, 8, held=2560), f"{LABELS}.gz": gzip.compress(idx(2**30))}, "expected"),
    "64-bit floats": ({IMAGES: idx(40, 8, 8, held=2560, kind=0x0E)}, "type 0x0e"),
}


@pytest.mark.parametrize("case", IDX)
def test_an_idx_header_that_lies_is_refused_before_anything_is_allocated(case: str, tmp_path: Path) -> None:
    files, message = IDX[case]
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(content)
    for memory_mib in (0, 512):
        with pytest.raises(DataError, match=message) as told:
            read_idx(tmp_path / "in", ImageConfig(memory_mib=memory_mib))
        one_line(told.value)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_an_idx_file_of_one_value_that_shrinks_a_thousandfold_is_read(tmp_path: Path) -> None:
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx(2000, 28, 28, held=2000 * 28 * 28)))
    assert read_idx(tmp_path, ImageConfig()).values.shape == (2000, 1, 28, 28)


# Images


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, data: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def animation(num_frames: int, side: int = 1) -> bytes:
    control = chunk(b"acTL", struct.pack(">II", num_frames, 0))
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, side, side, 0, 0, 1, 1, 0, 0))
    return png(side, side, control, frame, data=bytes(side * (3 * side + 1)))


def gif(width: int, height: int, frame: tuple[int, int]) -> bytes:
    """Two pictures, the second of which goes beyond the first one's canvas."""
    stream = io.BytesIO()
    pictures = [Image.new("L", (8, 8), shade) for shade in (0, 99)]
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:])
    content = bytearray(stream.getvalue())
    struct.pack_into("<HH", content, 6, width, height)
    last = content.rindex(b"\x2c")
    struct.pack_into("<HH", content, last + 5, *frame)
    return bytes(content)


def tiff(*tags: tuple[int, int, int]) -> bytes:
    """A picture of 8x8 with these tags (number, kind, value) besides its own."""
    own = {256: (3, 8), 257: (3, 8), 258: (3, 8), 259: (3, 8), 262: (3, 1), 277: (3, 1), 278: (3, 8), 273: (4, 8), 279: (4, 20)}
    entries = {**own, **{number: (kind, value) for number, kind, value in tags}}
    body = zlib.compress(bytes(64)).ljust(20, b"\0")
    directory = struct.pack("<H", len(entries))
    for number, (kind, value) in sorted(entries.items()):
        directory += struct.pack("<HHII", number, kind, 1, value)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + bytes(4)


def webp(width: int, height: int) -> bytes:
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


PICTURES: dict[str, tuple[bytes, str]] = {
    "PNG of 65535x65535": (png(65535, 65535), "too many pixels|more than the limit"),
    "PNG of 2^31 columns": (png(2**31 - 1, 1), "too many pixels|more than the limit"),
    "PNG just above the limit": (png(8193, 8192), "8193x8192 pixels are more than the limit"),
    "PNG that Pillow only warns of": (png(10_000, 10_000), "too many pixels|more than the limit"),
    "PNG with 64 MiB of text": (png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 * MEBIBYTE)))), "cannot be opened"),
    "PNG with 64 MiB of international text": (
        png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(64 * MEBIBYTE)))),
        "cannot be opened",
    ),
    "PNG with 64 MiB of colour profile": (
        png(8, 8, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64 * MEBIBYTE)))),
        "cannot be opened|damaged",
    ),
    "PNG without a picture": (png(64, 64), "damaged|truncated"),
    "APNG of 10^9 pictures": (animation(10**9), "promises 1000000000 pictures"),
    "APNG of 2^31 pictures": (animation(2**31), "pictures|damaged|cannot be opened"),
    "APNG of 5000 large pictures": (animation(5000, 512), "512x512 pixels in each of 5000 pictures"),
    "GIF of 65535x65535": (gif(65535, 65535, (8, 8)), "too many pixels|more than the limit"),
    "GIF that grows": (gif(8, 8, (65535, 65535)), "too many pixels|more than the limit|damaged|cannot be opened"),
    "TIFF of 65535x65535": (tiff((256, 3, 65535), (257, 3, 65535)), "too many pixels|more than the limit"),
    "TIFF with tiles of 65535x65535": (tiff((322, 3, 65520), (323, 3, 65520)), "tiles of 65520x65520 pixels"),
    "TIFF with a thousand colours": (tiff((277, 3, 1000)), "not a PNG"),
    "TIFF with strips of 4 GiB": (tiff((279, 4, 2**32 - 1)), "damaged|cannot be opened"),
    "WebP of 16383x16383": (webp(16383, 16383), "too many pixels|more than the limit|cannot be opened|not a PNG"),
    "WebP of 2^24x2^24": (webp(2**24, 2**24), "too many pixels|more than the limit|cannot be opened|not a PNG"),
    "BMP of 30000x30000": (bmp(30_000, 30_000), "too many pixels|more than the limit"),
    "BMP of 2^31 rows": (bmp(8, -(2**31)), "too many pixels|more than the limit|cannot be opened|not a PNG"),
}


@pytest.mark.parametrize("where", ["file", "zip"])
@pytest.mark.parametrize("case", PICTURES)
def test_a_picture_that_promises_too_much_is_a_bad_image_in_one_line(case: str, where: str, tmp_path: Path) -> None:
    content, message = PICTURES[case]
    place: Any = tmp_path / "a.png"
    place.write_bytes(content)
    if where == "zip":
        place = lambda: io.BytesIO(content)  # noqa: E731
    with pytest.raises((BadImage, OSError), match=message) as told:
        header = read_header(place, every=True)
        for found in decode_each(place, SMALL, range(header.frames)):
            if isinstance(found, BadImage):
                raise found
    one_line(told.value)


def test_a_folder_of_small_files_that_decode_to_gigabytes_is_refused_before_the_disk_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(30):
        (tmp_path / "in" / f"{number}.tif").write_bytes(tiff((256, 3, 8000), (257, 3, 8000)))
    with pytest.raises(DataError, match=r"decode to 1\.788 GiB, too much for files of .* KiB \(limit 1 GiB\)") as told:
        read_folder(ImageConfig(memory_mib=0), DataRequest(tmp_path / "in"))
    one_line(told.value)
    monkeypatch.setenv("ADVGEN_MAX_UNPACKED_GIB", "2")
    monkeypatch.setattr("advgen_image.store.free_bytes", lambda folder: MEBIBYTE)
    with pytest.raises(DataError, match="No space left on device; make room there"):
        read_folder(ImageConfig(memory_mib=0), DataRequest(tmp_path / "in"))
    assert not large_files(tmp_path)


def test_flat_pictures_that_shrink_some_hundred_times_are_read(tmp_path: Path) -> None:
    for number in range(20):
        Image.new("RGB", (256, 256), (number, 0, 0)).save(tmp_path / f"{number}.png")
    found, _ = read_folder(ImageConfig(), DataRequest(tmp_path))
    assert found.values.shape == (20, 3, 256, 256)


def test_large_pictures_are_decoded_by_few_threads_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []

    class Gate:
        def __enter__(self) -> None:
            entered.append(1)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(decoding, "LARGE_PIXELS", 100)
    monkeypatch.setattr(decoding, "LARGE_AT_ONCE", Gate())
    for side in (8, 16):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side}.png")
        next(decode_each(tmp_path / f"{side}.png", SMALL, [0]))
    assert len(entered) == 1


# Sound


def wav(rate_hz: int = 8000, channels: int = 1, num_bytes: int = 32, said: int | None = None, bits: int = 16) -> bytes:
    block = channels * bits // 8
    about = struct.pack("<HHIIHH", 1, channels, rate_hz, min(rate_hz * block, 2**32 - 1), block % 2**16, bits)
    data = b"data" + struct.pack("<I", num_bytes if said is None else said) + b"\1" * num_bytes
    body = b"WAVE" + b"fmt " + struct.pack("<I", len(about)) + about + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def flac(num_samples: int, rate_hz: int = 8000, channels: int = 1) -> bytes:
    """A whole FLAC file whose header says another number of samples."""
    stream = io.BytesIO()
    soundfile.write(stream, np.sin(np.arange(4096 * channels).reshape(-1, channels)) * 0.5, rate_hz, format="FLAC")
    content = bytearray(stream.getvalue())
    packed = int.from_bytes(content[18:26], "big")
    content[18:26] = (packed >> 36 << 36 | num_samples).to_bytes(8, "big")
    return bytes(content)


SOUNDS: dict[str, tuple[bytes, str]] = {
    "FLAC of 2^36 samples": (flac(2**36 - 1), "promises 68719476735 samples in 1 channels"),
    "FLAC of 10^10 samples": (flac(10**10, channels=2), "promises 10000000000 samples in 2 channels"),
    "WAV of 10^9 Hz": (wav(10**9), "says 1000000000 Hz, expected 100 to 1000000"),
    "WAV of 1 Hz": (wav(1), "says 1 Hz"),
    "WAV of 0 Hz": (wav(0), "says 0 Hz|not readable as sound"),
    "WAV of 1000 channels": (wav(channels=1000, num_bytes=4000), "says 1000 channels|not readable as sound"),
    "WAV of 60000 channels": (wav(channels=60_000), "channels|not readable as sound|holds no samples"),
    "WAV of no channels": (wav(channels=0), "channels|not readable as sound|holds no samples"),
    "WAV of 32768 bits": (wav(bits=32768), "not readable as sound|holds no samples"),
    "WAV of nothing": (wav(num_bytes=0, said=2**32 - 2), "holds no samples"),
    "OGG of nothing": (b"OggS" + bytes(60), "not readable as sound"),
    "MP3 of nothing": (b"ID3" + b"\x7f" * 60, "not readable as sound|holds no samples"),
}


@pytest.mark.parametrize("case", SOUNDS)
def test_a_sound_file_that_promises_too_much_is_left_out_in_one_line(case: str, tmp_path: Path) -> None:
    content, message = SOUNDS[case]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / f"a.{case.split()[0].lower()}").write_bytes(content)
    with pytest.raises(DataError, match=message) as told:
        scan(folder, AudioConfig(), Rejects(folder, 10))
    one_line(told.value)
    with pytest.raises(ValueError, match=message):
        read_channels(next(folder.iterdir()))


def test_a_wav_header_that_promises_4_gib_gives_the_samples_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(said=2**32 - 2))
    channels, _ = read_channels(tmp_path / "a.wav")
    assert channels.shape == (16, 1)


def test_rates_without_a_common_measure_are_refused_and_usual_ones_are_not(tmp_path: Path) -> None:
    clip = read_clip(tmp_path)
    for rate_hz, to_hz in ((8000, 16_000), (44_100, 48_000), (11_025, 16_000), (22_254, 22_050)):
        assert len(resampled(clip, rate_hz, to_hz, 10_000)) > 0
    for rate_hz, to_hz in ((999_983, 16_000), (44_101, 44_100), (191_999, 8000)):
        with pytest.raises(ValueError, match="needs too large a filter"):
            resampled(clip, rate_hz, to_hz, 10_000)


def test_a_low_rate_that_multiplies_samples_is_refused(tmp_path: Path) -> None:
    clip = read_clip(tmp_path).repeat(40_000)
    with pytest.raises(ValueError, match="640000 samples at 100 Hz would be too many at 192000 Hz"):
        resampled(clip, 100, 192_000, 10_000)


def read_clip(folder: Path) -> Any:
    (folder / "clip.wav").write_bytes(wav())
    return read_channels(folder / "clip.wav")[0][:, 0]


def test_many_small_sounds_that_decode_to_gigabytes_are_refused_together(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.flac").write_bytes(flac(60_000_000))
    with pytest.raises(DataError, match=r"decodes to 1\.341 GiB, too much for files of .* KiB \(limit 1 GiB\)") as told:
        load_folder(AudioConfig(), DataRequest(folder))
    one_line(told.value)
    assert not large_files(tmp_path)


# Arrays of mels


def npy(header: str, held: bytes = b"") -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + held


def described(shape: str, kind: str = "<f4") -> str:
    return f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}"


def zipped_array() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as whole:
        whole.writestr("a.npy", npy(described("(1000, 1000)")) + bytes(4_000_000))
    return stream.getvalue()


ARRAYS = {
    "10^12 numbers": npy(described("(80, 12500000000)")),
    "2^64 numbers": npy(described("(4294967296, 4294967296)")),
    "a size below zero": npy(described("(80, -1)")),
    "objects": npy(described("(80, 4)", "|O"), b"cos\nsystem\n"),
    "a header of 60,000 brackets": b"\x93NUMPY\1\0" + struct.pack("<H", 60_000) + b"(" * 60_000,
    "a header of 4 GiB": b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{",
    "no header": b"\x93NUMPY",
    "an archive of arrays": zipped_array(),
    "nothing": b"",
}


@pytest.mark.parametrize("case", ARRAYS)
def test_an_array_that_lies_is_no_mel(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(ARRAYS[case])
    with pytest.raises(DataError, match=r"not readable as an array|is no mel") as told:
        read_mel(tmp_path / "a.npy", MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=80))
    one_line(told.value)


# Text


def test_a_line_of_twelve_megabytes_is_cut_and_one_object_of_it_is_a_bad_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * 2_500_000 + b"\nnext line\n")
    config, request = TextConfig(max_length=8), DataRequest(tmp_path / "a.txt")
    lines = list(read_lines([tmp_path / "a.txt"], config, request, Notes()))
    assert [line.number for line in lines] == [1, 2] and len(lines[0].text) <= 8 * 64
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "' + b"a" * 5_000_000 + b'"}\n{"text": "whole"}\n')
    notes = Notes()
    assert [line.text for line in read_lines([tmp_path / "a.jsonl"], config, request, notes)] == ["whole"]
    assert "is longer than 4194304 bytes" in notes.bad[0]


OBJECTS = {
    "nested": "[" * 200_000,
    "nested in a field": '{"text": ' + '{"a":' * 100_000,
    "a number of 100,000 digits": '{"text": "a", "label": ' + "1" * 100_000 + "}",
    "half a character": '{"text": "\\ud800"}',
    "a list": '["text"]',
    "a table as text": '{"text": {}}',
}


@pytest.mark.parametrize("case", OBJECTS)
def test_a_hostile_object_is_one_bad_line(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(OBJECTS[case] + '\n{"text": "good"}\n')
    notes = Notes()
    found = read_lines([tmp_path / "a.jsonl"], TextConfig(), DataRequest(tmp_path / "a.jsonl"), notes)
    assert [line.text for line in found] == ["good"] and len(notes.bad) == 1 and "a.jsonl line 1" in notes.bad[0]
    assert len(notes.bad[0]) < 600


def test_prompts_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advgen_text.decoding.MOST_PROMPT_BYTES", 20)
    (tmp_path / "prompts.txt").write_text("a prompt\n" * 3)
    with pytest.raises(DataError, match="it has more than 20 bytes"):
        _lines(tmp_path / "prompts.txt")


def tokenizer(**changes: Any) -> str:
    own: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1}, "unk_token": "<unk>"},
    }
    return json.dumps(own | changes)


TOKENIZERS = {
    "nested": "[" * 100_000,
    "not JSON": "\0" * 100,
    "a large number of a word": tokenizer(model={"type": "WordLevel", "vocab": {"a": 2**40}, "unk_token": "a"}),
    "pieces of no length": tokenizer(pre_tokenizer={"type": "FixedLength", "length": 0}),
    "a map that is none": tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "an expression without an end": tokenizer(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "(" * 2000}, "behavior": "Isolated", "invert": False}
    ),
    "text that multiplies": tokenizer(
        normalizer={
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": {"String": " "}, "content": " " * 20}] * 3,
        },
        pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False},
    ),
    "an empty vocabulary": tokenizer(model={"type": "Unigram", "vocab": [], "unk_id": 7}),
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_hostile_tokenizer_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(TOKENIZERS[case])
    with pytest.raises(DataError, match=r"tokenizer\.json cannot be read as a tokenizer") as told:
        learn([], TextConfig(pretrained=str(tmp_path), generator="transformer"))
    one_line(told.value)


def test_a_tokenizer_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advgen_text.data.MOST_JSON_BYTES", 100)
    (tmp_path / "tokenizer.json").write_text(tokenizer())
    with pytest.raises(DataError, match="it has more than 100 bytes"):
        learn([], TextConfig(pretrained=str(tmp_path), generator="transformer"))


# Memory


def test_memory_stays_bounded_for_all_hostile_images_idx_files_and_sounds(tmp_path: Path) -> None:
    for name in ("images", "sounds", *map(str, range(len(IDX)))):
        (tmp_path / name).mkdir()
    for number, (files, _) in enumerate(IDX.values()):
        for name, content in files.items():
            (tmp_path / str(number) / name).write_bytes(content)
    for number, (content, _) in enumerate(PICTURES.values()):
        (tmp_path / "images" / f"{number:02d}.png").write_bytes(content)
    for number, (content, _) in enumerate(SOUNDS.values()):
        (tmp_path / "sounds" / f"{number:02d}.wav").write_bytes(content)
    with peak_below(150):
        for number in range(len(IDX)):
            with pytest.raises(DataError):
                read_idx(tmp_path / str(number), ImageConfig())
        with pytest.raises(DataError):
            read_folder(ImageConfig(animation="every"), DataRequest(tmp_path / "images"))
        with pytest.raises(DataError):
            load_folder(AudioConfig(), DataRequest(tmp_path / "sounds", 100))
