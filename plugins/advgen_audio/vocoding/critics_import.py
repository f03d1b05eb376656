"""What a published HiFi-GAN checkpoint keeps for its training: the file ``do_XXXXXXXX`` beside ``g_XXXXXXXX``.

It holds both discriminators (``mpd``, ``msd``), the state of both optimizers (``optim_g``, and ``optim_d``, whose parameters
are those of ``msd``, then those of ``mpd``), ``steps`` and ``epoch``.

Source: Kong et al. 2020, https://arxiv.org/abs/2010.05646 and https://github.com/jik876/hifi-gan
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from advgen import DataError, read_pickled
from advgen_audio.discriminators import CriticSet
from advgen_audio.vocoding.published import fitting

# Published table of each critic of the set that is called hifigan here.
TABLES = {"period": "mpd", "scale": "msd"}
PUBLISHED_ORDER = ("scale", "period")
MOMENTS = ("exp_avg", "exp_avg_sq")
LARGEST_COUNT = 2**40


@dataclass
class Training:
    """What could be taken, by the names of this plugin, and what was not, in words."""

    discriminator: dict[str, Tensor] = field(default_factory=dict)
    optimizers: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_training(checkpoint: Path, generator: nn.Module, critics: CriticSet) -> Training:
    """Critics and optimizers that go with a generator's checkpoint, where they are those of these networks.

    Raises:
        DataError: where there is such a file and it cannot be read.
    """
    file, training = checkpoint.with_name("do_" + checkpoint.name.partition("_")[2]), Training()
    if not file.is_file():
        training.notes.append(f"no {file.name} beside it, so training on starts with fresh critics and optimizers")
        return training
    try:
        found = read_pickled(file, numbers=True)
    except DataError as error:
        raise DataError(f"{error}; move it away to import the generator alone") from error
    _take_critics(found, critics, file, training)
    _take_optimizer(found, "optim_g", "generator", list(enumerate(generator.parameters())), training)
    if training.discriminator:
        places = {parameter: place for place, parameter in enumerate(critics.parameters())}
        published = [parameter for name in PUBLISHED_ORDER for parameter in critics.critics[name].parameters()]
        _take_optimizer(found, "optim_d", "discriminator", [(places[each], each) for each in published], training)
    _tell(found, file, training)
    return training


def _take_critics(found: Mapping[str, Tensor], critics: CriticSet, file: Path, training: Training) -> None:
    """Both critics or none: one of them alone has learned against a generator that the other also judged."""
    taken = dict[str, Tensor]()
    try:
        for name, table in TABLES.items():
            own, prefix = critics.critics[name].state_dict(), f"critics.{name}."
            published = {key.removeprefix(f"{table}/"): value for key, value in found.items() if key.startswith(f"{table}/")}
            taken |= {
                prefix + key: tensor
                for key, tensor in fitting(published, own, f"{file}: {table}", "the published critics").items()
            }
    except DataError as error:
        training.notes.append(f"critics left, training on starts with fresh ones: {error}")
        return
    training.discriminator = taken


def _take_optimizer(
    found: Mapping[str, Tensor], table: str, player: str, order: Sequence[tuple[int, Tensor]], training: Training
) -> None:
    """Adam's moments; ``order`` has the parameters as published, each with its place in the network here."""
    state = dict[str, Tensor]()
    for index, (place, parameter) in enumerate(order):
        entry = dict(_entry(found, table, index))
        if not _is_adams(entry, parameter):
            training.notes.append(f"{table} left, the {player}'s optimizer starts anew: it is not Adam's of these parameters")
            return
        # Adam counts in float32; older versions of torch had a whole number there.
        state |= {f"{place}.{name}": tensor.float() for name, tensor in entry.items()}
    if f"{table}/param_groups/0/params/{len(order)}" in found:
        training.notes.append(f"{table} left, the {player}'s optimizer starts anew: it has more parameters than the network")
        return
    training.optimizers[player] = state


def _is_adams(entry: Mapping[str, Tensor], parameter: Tensor) -> bool:
    """Return whether a state can be Adam's for a parameter: finite, with no negative squares."""
    if set(entry) != {*MOMENTS, "step"} or any(entry[name].shape != parameter.shape for name in MOMENTS):
        return False
    if any(not entry[name].is_floating_point() or not bool(torch.isfinite(entry[name].float()).all()) for name in MOMENTS):
        return False
    step = entry["step"]
    counts = step.dim() == 0 and not step.is_complex() and 0 <= float(step) < LARGEST_COUNT
    return counts and not bool((entry["exp_avg_sq"] < 0).any())


def _entry(found: Mapping[str, Tensor], table: str, index: int) -> Iterator[tuple[str, Tensor]]:
    """State of a parameter; versions of torch before 1.6 filed it under a number of its own."""
    key = found.get(f"{table}/param_groups/0/params/{index}", torch.tensor(index))
    if key.numel() != 1 or key.dtype is not torch.int64:
        return
    for name in (*MOMENTS, "step"):
        value = found.get(f"{table}/state/{int(key)}/{name}")
        if value is not None:
            yield name, value


def _tell(found: Mapping[str, Tensor], file: Path, training: Training) -> None:
    """What was taken, and what a run has to be told: its schedules start afresh."""
    taken = [f"both critics ({len(training.discriminator)} tensors)"] if training.discriminator else []
    taken += [f"the {player}'s optimizer" for player in training.optimizers]
    count = found.get("steps", torch.empty(0))
    known = count.numel() == 1 and count.dtype is torch.int64
    steps = f" after {int(count):,} steps" if known else ""
    training.notes.append(f"{file.name}: took {', '.join(taken) or 'nothing'}{steps}; left: its place in schedule and data")
    rates = [
        f"{float(found[name]):.3g}"
        for name in (f"{table}/param_groups/0/lr" for table in ("optim_g", "optim_d"))
        if name in found and found[name].numel() == 1 and not found[name].is_complex() and math.isfinite(float(found[name]))
    ]
    if training.optimizers and rates:
        training.notes.append(
            f"its learning rates had fallen to {' and '.join(rates)}; the preset starts higher: to go on there, give "
            f"--set generator.learning_rate={rates[0]} --set discriminator.learning_rate={rates[-1]}"
        )
