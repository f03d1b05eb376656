"""Whole files through a vocoder: sound to mels and back, or saved mels to sound, in chunks.

Legend: M mel bands, F frames, T samples.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from advgen import ConfigError, DataError, sorted_paths
from advgen_audio.data.decoding import read_channels, resampled
from advgen_audio.data.files import DEFAULT_FORMAT, FORMATS, SoundWriter
from advgen_audio.data.scanning import SUFFIXES
from advgen_audio.spectra.front_ends import MelMismatchError, MelSpec, MelSpectrogram, require_same
from advgen_audio.vocoders import Vocoder, stream

MEL_SUFFIXES = (".npy", ".safetensors")
SPEC_KEY = "mel_spec"
# Least frames a chunk; two receptive fields where that is more, so that no more than half of the work is done twice.
CHUNK_FRAMES = 512
LOGGER = logging.getLogger("advgen")


def save_mel(path: Path, mel: Tensor, spec: MelSpec) -> None:
    """Write a log mel (M, F) as safetensors with its front end, so that a vocoder of another one refuses it."""
    save_file({"mel": mel.detach().cpu().contiguous()}, path, {SPEC_KEY: json.dumps(spec.to_facts())})


def find_inputs(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Files to convert, each with the name (without suffix) of what is made of it; folders are searched to any depth.

    Raises:
        DataError: where a file is of another kind, a folder has none of these, or two would be written to one name.
    """
    kinds = (*SUFFIXES, *MEL_SUFFIXES)
    found: dict[Path, Path] = {}
    for path in paths:
        own = sorted_paths(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in kinds) if path.is_dir() else [path]
        if not own or own[0].suffix.lower() not in kinds:
            raise DataError(f"--from {path}: expected {', '.join(kinds)} files, or a folder of them")
        for file in own:
            name = (file.relative_to(path) if path.is_dir() else Path(file.name)).with_suffix("")
            if name in found:
                raise DataError(f"--from: {found[name]} and {file} would both be written as {name}; give one at a time")
            found[name] = file
    return [(file, name) for name, file in found.items()]


def read_sound(path: Path, rate_hz: int) -> Tensor:
    """A file of any rate and number of channels as (T,) float32 at this rate; its level stays as it is.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    try:
        channels, own_rate_hz = read_channels(path)
        return resampled(channels.mean(1), own_rate_hz, rate_hz, path.stat().st_size)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error


def read_mel(path: Path, spec: MelSpec) -> Tensor:
    """A saved log mel (M, F) or (1, M, F) as (M, F) float32; .npy has its front end in a .json beside it, or nowhere.

    Raises:
        MelMismatchError: where its front end or its number of bands is not the run's.
        DataError: where the file holds no mel.
    """
    values, facts = _load_array(path) if path.suffix.lower() == ".npy" else _load_tensor(path)
    if facts is not None:
        require_same(spec, MelSpec.from_facts(facts), expected_by="the run", found_in=path.name)
    else:
        # Two front ends with as many bands give mels of one shape, and only one of them sounds right.
        LOGGER.warning("%s says nothing of its mel front end; only its number of bands is checked", path.name)
    mel = values[0] if values.dim() == 3 and len(values) == 1 else values
    if mel.dim() != 2 or not mel.is_floating_point() or not mel.shape[-1] or not bool(torch.isfinite(mel).all()):
        raise DataError(f"{path}: {tuple(values.shape)} {values.dtype} is no mel; expected finite floats ({spec.num_mels}, F)")
    if len(mel) != spec.num_mels:
        raise MelMismatchError(f"{path}: {len(mel)} bands and {mel.shape[1]} frames; the run has {spec.num_mels} bands")
    return mel.float()


def _load_array(path: Path) -> tuple[Tensor, dict[str, object] | None]:
    beside = path.with_suffix(".json")
    try:
        values = torch.from_numpy(_read_array(path))
        return values, json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else None
    except (OSError, ValueError, TypeError, EOFError, MemoryError, OverflowError, RecursionError, SyntaxError) as error:
        told = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: not readable as an array ({told}); expected floats (M, F)") from error


def _read_array(path: Path) -> np.ndarray:
    """Read an .npy file, if it holds as many numbers as its header says.

    Raises:
        OSError, ValueError, EOFError: if it does not.
    """
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_column, kind = reader(stream)
        held, said = path.stat().st_size - stream.tell(), math.prod(shape) * kind.itemsize
        if kind.hasobject or min((0, *shape)) < 0 or held != said:
            raise ValueError(f"its header says {shape} of {kind}, and {held} bytes follow")
        values = np.fromfile(stream, kind)
    return values.reshape(shape, order="F" if by_column else "C")


def _load_tensor(path: Path) -> tuple[Tensor, dict[str, object] | None]:
    try:
        with safe_open(path, "pt") as file:
            names, facts = list(file.keys()), (file.metadata() or {}).get(SPEC_KEY)
            if names != ["mel"] and len(names) != 1:
                raise DataError(f"{path}: holds {', '.join(names) or 'nothing'}; expected one tensor, mel")
            return file.get_tensor(names[0]), json.loads(facts) if facts else None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not readable as safetensors ({error}); expected one tensor, mel") from error


def mel_of_file(path: Path, mel: MelSpectrogram) -> tuple[Tensor, int]:
    """A file's log mel (1, M, F), and how many samples its copy has: those of the file at the run's rate."""
    spec = mel.spec
    if path.suffix.lower() in MEL_SUFFIXES:
        found = read_mel(path, spec)
        return found[None], max(1, found.shape[1] - (spec.padding == "center")) * spec.hop
    waveform = read_sound(path, spec.rate_hz)
    whole = torch.nn.functional.pad(waveform, (0, -len(waveform) % spec.hop))
    return mel(whole[None]), len(waveform)


def copy_files(
    vocoder: Vocoder, spec: MelSpec, paths: Sequence[Path], folder: Path, file_format: str = DEFAULT_FORMAT
) -> list[Path]:
    """Write a sound file for each file; every file is found before the first is written.

    Raises:
        DataError, MelMismatchError: naming the file that cannot be used.
    """
    fixed, mel, written = vocoder.for_inference(), MelSpectrogram(spec), list[Path]()
    for path, name in find_inputs(paths):
        target = folder / name.with_name(name.name + FORMATS[file_format].suffix)
        if target.resolve() == path.resolve():
            raise ConfigError(f"--out {folder} would write over {path}; choose another")
        found, length = mel_of_file(path, mel)
        target.parent.mkdir(parents=True, exist_ok=True)
        with SoundWriter(target, spec.rate_hz, file_format) as file:
            for part in _chunks(fixed, found, length):
                file.write(part)
        written.append(target)
    return written


def _chunks(vocoder: Vocoder, mel: Tensor, length: int) -> Iterator[Tensor]:
    """Parts (T,) that join to ``length`` samples."""
    place = next(vocoder.parameters(), torch.zeros(()))
    left = length
    for part in stream(vocoder, mel.to(place), max(CHUNK_FRAMES, 2 * vocoder.receptive_field)):
        yield part[0, 0, :left].float()
        left -= part.shape[-1]
        if left <= 0:
            return
