"""The model card of an exported generator: YAML front matter that hubs read, and a page for people. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from advgen.export import LICENCE_NOT_STATED
from advgen.export.markup import address, code, plain, python_text, quoted_lines, shell_word, yaml_text

PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")
SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
TEXTS = (".txt", ".csv", ".jsonl")
QUOTED_LINES = 10
MEASURED = ("real_content", "real_features", "judge_accuracy", "caution", "num_reference")
"""Of a protocol what was not chosen, or is too long for a heading."""
INTENDED_USE = "Research, teaching and creative work with generated samples."
OUT_OF_SCOPE = "Samples passed off as real people, things or events; decisions about people."
CONSENT = (
    "Voices and faces of other people need their consent: without it, neither train on them nor make or publish samples that "
    "imitate them."
)
"""Part of every card, whatever its stated use."""


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Args:
        name: the model's, which is its folder's.
        config: the run's configuration as TOML.
        reports: of ``gen evaluate`` at this step, one for each protocol.
        samples: files below the folder, the overview first.
        intended_use: what the model is for; empty: a general sentence.
        out_of_scope: what the model is not for; empty: a general sentence.
        data_licence: license of a named data set.
        data_terms: further terms of its use.
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
    reports: Sequence[Mapping[str, Any]]
    samples: Sequence[Path]
    folder: Path
    intended_use: str = ""
    out_of_scope: str = ""
    data_licence: str = ""
    data_terms: str = ""


def write_card(facts: CardFacts) -> str:
    """The whole README.md."""
    parts = [
        _front_matter(facts),
        f"# {plain(facts.name)}",
        _summary(facts),
        "## Samples\n\n" + "\n\n".join(_samples(facts)),
        "## Use\n\n" + _use(facts),
        "## Intended use\n\n" + _scope(facts),
        "## Evaluation\n\n" + ("\n\n".join(_evaluations(facts.reports)) or "Not evaluated at this step."),
        "## Training\n\n" + _training(facts),
        "## Licence\n\n" + ("Not stated." if facts.licence == LICENCE_NOT_STATED else plain(facts.licence)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    """Write the YAML front matter; values from elsewhere are quoted."""
    tags = ["gan", "advgen", f"advgen-plugin:{facts.plugin}", facts.plugin]
    lines = ["---", "library_name: advgen", f"license: {yaml_text(facts.licence)}"]
    lines += [f"pipeline_tag: {yaml_text(facts.task)}"] if facts.task else []
    lines += ["tags:", *(f"- {yaml_text(tag)}" for tag in tags)]
    results = [line for report in facts.reports for line in _result(facts, report)]
    lines += ["model-index:", f"- name: {yaml_text(facts.name)}", "  results:", *results] if results else []
    return "\n".join([*lines, "---"])


def _result(facts: CardFacts, report: Mapping[str, Any]) -> list[str]:
    """A report's entry in the index: every number with the protocol that it was measured in."""
    figures, data = _figures(report, "generated"), yaml_text(facts.data)
    figures = {name: value for name, value in figures.items() if math.isfinite(value)}
    if not figures:
        return []
    lines = ["  - task:", f"      type: {yaml_text(facts.task or 'other')}", "    dataset:"]
    lines += [f"      name: {data}", f"      type: {data}", "    metrics:"]
    for name, value in figures.items():
        stamp = yaml_text("; ".join(f"{key}: {text}" for key, text in _stamp(report, name).items()))
        lines += [f"    - type: {yaml_text(name)}", f"      value: {value!r}", f"      name: {yaml_text(name)}"]
        lines += [f"      args: {stamp}"]
    return lines


def _summary(facts: CardFacts) -> str:
    classes = f" of {len(facts.classes)} classes" if facts.classes else ""
    return (
        f"A generator{classes} with {facts.parameters:,} parameters, trained adversarially with "
        f"advgen, plugin {code(facts.plugin)}, to step {facts.step}."
    )


def _samples(facts: CardFacts) -> list[str]:
    """Pictures side by side, sounds to play, the first lines of texts; other files by name."""
    names = {path: path.relative_to(facts.folder).as_posix() for path in facts.samples}
    places = {path: address(name) for path, name in names.items()}
    pictures = [f"![{plain(path.stem)}]({place})" for path, place in places.items() if path.suffix.lower() in PICTURES]
    sounds = [f'<audio controls src="{place}"></audio>' for path, place in places.items() if path.suffix.lower() in SOUNDS]
    parts = ["\n".join(each) for each in (pictures[:1], pictures[1:], sounds) if each]
    for path, place in places.items():
        if path.suffix.lower() in TEXTS:
            with path.open(encoding="utf-8", errors="replace") as file:
                lines = [line.rstrip("\n") for line in islice(file, QUOTED_LINES)]
            parts.append(f"[{plain(names[path])}]({place})\n\n" + quoted_lines("\n".join(lines)))
        elif path.suffix.lower() not in PICTURES + SOUNDS:
            parts.append(f"[{plain(names[path])}]({place})")
    return parts


def _use(facts: CardFacts) -> str:
    needs = "" if facts.distribution in ("", "advgen") else f" and {plain(facts.distribution)}"
    label = f", label={python_text(facts.classes[0])}" if facts.classes else ""
    return (
        f"With advgen{needs} installed, and this folder at {code(f'{facts.name}/')}:\n\n"
        f"    gen sample {shell_word(facts.name)} -n 16 --seed 1\n\n"
        f"    import advgen\n\n    generator = advgen.load_generator({python_text(facts.name)})\n"
        f"    batch = generator.draw(16, seed=1{label})\n\n"
        "`model.safetensors` holds the weights and `config.json` all else; no code is run from this folder."
        + (f" Classes: {', '.join(map(plain, facts.classes))}." if facts.classes else "")
    )


def _scope(facts: CardFacts) -> str:
    """Write the intended use and the uses out of scope, always followed by the sentence on consent."""
    intended, outside = facts.intended_use or INTENDED_USE, facts.out_of_scope or OUT_OF_SCOPE
    return f"{plain(intended)}\n\nOut of scope: {plain(outside)} {CONSENT}"


def _evaluations(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """A part for each report; the headings of those in the same features have what else of their protocols differs."""
    protocols = [_flat(report.get("protocol") or {}) for report in reports]
    return [_evaluation(report, _title(own, protocols)) for report, own in zip(reports, protocols, strict=True)]


def _title(own: Mapping[str, str], protocols: Sequence[Mapping[str, str]]) -> str:
    alike = [each for each in protocols if each.get("features") == own.get("features")]
    names = [
        name for name in own if name not in MEASURED and " " not in name and any(each.get(name) != own[name] for each in alike)
    ]
    return ", ".join([own.get("features", "no name"), *(f"{name} {own[name]}" for name in names)])


def _evaluation(report: Mapping[str, Any], title: str) -> str:
    """A table, and below it the whole protocol."""
    ours, real = _figures(report, "generated"), _figures(report, "real")
    rows = [f"| {plain(name)} | {value:.4g} | {_cell(real.get(name))} |" for name, value in ours.items()]
    table = "\n".join(["| metric | generated | real samples in their place |", "|---|---|---|", *rows])
    protocol = _flat(report.get("protocol") or {})
    listed = "\n".join(f"- {plain(name)}: {plain(text)}" for name, text in protocol.items())
    return f"### In features of {plain(title)}\n\n{table}\n\nProtocol:\n\n{listed}"


def _figures(report: Mapping[str, Any], side: str) -> dict[str, float]:
    """A side's numbers, the modality's own among them."""
    own = report.get("modality" if side == "generated" else "real_modality") or {}
    found = {**(report.get(side) or {}), **own}
    return {name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def _stamp(report: Mapping[str, Any], metric: str) -> dict[str, str]:
    """The protocol of one metric: without what was said of others."""
    protocol = dict(report.get("protocol") or {})
    notes = protocol.pop("metrics", {})
    return _flat(protocol | ({"metrics": {metric: notes[metric]}} if metric in notes else {}))


def _flat(protocol: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Names to texts, those of a part behind the part's name; what is not known is left out."""
    found = dict[str, str]()
    for name, value in protocol.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{name} ")
        elif value is not None and value != "":
            found[f"{above}{name}"] = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return found


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _training(facts: CardFacts) -> str:
    licence = f" Licence of the data: {plain(facts.data_licence)}." if facts.data_licence else ""
    terms = f" Terms: {plain(facts.data_terms)}" if facts.data_terms else ""
    quoted = quoted_lines(facts.config.strip())
    return (
        f"Data: {plain(facts.data)}, fingerprint (sha256) {code(facts.fingerprint)}.{licence}{terms}\n\n"
        f"The whole configuration, which `gen train --config` takes after `data.path` is set:\n\n{quoted}"
    )
