"""Single samples by their seeds, what lies between two of them, and latents as files. Legend: B batch, K classes.

Every sample is rendered alone, so that one seed gives one sample to the bit, whatever is asked for beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from advgen.contracts import Batch, Generator, Modality
from advgen.drawing import towards_mean
from advgen.errors import ConfigError, DataError
from advgen.files import drafted
from advgen.randomness import keyed_generator, seed_networks, untouched
from advgen.tensor_files import Sizes, TensorFile, open_file
from advgen.transfer import float_type
from advgen.weights import SAVED_TYPES, reason, value_fault

PARALLEL = 1e-4
LATENT, LABEL = "latent", "label"
MOST_PLACES = 10_000
MOST_BYTES = 2**30
NOISE, MAPPED = "noise", "mapped"


@dataclass(frozen=True)
class Place:
    """One point that a generator can render.

    Args:
        latent: (1, ...) on the generator's device.
        condition: names to tensors (1, ...); ``label`` may be shares (1, K) where the modality says ``mixed_labels``.
    """

    latent: Tensor
    condition: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    """Where the samples of one generator lie; the generator is in evaluation mode."""

    generator: Generator
    modality: Modality[Any]
    device: torch.device
    truncation: float | None = None

    @property
    def kind(self) -> str:
        """``mapped`` behind a mapping network, else ``noise``."""
        return MAPPED if self.generator.mapped else NOISE

    @torch.no_grad()
    def place(self, seed: int, label: int | None = None) -> Place:
        """The place of a seed; its noise is the same in every class, its class as in the data where none is asked for."""
        condition = self.modality.condition(1, keyed_generator(seed, "seed", "condition"), label=label)
        condition = {name: value.to(self.device) for name, value in condition.items()}
        noise = self.modality.noise(1, keyed_generator(seed, "seed", "noise")).to(self.device)
        noise = noise.to(float_type(self.generator)) if noise.is_floating_point() else noise
        latent = self.generator.latent(noise, condition)
        chosen = self.generator.truncation if self.truncation is None else self.truncation
        return Place(towards_mean(self.generator, self.modality, latent, condition, chosen), condition)

    @torch.no_grad()
    def render(self, place: Place) -> Batch:
        """One sample on the CPU, in the prepared scale; what lies between two classes counts as the larger share's."""
        with untouched(self.device):
            seed_networks(0, "latent")
            if self.generator.mapped:
                sample = self.generator.render(place.latent, place.condition)
            else:
                sample = self.modality.draw(self.generator, place.latent, place.condition, start=0)
            return self.modality.postprocess(sample, plain(place.condition)).to("cpu")

    def between(self, one: Place, other: Place, share: float) -> Place:
        """The place at ``share`` of the way, 0 to 1: a straight line behind a mapping network, else along the sphere.

        Raises:
            ConfigError: where the classes differ and the generator takes one class or the other.
        """
        if share in (0.0, 1.0):
            return other if share else one
        nearer = (other if share > 0.5 else one).condition
        if self.generator.mapped:
            return Place(torch.lerp(one.latent, other.latent, share), nearer)
        return Place(along_sphere(one.latent, other.latent, share), self._between_classes(one, other, share, nearer))

    def _between_classes(self, one: Place, other: Place, share: float, nearer: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        pair = [place.condition.get("label") for place in (one, other)]
        if pair[0] is None or pair[1] is None or torch.equal(pair[0], pair[1]):
            return nearer
        if not self.modality.mixed_labels:
            raise ConfigError("the generator takes one class at a time, with nothing in between; choose one with --class C")
        shares = self.shares(pair[0]) * (1.0 - share) + self.shares(pair[1]) * share
        return {**nearer, "label": shares}

    def shares(self, label: Tensor) -> Tensor:
        """A label (B,) as shares (B, K), in the generator's precision."""
        num_classes = len(self.modality.facts.get("classes") or ())
        return torch.nn.functional.one_hot(label, num_classes).to(float_type(self.generator))


def require_movable(space: Space, what: str) -> None:
    """Refuse tools that move a latent where it cannot be moved.

    Raises:
        ConfigError: with what the generator starts from.
    """
    modality = space.modality
    if modality.paired:
        raise ConfigError(f"gen {what}: a sample of this run answers its condition, its latent holds nothing")
    if not (space.generator.mapped or modality.normal_noise):
        missing = "there is no latent to seek" if what == "project" else "nothing lies between two of them"
        raise ConfigError(
            f"gen {what}: the generator draws its samples piece by piece, so {missing}; "
            "gen sample RUN --seeds shows single ones"
        )


def plain(condition: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A condition whose label is a class: that of the largest share."""
    return {name: v.argmax(1) if name == "label" and v.is_floating_point() else v for name, v in condition.items()}


def along_sphere(one: Tensor, other: Tensor, share: float) -> Tensor:
    """Spherical interpolation of each row, (B, ...) -> (B, ...): half way between unit vectors at right angles is of length 1.

    Parallel rows are interpolated in a straight line.

    Source: Shoemake 1985; White 2016, https://arxiv.org/abs/1609.04468
    """
    flat = one.flatten(1).double(), other.flatten(1).double()
    lengths = flat[0].norm(dim=1) * flat[1].norm(dim=1)
    cosine = (flat[0] * flat[1]).sum(1) / lengths.clamp_min(1e-12)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    straight = sine < PARALLEL
    divisor = torch.where(straight, 1.0, sine)
    weights = (
        torch.where(straight, 1.0 - share, ((1.0 - share) * angle).sin() / divisor),
        torch.where(straight, share, (share * angle).sin() / divisor),
    )
    return (flat[0] * weights[0][:, None] + flat[1] * weights[1][:, None]).reshape(one.shape).to(one.dtype)


def walk(space: Space, stations: Sequence[Place], frames: int) -> list[Place]:
    """From station to station, ``frames`` steps for each leg; the first station and the last are in it."""
    places = [stations[0]]
    for one, other in pairwise(stations):
        places += [space.between(one, other, step / frames) for step in range(1, frames + 1)]
    return places


def evenly(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of ``count`` indices, evenly spread, the first and the last among them."""
    if count <= wanted:
        return list(range(count))
    return [math.floor(index * (count - 1) / (wanted - 1) + 0.5) for index in range(wanted)]


def save_places(path: Path, place: Place, facts: Mapping[str, str]) -> None:
    """Write latents with their labels as safetensors, with facts (texts) in the header."""
    tensors = {"latent": place.latent, **{name: place.condition[name] for name in ("label",) if name in place.condition}}
    with drafted(path) as draft:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, draft, dict(facts))


def load_places(path: Path, space: Space) -> tuple[list[Place], dict[str, str]]:
    """Latents of a file, one place each, and the file's facts.

    Raises:
        DataError: where the file is none of latents, or they are not this generator's.
    """
    try:
        with open_file(path) as handle:
            file = TensorFile(path, handle)
            facts = file.metadata
            if fault := _sizes_fault(file.sizes):
                raise DataError(f"{path} {fault}; expected a .safetensors file of gen project")
            tensors = file.read([name for name in (LATENT, LABEL) if name in file.sizes])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as latents ({reason(error)}); expected a .safetensors file of gen project"
        ) from error
    for name, tensor in tensors.items():
        if fault := value_fault(tensor):
            raise DataError(f"{path}: {name} holds {fault}; find it again with gen project")
    latent, own = tensors[LATENT], space.place(0)
    if latent.shape[1:] != own.latent.shape[1:] or facts.get("space", space.kind) != space.kind:
        raise DataError(
            f"{path} holds latents {tuple(latent.shape[1:])} of a {facts.get('space', '?')} space, this run's are "
            f"{tuple(own.latent.shape[1:])} of a {space.kind} space; take the run that they were found in"
        )
    latent = latent.to(own.latent)
    conditions = [_condition_of(tensors.get("label"), row, space, own, path) for row in range(len(latent))]
    return [Place(latent[row : row + 1], condition) for row, condition in enumerate(conditions)], facts


def _sizes_fault(sizes: Sizes) -> str:
    """Find the first reason why a file cannot hold latents and their labels."""
    latent, label = sizes.get(LATENT), sizes.get(LABEL)
    if latent is None or not latent.shape or not latent.shape[0]:
        return f"has no tensor {LATENT!r} with rows"
    if latent.dtype not in SAVED_TYPES:
        return f"holds latents of type {latent}, expected float32 or float64"
    if latent.shape[0] > MOST_PLACES or latent.num_bytes > MOST_BYTES:
        return (
            f"holds {latent.shape[0]:,} latents of {latent.num_bytes:,} bytes, expected {MOST_PLACES:,}, {MOST_BYTES:,} at most"
        )
    if label is None:
        return ""
    shares = label.dtype in SAVED_TYPES and len(label.shape) == 2
    if not (shares or (label.dtype is torch.int64 and len(label.shape) == 1)) or label.num_bytes > MOST_BYTES:
        return f"holds labels of type {label}, expected int64 (B,) or shares of classes (B, K)"
    return ""


def _condition_of(label: Tensor | None, row: int, space: Space, own: Place, path: Path) -> Mapping[str, Tensor]:
    """The stored label of a row, for runs that have classes."""
    if "label" not in own.condition:
        return own.condition
    num_classes = len(space.modality.facts.get("classes") or ())
    if label is None or label.shape[0] <= row or not 0 <= int(plain({"label": label})["label"][row]) < num_classes:
        raise DataError(f"{path} names no class of this run for latent {row}, which has {num_classes}; take the run it is from")
    if label.dim() == 2 and (not space.modality.mixed_labels or label.shape[1] != num_classes):
        raise DataError(
            f"{path} holds shares of {label.shape[1]} classes, which this run does not take; use the run it is from"
        )
    return {**own.condition, "label": label[row : row + 1].to(space.device)}
