"""The report of an evaluation as a plain aligned table, and which way each metric is better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advgen.contracts import Modality
from advgen.errors import ConfigError
from advgen.terminal import visible

BETTER = {
    "frechet_distance": "lower",
    "kernel_distance": "lower",
    "precision": "higher",
    "recall": "higher",
    "density": "higher",
    "coverage": "higher",
    "within_class_recall": "higher",
    "class_accuracy": "higher",
    "num_classes_hit": "higher",
    "classifier_score": "higher",
    "valid_share": "higher",
    "grammar_mass": "higher",
}
AS_REAL = ("neighbour_distance_train", "neighbour_distance_within", "two_sample_accuracy")
"""Best where they equal real data's: less is copying or collapse, more is noise."""


def better_direction(metric: str, modality: Modality[Any]) -> str:
    """``lower`` or ``higher``, as the core or the modality says; ``lower`` where nobody does.

    Raises:
        ConfigError: where neither is: the metric is best as data have it.
    """
    note = modality.metric_notes().get(metric)
    better = (BETTER | dict.fromkeys(AS_REAL, "as real")).get(metric) or (note.better if note else "lower")
    if better not in ("lower", "higher"):
        raise ConfigError(
            f"stop.metric {metric!r} is best {better}, so neither lower nor higher is better; say with stop.better which way "
            "this run should go, or name another metric"
        )
    return better


def format_report(report: Mapping[str, Any]) -> str:
    """The report as a plain aligned table: one metric a line, generated beside real."""
    protocol = report["protocol"]
    rows = [("metric", "generated", "real", "better")]
    score = protocol.get("score", {}).get("name", "classifier_score")
    rows += _rows(report["generated"], report["real"], {score: {"better": "higher"}})
    rows += _rows(report["modality"], report["real_modality"], protocol.get("metrics", {}))
    rows = [(visible(row[0]), *row[1:3], visible(row[3])) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    table = [f"{r[0]:<{widths[0]}}  {r[1]:>{widths[1]}}  {r[2]:>{widths[2]}}  {r[3]}".rstrip() for r in rows]
    changed = ["the data is not what the run was trained on: the test split may hold what training saw"]
    left_out = [f"left out: {name} ({reason})" for name, reason in report["left_out"].items()]
    after = [*_histogram_lines(report), *_measured_lines(protocol), *left_out]
    lines = [*_head(protocol), "", *table, *after, *(changed if protocol["data_changed"] else []), *cautions(protocol)]
    return "\n".join(map(visible, lines))


def cautions(protocol: Mapping[str, Any]) -> list[str]:
    """What readers of a report must not overlook: a line, or none."""
    return [f"warning: {protocol['caution']}"] if "caution" in protocol else []


def _head(protocol: Mapping[str, Any]) -> list[str]:
    """The protocol in a few lines."""
    origin = protocol.get("samples") or f"step {protocol['step']}"
    lines = [
        f"{origin}, {protocol['num_generated']} generated against {protocol['num_real']} real samples "
        f"of the {protocol['split']} split (seed {protocol['seed']})",
        f"features: {protocol['features']}; k {protocol['k']}; kernel {protocol['kernel']}",
    ]
    if "num_real_own" in protocol:
        lines.append(f"the plugin's own metrics: against {protocol['num_real_own']} real samples of that split")
    lines += [f"truncation {protocol['truncation']:g}"] if "truncation" in protocol else []
    lines += [f"{name}: {text}" for name, text in protocol.get("judge", {}).items()]
    if "judge_accuracy" in protocol:
        lines.append(f"the judge knows the class of {protocol['judge_accuracy']:.1%} of the real test samples")
    lines.append(f"column real: {protocol['num_reference']} {protocol['real_column']} samples instead")
    if "modality" in protocol:
        own = protocol["modality"]
        lines.append(f"rows of the modality itself: the {own['split']} split; column real: {own['real_column']} samples")
    if "score" in protocol:
        score = protocol["score"]
        lines.append(f"{score['name']}: mean over {score['splits']} parts")
    lines.append(f"real samples: sha256 {protocol['real_content'][:12]}, their features {protocol['real_features'][:12]}")
    if "neighbours" in protocol:
        sizes = protocol["neighbours"]
        lines.append(
            f"neighbour distances: {sizes['num_samples']} samples, among themselves and to {sizes['num_train']} train samples; "
            f"column real: {sizes['num_samples']} test samples instead"
        )
    return lines


def _rows(generated: Mapping[str, Any], real: Mapping[str, Any], notes: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    better = BETTER | dict.fromkeys(AS_REAL, "as real") | {name: note["better"] for name, note in notes.items()}
    names = [name for name, value in generated.items() if not isinstance(value, Mapping)]
    return [(name, _number(generated[name]), _number(real.get(name)), better.get(name, "")) for name in names]


def _measured_lines(protocol: Mapping[str, Any]) -> list[str]:
    """How each metric is measured; what is the same of several is said once."""
    names = dict[str, list[str]]()
    for name, note in protocol.get("metrics", {}).items():
        names.setdefault(note["protocol"], []).append(name)
    return ["", *(f"{_in_short(same)}: {text}" for text, same in names.items())] if names else []


def _in_short(names: list[str]) -> str:
    """``bleu_2, 3, 4``: what all names begin with stands once."""
    stem = names[0][: max(map(names[0].rfind, "_/")) + 1]
    alike = all(name.startswith(stem) for name in names)
    return ", ".join([names[0], *(name.removeprefix(stem) if alike else name for name in names[1:])])


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _histogram_lines(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for side in ("generated", "real"):
        counts = report[side].get("class_histogram")
        if counts:
            lines.append(f"classes recognised, {side}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return ["", *lines] if lines else []
