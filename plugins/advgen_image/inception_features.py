"""Published features for evaluation: the weights of Inception from a file, the cache or the network, and its protocol."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from advgen import Batch, DataError, file_sha256, read_pickled, user_path
from advgen_image.files import to_pixels
from advgen_image.inception import Inception

URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
PUBLISHED = "6726825d"
"""The first digits of the file's sha256, as its publisher gives them in its name."""
VERSION = "1"
CHUNK = 32


class InceptionFeatures:
    """Inception behind the core's ``Judge`` protocol; it knows no class of the data."""

    name = "inception-v3-2015-12-05"
    score_name = "inception_score"

    def __init__(self, network: Inception, weights: str, device: torch.device) -> None:
        self.network, self.device = network.eval().requires_grad_(False).to(device), device
        self.identity = f"{VERSION} {weights}"
        self.protocol = {
            "layer": "the last pool, 2048 numbers; the score's 1008 logits without bias",
            "resizer": "8-bit RGB, bilinear to 299x299 as TensorFlow 1 (no smoothing), as torch-fidelity and pytorch-fid",
            "weights": f"sha256 {weights}",
        }

    def features(self, batch: Batch) -> Tensor:
        """(N, 2048) features of a prepared batch."""
        return self.features_and_logits(batch)[0]

    @torch.no_grad()
    def features_and_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(N, 2048) features and (N, 1008) logits, on the CPU."""
        parts = [self.network(part.to(self.device)) for part in as_rgb(batch.values).split(CHUNK)]
        features, logits = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
        return features, logits

    def classify(self, batch: Batch) -> None:
        """Its classes are not the data's."""


def as_rgb(values: Tensor) -> Tensor:
    """Values (N, C, H, W) in [-1, 1] -> (N, 3, H, W) uint8 as the files hold them; grey three times, transparency dropped."""
    pixels = torch.from_numpy(to_pixels(values)).permute(0, 3, 1, 2)
    return pixels[:, :1].expand(-1, 3, -1, -1) if pixels.shape[1] < 3 else pixels[:, :3]


def load_inception(cache: Path, weights: Path | None, device: torch.device) -> InceptionFeatures:
    """The network with the weights of a ``.pth`` or ``.safetensors`` file; None: those in ``cache``, fetched where missing.

    Raises:
        DataError: where the file is missing, holds other tensors or code, or cannot be fetched.
    """
    file = user_path(weights) if weights is not None else fetched(cache)
    if not file.is_file():
        raise DataError(f"--weights {file} does not exist; expected the file of {URL}, or leave --weights out to fetch it")
    with torch.device("meta"):
        network = Inception()
    network.load_state_dict(_fitting(_tensors(file), network, file), assign=True)
    return InceptionFeatures(network, file_sha256(file), device)


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix != ".safetensors":
        return read_pickled(file)
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file} is not a safetensors file ({error}); expected the weights of {URL}") from error


def _fitting(found: dict[str, Tensor], network: Inception, file: Path) -> dict[str, Tensor]:
    """The tensors that the network has, all of them; counts of batches, which evaluation does not use, may be missing."""
    expected = network.state_dict()
    counts = {name: torch.zeros((), dtype=torch.int64) for name in expected if name.endswith("num_batches_tracked")}
    found = counts | found
    wrong = sorted(name for name in expected.keys() | found.keys() if _size(found, name) != _size(expected, name))
    if wrong:
        raise DataError(
            f"{file} does not hold the weights of Inception: {len(wrong)} tensors are missing, unknown or of another size, "
            f"such as {wrong[0][:100]}; expected those of {URL}"
        )
    if bad := sorted(name for name, tensor in found.items() if not bool(torch.isfinite(tensor).all())):
        raise DataError(f"{file}: {bad[0]} holds numbers that are not finite; expected the weights of {URL}")
    return found


def _size(tensors: Mapping[str, Tensor], name: str) -> tuple[torch.Size, torch.dtype] | None:
    return (tensors[name].shape, tensors[name].dtype) if name in tensors else None


def fetched(cache: Path) -> Path:
    """The published weights in the cache, downloaded where they are not there and checked against their published hash.

    Raises:
        DataError: where they cannot be had.
    """
    file = cache / "inception" / URL.rsplit("/", 1)[1]
    if file.is_file():
        return file
    print(f"fetching {URL} (91 MiB)", file=sys.stderr, flush=True)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL, str(file), hash_prefix=PUBLISHED, progress=False)
    except (OSError, RuntimeError) as error:
        way = "download it elsewhere and give --weights FILE, or leave --features out"
        raise DataError(f"Inception's weights cannot be fetched from {URL}: {error}; {way}") from error
    return file
