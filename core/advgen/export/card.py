"""The model card of an exported generator: YAML front matter that hubs read, and a page for people. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advgen.export import LICENCE_NOT_STATED

PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
TEXTS = (".txt", ".csv", ".jsonl")
QUOTED_LINES = 10


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Args:
        name: the model's, which is its folder's.
        config: the run's configuration as TOML.
        report: of ``gen evaluate`` at this step; None where there is none.
        samples: files below the folder, the overview first.
    """

    name: str
    plugin: str
    distribution: str
    task: str
    licence: str
    step: int
    parameters: int
    data: str
    fingerprint: str
    classes: Sequence[str]
    config: str
    report: Mapping[str, Any] | None
    samples: Sequence[Path]
    folder: Path


def write_card(facts: CardFacts) -> str:
    """The whole README.md."""
    parts = [
        _front_matter(facts),
        f"# {facts.name}",
        _summary(facts),
        "## Samples\n\n" + "\n\n".join(_samples(facts)),
        "## Use\n\n" + _use(facts),
        "## Evaluation\n\n" + _evaluation(facts.report),
        "## Training\n\n" + _training(facts),
        "## Licence\n\n" + ("Not stated." if facts.licence == LICENCE_NOT_STATED else facts.licence),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    """YAML whose text values are JSON strings, which are YAML too."""
    tags = ["gan", "advgen", f"advgen-plugin:{facts.plugin}", facts.plugin]
    lines = ["---", "library_name: advgen", f"license: {json.dumps(facts.licence)}"]
    lines += [f"pipeline_tag: {json.dumps(facts.task)}"] if facts.task else []
    lines += ["tags:", *(f"- {json.dumps(tag)}" for tag in tags)]
    if facts.report is not None and (figures := _figures(facts.report, "generated")):
        kind = json.dumps(_protocol_text(facts.report))
        lines += ["model-index:", f"- name: {json.dumps(facts.name)}", "  results:", "  - task:"]
        lines += [f"      type: {json.dumps(facts.task or 'other')}", "    dataset:"]
        lines += [f"      name: {json.dumps(facts.data)}", f"      type: {json.dumps(facts.data)}", "    metrics:"]
        for name, value in figures.items():
            lines += [f"    - type: {json.dumps(name)}", f"      value: {value!r}", f"      name: {json.dumps(name)}"]
            lines += [f"      args: {kind}"]
    return "\n".join([*lines, "---"])


def _summary(facts: CardFacts) -> str:
    classes = f" of {len(facts.classes)} classes" if facts.classes else ""
    return (
        f"A generator{classes} with {facts.parameters:,} parameters, trained adversarially with "
        f"advgen, plugin `{facts.plugin}`, to step {facts.step}."
    )


def _samples(facts: CardFacts) -> list[str]:
    """Pictures side by side, sounds to play, the first lines of texts; other files by name."""
    places = {path: path.relative_to(facts.folder).as_posix() for path in facts.samples}
    pictures = [f"![{path.stem}]({place})" for path, place in places.items() if path.suffix.lower() in PICTURES]
    sounds = [f'<audio controls src="{place}"></audio>' for path, place in places.items() if path.suffix.lower() in SOUNDS]
    parts = ["\n".join(each) for each in (pictures[:1], pictures[1:], sounds) if each]
    for path, place in places.items():
        if path.suffix.lower() in TEXTS:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[:QUOTED_LINES]
            parts.append(f"[{place}]({place})\n\n" + "\n".join(f"    {line}" for line in lines))
        elif path.suffix.lower() not in PICTURES + SOUNDS:
            parts.append(f"[{place}]({place})")
    return parts


def _use(facts: CardFacts) -> str:
    needs = "" if facts.distribution in ("", "advgen") else f" and {facts.distribution}"
    label = f", label={json.dumps(str(facts.classes[0]))}" if facts.classes else ""
    return (
        f"With advgen{needs} installed, and this folder at `{facts.name}/`:\n\n"
        f"    gen sample {facts.name} -n 16 --seed 1\n\n"
        f"    import advgen\n\n    generator = advgen.load_generator({json.dumps(facts.name)})\n"
        f"    batch = generator.draw(16, seed=1{label})\n\n"
        "`model.safetensors` holds the weights and `config.json` all else; no code is run from this folder."
        + (f" Classes: {', '.join(map(str, facts.classes))}." if facts.classes else "")
    )


def _evaluation(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return "Not evaluated at this step."
    ours, real = _figures(report, "generated"), _figures(report, "real")
    rows = [f"| {name} | {value:.4g} | {_cell(real.get(name))} |" for name, value in ours.items()]
    table = "\n".join(["| metric | generated | real training samples in their place |", "|---|---|---|", *rows])
    return f"{table}\n\nProtocol: {_protocol_text(report)}."


def _figures(report: Mapping[str, Any], side: str) -> dict[str, float]:
    """A side's numbers, the modality's own among them."""
    own = report.get("modality" if side == "generated" else "real_modality") or {}
    found = {**(report.get(side) or {}), **own}
    return {name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _protocol_text(report: Mapping[str, Any]) -> str:
    protocol = report.get("protocol") or {}
    plain = {name: value for name, value in protocol.items() if isinstance(value, str | int | float)}
    return ", ".join(f"{name} {value}" for name, value in plain.items())


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _training(facts: CardFacts) -> str:
    quoted = "\n".join(f"    {line}".rstrip() for line in facts.config.strip().splitlines())
    return (
        f"Data: {facts.data}, fingerprint (sha256) `{facts.fingerprint}`.\n\n"
        f"The whole configuration, which `gen train --config` takes after `data.path` is set:\n\n{quoted}"
    )
