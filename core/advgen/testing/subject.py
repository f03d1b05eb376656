"""The plugin under test, read once and shared by all checks."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from advgen.config.load import load_config
from advgen.config.model import RunConfig
from advgen.contracts import Batch, Corpus, Modality, Mode, Sample
from advgen.errors import ContractError
from advgen.estimators import get_estimator
from advgen.randomness import keyed_generator, seed_networks
from advgen.registry import PluginRecord, find_plugin, inspect_module
from advgen.setup import Setup, make_draw, make_objective, make_players, read_corpus, settle
from advgen.spec import PluginSpec
from advgen.step import train_step
from advgen.world import World

NUM_SAMPLES = 8
CPU = World(0, 1, torch.device("cpu"))
SMALL = (f"train.batch_size={NUM_SAMPLES}", "train.precision='float32'")


@dataclass(frozen=True)
class Subject:
    """A plugin with the options that make it small.

    Args:
        plugin: a name, the path of a file, an entry module, or a spec.
        overrides: as for ``--set``.
        data: file or folder; None takes the embedded corpus.
        preset: None takes the default.
    """

    plugin: str | ModuleType | PluginSpec
    overrides: Sequence[str] = ()
    data: str | None = None
    preset: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        if isinstance(self.plugin, PluginSpec):
            return self.plugin.name
        return self.plugin if isinstance(self.plugin, str) else self.plugin.__name__

    @functools.cached_property
    def record(self) -> PluginRecord:
        """The plugin as the registry sees it."""
        if isinstance(self.plugin, str):
            return find_plugin(self.plugin)
        if isinstance(self.plugin, PluginSpec):
            return PluginRecord(self.plugin.name, "ok", spec=self.plugin)
        return inspect_module(self.plugin)

    @property
    def spec(self) -> PluginSpec:
        """What the plugin declares."""
        assert self.record.spec is not None  # usable records carry one
        return self.record.spec

    @functools.cached_property
    def config(self) -> RunConfig:
        """The preset, made small."""
        return self.configured()

    def configured(self, *more: str, preset: str | None = None) -> RunConfig:
        """A configuration with further overrides."""
        overrides = [*SMALL, *self.overrides, *more]
        cli = {"data.path": self.data}
        return load_config(self.record, preset=preset or self.preset, overrides=overrides, cli=cli).config

    @functools.cached_property
    def read(self) -> tuple[Modality[Any], Corpus]:
        """The modality and its data."""
        return read_corpus(self.record, self.config)

    @property
    def modality(self) -> Modality[Any]:
        """The modality of the preset."""
        return self.read[0]

    @property
    def corpus(self) -> Corpus:
        """The data."""
        return self.read[1]

    def modes(self) -> dict[Mode, str]:
        """The modes that the presets' estimators ask the generator for, each with such a preset."""
        configs = {name: self.configured(preset=name) for name in self.spec.presets} or {"default": self.config}
        estimators = {name: get_estimator(config.estimator.name) for name, config in configs.items()}
        asked = {estimator.mode: name for name, estimator in estimators.items() if not estimator.scores_again}
        return {"values": "every preset", **asked}

    def setup(self, *more: str) -> Setup:
        """Fresh players over the data that are already read."""
        config, _ = settle(self.configured(*more), self.modality)
        objective, players = make_objective(self.record, config), make_players(self.modality, config, CPU)
        draw = make_draw(self.modality, self.corpus.splits["train"], config, players)
        return Setup(config, self.record, self.modality, self.corpus, players, objective, draw, CPU)

    def real(self, count: int = NUM_SAMPLES, split: str = "train") -> Batch:
        """Prepared real samples."""
        source = self.corpus.splits[split]
        indices = torch.arange(count) % len(source)
        return self.modality.prepare(source.batch(indices, keyed_generator(0, "testing")))

    def networks(self) -> tuple[Any, Any]:
        """A fresh generator and discriminator from a fixed seed."""
        seed_networks(0, "testing")
        return self.modality.generator(), self.modality.discriminator()

    def noise(self, key: int = 0, count: int = NUM_SAMPLES, mode: Mode = "values") -> Tensor:
        """Noise that ``key`` alone decides."""
        return self.modality.noise(count, keyed_generator(key, "testing", "noise"), mode=mode)

    def expect(self, holds: bool, came: str, expected: str) -> None:
        """Refuse with plugin, what came and what was expected.

        Raises:
            ContractError: unless it holds.
        """
        if not holds:
            raise ContractError(f"plugin {self.name!r}: {came}; expected {expected}")


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that lasts as long as the block."""
    with tempfile.TemporaryDirectory(prefix="advgen-testing-") as folder:
        yield Path(folder)


def generate(generator: Any, noise: Tensor, condition: Mapping[str, Tensor], mode: Mode = "values") -> Sample:
    """One call of a generator with the global random state of a fixed seed."""
    seed_networks(0, "testing", "call")
    sample: Sample = generator(noise, condition, mode=mode)
    return sample


def judge(discriminator: Any, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None) -> Any:
    """One call of a discriminator with the global random state of a fixed seed."""
    seed_networks(0, "testing", "call")
    return discriminator(seen, condition, mask)


def take_steps(setup: Setup, first: int, count: int) -> None:
    """A few adversarial steps, with the global random state left as something else would leave it."""
    for step in range(first, first + count):
        torch.manual_seed(1000 + step)
        train_step(setup.players, setup.objective, setup.draw, step, step / 100)


def tensors(batch: Any) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a Batch or Sample, those of its conditions included."""
    for name, value in vars(batch).items():
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, Mapping):
            yield from ((f"{name}[{key!r}]", each) for key, each in value.items())


def same(one: Tensor, other: Tensor) -> bool:
    """Equal, up to rounding where the values are floats."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if not one.is_floating_point():
        return torch.equal(one, other)
    return torch.allclose(one, other, rtol=1e-4, atol=1e-5)
