"""HiFi-GAN checkpoints as their authors publish them, read into a run of this plugin.

A checkpoint is a pickle ``g_XXXXXXXX`` with the generator's tensors under ``generator``, beside a ``config.json``; what its
training left stands in ``do_XXXXXXXX``.
Source: Kong et al. 2020, https://arxiv.org/abs/2010.05646 and https://github.com/jik876/hifi-gan
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import torch
from pydantic import ValidationError
from torch import Tensor

from advgen import DataError, Imported, read_json, read_pickled, sorted_paths
from advgen_audio.config import AudioConfig
from advgen_audio.data import notes
from advgen_audio.data.segments import pack_clips
from advgen_audio.spectra.front_ends import SPECS, MelSpec
from advgen_audio.torchaudio_parts import resample
from advgen_audio.vocoders import HifiganShape, hifigan_shape, upsampling_strides
from advgen_audio.vocoding.critics_import import read_training
from advgen_audio.vocoding.published import MOST_NAMED, fitting
from advgen_audio.vocoding.task import make_critics, make_vocoder, segment_length

TABLE = "generator/"
OURS = "vocoder."
NUM_EXAMPLES = 8
LARGEST_SIZE = 1_000_000
"""Most channels, samples or Hz, far above all published networks."""
MOST_STAGES = 16
MOST_CONFIG_BYTES = 2**20
MOST_TOLD = 100


def import_hifigan(path: Path) -> Imported:
    """A published generator, with the front end and sizes of its config.json, and the critics that it was trained with.

    Raises:
        DataError: where a file is missing or no checkpoint, or sizes or tensors do not fit, each named.
    """
    checkpoint, about = _find_files(path)
    settings = _Settings.read(about)
    shape, spec = _shape(settings), _front_end(settings)
    preset, options = _options(shape, spec)
    config = _checked_options(options, about)
    with torch.device("meta"):  # tensors without values, to compare sizes before memory is used
        vocoder, critics = make_vocoder(config, spec), make_critics("hifigan")
    tensors = fitting(_published(checkpoint), vocoder.state_dict(), str(checkpoint), "its config.json")
    training = read_training(checkpoint, vocoder, critics)
    segment = segment_length(config, spec)
    facts = {
        "corpus": "imported",
        "sample_rate_hz": spec.rate_hz,
        "length": segment,
        "classes": [],
        "mel": spec.to_facts(),
        "examples": _examples(spec.rate_hz, segment),
    }
    note = "without --from, gen sample shows copies of the plugin's own notes: the checkpoint brings no sound"
    own = {OURS + name: tensor for name, tensor in tensors.items()}
    notes = (*training.notes, note)
    return Imported(checkpoint, own, facts, preset, options, notes, training.discriminator, training.optimizers)


def _find_files(path: Path) -> tuple[Path, Path]:
    """The checkpoint, the newest one of a folder, and its config.json."""
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        found = sorted_paths(each for each in path.iterdir() if re.fullmatch(r"(g|generator)_\w+(\.pth?)?", each.name))
        if not found:
            raise DataError(f"{path} holds no file named like g_02500000; expected a generator's checkpoint, or name the file")
        path = found[-1]
    about = folder / "config.json"
    if not about.is_file():
        raise DataError(f"{about} is missing; the checkpoint does not say its sizes: put the config.json it came with there")
    return path, about


class _Settings:
    """Entries of a config.json, each refused by name where it is missing or of another kind."""

    def __init__(self, file: Path, entries: Mapping[str, Any]) -> None:
        self.file, self.entries = file, entries

    @classmethod
    def read(cls, file: Path) -> _Settings:
        try:
            return cls(file, read_json(file, MOST_CONFIG_BYTES))
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read as JSON ({error})") from error

    def number(self, name: str) -> int:
        """A whole number above 0."""
        value = self.entries.get(name)
        if not _is_size(value):
            raise self.refusal(name, f"expected a whole number above 0, {LARGEST_SIZE:,} at most")
        return value

    def frequency(self, name: str) -> float | None:
        """A frequency in Hz, or none."""
        value = self.entries.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST_SIZE):
            raise self.refusal(name, "expected a frequency in Hz or null")
        return None if value is None else float(value)

    def numbers(self, name: str) -> tuple[Any, ...]:
        """A list of whole numbers, or of such lists."""
        value = self.entries.get(name)
        if not isinstance(value, list) or not 0 < len(value) <= MOST_STAGES:
            raise self.refusal(name, f"expected a list of whole numbers, {MOST_STAGES} at most")
        found = tuple(tuple(item) if isinstance(item, list) else item for item in value)
        flat = [number for item in found for number in (item if isinstance(item, tuple) else (item,))]
        if not all(map(_is_size, flat)):
            raise self.refusal(name, f"expected whole numbers above 0, {LARGEST_SIZE:,} at most")
        return found

    def refusal(self, name: str, expected: str) -> DataError:
        came = repr(self.entries[name]) if name in self.entries else "missing"
        came = came if len(came) <= MOST_TOLD else f"{came[:MOST_TOLD]}..."
        return DataError(f"{self.file}: {name} is {came}; {expected}")


def _is_size(value: Any) -> TypeGuard[int]:
    return type(value) is int and 1 <= value <= LARGEST_SIZE


def _shape(settings: _Settings) -> HifiganShape:
    """Sizes of the generator.

    Raises:
        DataError: where this plugin's network cannot have them.
    """
    strides, kernels = settings.numbers("upsample_rates"), settings.numbers("upsample_kernel_sizes")
    if kernels != tuple(2 * stride for stride in strides) or any(stride % 2 for stride in strides):
        # With an odd stride the published layers give one sample too many at each stage.
        raise settings.refusal("upsample_kernel_sizes", f"only even rates and kernels of twice the rates {strides} are read")
    hop = settings.number("hop_size")
    kinds = {version: hifigan_shape(version, num_mels=settings.number("num_mels"), hop=hop) for version in (1, 3)}
    if str(settings.entries.get("resblock")) not in ("1", "2"):
        raise settings.refusal("resblock", "expected '1' or '2'")
    shape = kinds[1 if str(settings.entries["resblock"]) == "1" else 3]
    for name, own in (("resblock_kernel_sizes", shape.kernels), ("resblock_dilation_sizes", shape.dilations)):
        if settings.numbers(name) != own:
            raise settings.refusal(name, f"only {own} is read with this resblock")
    product = math.prod(strides)
    if product != hop:
        raise settings.refusal("hop_size", f"expected the product of upsample_rates, {product}")
    return replace(shape, channels=settings.number("upsample_initial_channel"), strides=strides)


def _front_end(settings: _Settings) -> MelSpec:
    fmin, fmax = settings.frequency("fmin") or 0.0, settings.frequency("fmax")
    try:
        return MelSpec(
            rate_hz=settings.number("sampling_rate"),
            n_fft=settings.number("n_fft"),
            hop=settings.number("hop_size"),
            window=settings.number("win_size"),
            num_mels=settings.number("num_mels"),
            fmin_hz=fmin,
            fmax_hz=fmax,
        )
    except ValueError as error:
        raise DataError(f"{settings.file}: its mel front end is not possible: {' '.join(str(error).split())}") from error


def _options(shape: HifiganShape, spec: MelSpec) -> tuple[str, dict[str, Any]]:
    """The preset that comes closest, and this plugin's options that make the same network and front end."""
    versions = {version: hifigan_shape(version) for version in (1, 2, 3)}
    alike = [number for number, own in versions.items() if (own.paired, own.kernels) == (shape.paired, shape.kernels)]
    version = next((number for number in alike if versions[number].channels == shape.channels), alike[0])
    published, options = versions[version], dict[str, Any](task="vocode", vocoder=f"hifigan-v{version}", critics="hifigan")
    if published.channels != shape.channels:
        options["vocoder_channels"] = shape.channels
    if upsampling_strides(shape.hop, published.num_stages) != shape.strides:
        options["vocoder_strides"] = shape.strides
    if spec.model_copy(update={"window": None}) == SPECS["hifigan"] and spec.window == spec.n_fft:
        return f"hifigan-v{version}", options | {"mel": "hifigan"}
    front: dict[str, Any] = {
        "mel": None,
        "sample_rate_hz": spec.rate_hz,
        "n_fft": spec.n_fft,
        "hop": spec.hop,
        "num_mels": spec.num_mels,
    }
    front |= {"mel_window": spec.window, "mel_range_hz": (spec.fmin_hz, spec.highest_hz)}
    segment = max(1, round(8192 / spec.hop)) * spec.hop
    return f"hifigan-v{version}", options | front | {"segment": segment}


def _checked_options(options: dict[str, Any], about: Path) -> AudioConfig:
    try:
        return AudioConfig(**options)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise DataError(f"{about}: its network is not possible here ({said})") from error


def _published(checkpoint: Path) -> dict[str, Tensor]:
    """The generator's tensors by published name.

    Raises:
        DataError: where the file holds something else.
    """
    found = read_pickled(checkpoint)
    own = {name.removeprefix(TABLE): tensor for name, tensor in found.items() if name.startswith(TABLE)}
    if not own:
        tables = ", ".join(sorted({name.split("/")[0] for name in found})[:MOST_NAMED])
        raise DataError(f"{checkpoint} holds {tables}; expected a HiFi-GAN generator, a table 'generator' of tensors")
    return own


def _examples(rate_hz: int, segment: int) -> list[str]:
    """Notes to show the copies of, one after the other to fill each segment."""
    waveforms, _ = notes.make_notes()
    spread = waveforms[:: len(waveforms) // NUM_EXAMPLES][:NUM_EXAMPLES]
    clips = resample(spread, notes.RATE_HZ, rate_hz)
    return pack_clips(clips.repeat(1, -(-segment // clips.shape[1]))[:, :segment])
