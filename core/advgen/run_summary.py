"""Start and end block of a run: data, networks, device and plan, then the next commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from advgen.config.model import RunConfig
from advgen.contracts import Modality
from advgen.data.labels import counted
from advgen.registry import PluginRecord
from advgen.runs import RunFolder
from advgen.setup import Setup

NUM_CLASSES_SHOWN = 8
UNITS = {"_hz": "Hz", "_seconds": "s", "_ms": "ms"}


def summarize(setup: Setup, networks: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the facts of a run that is about to train, JSON-able.

    Args:
        networks: sizes of both players and the plugin's own facts about the generator.

    Returns:
        ``data`` with samples, splits, classes and the modality's figures; ``networks``; ``device``; ``plan`` with the batch
        and the passes over the training data.
    """
    return {
        "plugin": setup.record.name,
        "data": _data(setup),
        "networks": dict(networks),
        "device": _device(setup),
        "plan": _plan(setup.config, len(setup.corpus.splits["train"])),
    }


def summary_lines(summary: Mapping[str, Any], folder: Path, step: int = 0) -> list[str]:
    """Format the facts of :func:`summarize` as lines, one subject per line."""
    data, device, plan = summary["data"], summary["device"], summary["plan"]
    known = {"source", "samples", "splits", "classes", "class_conditional"}
    figures = ", ".join(_figure(name, value) for name, value in data.items() if name not in known)
    splits = ", ".join(f"{count:,} {name}" for name, count in data["splits"].items())
    sizes = {name.removesuffix("_parameters"): n for name, n in summary["networks"].items() if name.endswith("_parameters")}
    rows = {
        "data": f"{data['source']}: {data['samples']:,} samples ({splits})",
        "samples": figures,
        "classes": _classes(data["classes"], data["class_conditional"]),
        "networks": ", ".join(f"{name} {count:,} parameters" for name, count in sizes.items()),
        "device": ", ".join(_figure(name, value) if name != "name" else str(value) for name, value in device.items()),
        "batch": f"{plan['batch_size']} samples",
        "plan": _plan_text(plan),
        "run": f"{folder}{f', from step {step}' if step else ''}",
    }
    return [f"{name:9} {text}" for name, text in rows.items() if text]


def next_commands(folder: RunFolder, record: PluginRecord, modality: Modality[Any], *, complete: bool) -> list[str]:
    """List the commands that use the run, the most useful first."""
    own_file = record.path is not None and record.sha256
    copied = folder.path / "plugin" / Path(record.path or "").name  # it stays as it is when the user's file is edited
    run = shlex.quote(str(folder.path)) + (f" --plugin {shlex.quote(str(copied))}" if own_file else "")
    sample = f"gen sample {run} --from FILES" if modality.paired else f"gen sample {run} -n 16"
    going_on = [] if complete else [f"gen resume {run}"]
    return [*going_on, sample, f"gen evaluate {run}", f"gen export {run} --format huggingface"]


def _data(setup: Setup) -> dict[str, Any]:
    corpus, modality = setup.corpus, setup.modality
    splits = {name: len(split) for name, split in corpus.splits.items() if name != "reference"}
    classes = dict(zip(modality.facts.get("classes") or (), modality.facts.get("class_counts") or (), strict=False))
    figures = dict(modality.data_summary()) or {"shape": _shape(setup)}
    return {
        "source": setup.config.data.path or f"embedded corpus of plugin {setup.record.name}",
        "samples": sum(splits.values()),
        "splits": splits,
        "classes": classes,
        "class_conditional": "label" in modality.condition(1, torch.Generator().manual_seed(0)),
        **figures,
    }


def _shape(setup: Setup) -> str:
    """Read one training sample for its shape."""
    batch = setup.corpus.splits["train"].batch(torch.zeros(1, dtype=torch.int64), torch.Generator().manual_seed(0))
    return "x".join(str(size) for size in batch.values.shape[1:]) or "one number"


def _device(setup: Setup) -> dict[str, Any]:
    device, players = setup.world.device, setup.players
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    precision = "bfloat16 autocast" if players.autocast else str(players.dtype).removeprefix("torch.")
    facts: dict[str, Any] = {"name": name, "precision": precision}
    if device.type == "cpu":
        facts["threads"] = torch.get_num_threads()
    return facts | ({"ranks": setup.world.size} if setup.world.size > 1 else {})


def _plan(config: RunConfig, num_train: int) -> dict[str, Any]:
    """Count passes over the data by discriminator updates, each of which draws one batch."""
    train = config.train
    drawn = train.batch_size * config.discriminator.steps
    total = sum(phase.share for phase in config.phases)
    return {
        "batch_size": train.batch_size,
        "steps": train.steps,
        "minutes": train.minutes if train.steps is None else None,
        "steps_per_pass": round(num_train / drawn, 2),
        "passes": None if train.steps is None else round(train.steps * drawn / num_train, 2),
        "phases": [{"kind": phase.kind, "fraction": round(phase.share / total, 4)} for phase in config.phases],
    }


def _plan_text(plan: Mapping[str, Any]) -> str:
    steps = plan["steps_per_pass"]
    per_pass = f"{steps:,.0f} steps" if steps >= 10 else f"{steps:.3g} steps"
    if plan["steps"] is not None:
        text = f"{counted(plan['steps'], 'step')}, {plan['passes']:,g} passes over the training data ({per_pass} each)"
    else:
        text = (
            f"{plan['minutes']:g} minute{'' if plan['minutes'] == 1 else 's'}; a pass over the training data takes {per_pass}"
        )
    if len(plan["phases"]) > 1:
        text += "; phases " + ", ".join(f"{phase['kind']} {phase['fraction']:.0%}" for phase in plan["phases"])
    return text


def _classes(classes: Mapping[str, int], conditional: bool) -> str:
    if not classes:
        return "none"
    shown = ", ".join(f"{name} {count:,}" for name, count in list(classes.items())[:NUM_CLASSES_SHOWN])
    more = f", and {len(classes) - NUM_CLASSES_SHOWN} more" if len(classes) > NUM_CLASSES_SHOWN else ""
    return f"{len(classes)} ({shown}{more}){'' if conditional else '; the generator does not use them'}"


def _figure(name: str, value: Any) -> str:
    """Write ``sample_rate_hz=8000`` as ``sample rate 8,000 Hz``."""
    number = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')} {number} {unit}"
    return f"{name.replace('_', ' ')} {number}"
