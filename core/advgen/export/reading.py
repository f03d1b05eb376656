"""An exported folder opened to draw from, as a run is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from advgen.config.explain import explain
from advgen.config.model import RunConfig
from advgen.contracts import Generator
from advgen.errors import CheckpointError
from advgen.runs.folder import EXPORT_CONFIG, read_export
from advgen.sampling import LoadedRun, open_modality, suits
from advgen.tensor_files import Stored, TensorFile, open_file
from advgen.weights import load_network, reason, require_room
from advgen.world import pick_device


def load_export(path: Path, device: str = "auto", plugin: str | None = None, step: int | None = None) -> LoadedRun:
    """The generator of a folder that ``gen export --format huggingface`` wrote.

    Raises:
        CheckpointError: where the folder is damaged, or another step is asked for.
        PluginError: where its plugin is not installed, or its plugin file is not named.
    """
    about = read_export(path)
    config, record, modality = open_modality(path, plugin)
    if step is not None and step != about["step"]:
        raise CheckpointError(f"{path} is an exported generator of step {about['step']} alone; leave --step out")
    chosen = pick_device(device)
    with suits(path, record):
        tensors = _tensors(path, about["weights"], modality.generator)
    with torch.random.fork_rng(devices=[]):
        dtype = torch.float64 if config.train.precision == "float64" else torch.float32
        generator = modality.generator().to(chosen, dtype)
    load_network(generator, tensors, "generator")
    generator.eval()  # its statistics were estimated before it was exported
    return LoadedRun(path, config, record, modality, generator, chosen, about["step"], about["fingerprint"])


def config_of(about: dict[str, Any], path: Path) -> RunConfig:
    """The configuration of the run that a folder was exported from.

    Raises:
        CheckpointError: where this version does not take it.
    """
    try:
        return RunConfig.model_validate(about["config"])
    except ValidationError as error:
        wrong = "; ".join(explain(error, RunConfig, about["config"], lambda path: "config"))
        raise CheckpointError(
            f"{path / EXPORT_CONFIG}: its configuration is not valid here ({wrong}); fetch or export it again"
        ) from error


def _tensors(path: Path, weights: dict[str, Any], make: Callable[[], Generator]) -> Stored:
    """Read the weights after checking their hash and comparing their sizes with the network."""
    file = path / Path(str(weights.get("file"))).name
    try:
        with open_file(file) as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != weights.get("sha256"):
                raise CheckpointError(
                    f"{file} is damaged or was changed: its sha256 is not that of {EXPORT_CONFIG}; fetch it again"
                )
            handle.seek(0)
            found = TensorFile(file, handle)
            require_room(make, found.sizes, f"{file}: the generator")
            return found.read()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read ({reason(error)}); fetch it again") from error
