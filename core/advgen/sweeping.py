"""Quality and diversity of runs at several values of what samples are drawn by: a point alone says nothing.

A low temperature, or a truncation, buys quality with diversity, so two models are compared by their whole curves.

Source: Caccia et al. 2020 (language GANs falling short), https://arxiv.org/abs/1811.02549
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advgen.config.sampling import sampling_options
from advgen.errors import ConfigError, nearest
from advgen.evaluation import judged, real_side
from advgen.metrics.filing import chosen_protocol, keep_report
from advgen.metrics.report import cautions
from advgen.metrics.table import plugin_metrics
from advgen.terminal import visible

if TYPE_CHECKING:
    from advgen.sampling import LoadedRun

TRUNCATION = "truncation"
FIRST = ("frechet_distance",)
MOST_VALUES = 50
SIDES = (("generated", "modality"), ("real", "real_modality"))
DIFFERENT_DATA = "runs of different data cannot be compared: {} was trained on other data than {}; sweep them apart"


@dataclass(frozen=True)
class Knob:
    """What is turned, and the values that it takes.

    Args:
        name: ``truncation``, or a sampling option of the plugin, such as ``temperature``.
        values: as they were written, in their order.
    """

    name: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Knob:
        """``temperature=0.7,0.8,1``.

        Raises:
            ConfigError: where that is not its form.
        """
        name, _, listed = text.partition("=")
        values = tuple(dict.fromkeys(value.strip() for value in listed.split(",")))
        if not name.strip() or not all(values):
            raise ConfigError(f"--over {text}: expected NAME=VALUE,VALUE, such as temperature=0.7,0.8,1 or truncation=0.7,1")
        if len(values) > MOST_VALUES:
            raise ConfigError(f"--over {name}: {len(values)} values; expected at most {MOST_VALUES}")
        return cls(name.strip().replace("-", "_"), values)

    def turn(self, run: LoadedRun, value: str, count: int) -> None:
        """Let the run draw at a value from now on.

        Raises:
            ConfigError: where it has no such knob, or not that value.
        """
        if self.name != TRUNCATION:
            run.modality.use_sampling(sampling_options(run.record, {self.name: value}), count)
            return
        try:
            share = float(value)
        except ValueError as error:
            raise ConfigError(f"--over {TRUNCATION}: {value!r} is no number; expected such as 0.7") from error
        if not 0 <= share <= 2:
            raise ConfigError(f"--over {TRUNCATION}: {value} is not between 0 and 2")
        run.generator.truncation = share


def sweep_runs(
    runs: Sequence[Path | str],
    over: str,
    num_samples: int | None = None,
    seed: int = 0,
    device: str = "auto",
    plugin: str | None = None,
) -> dict[str, Any]:
    """Judge runs on the held-out test split at each value of one knob; each run also keeps its part as ``sweep-NAME.json``.

    An earlier sweep of other values, or under another protocol, stays beside it as ``sweep-NAME-DIGEST.json``.

    Args:
        runs: folders of runs on the same data.
        over: the knob and its values, ``temperature=0.7,0.8,1``.
        num_samples: of each value; None: as many as are held out, at most 2,000.
        seed: of the noise and of the choice of real samples.

    Returns:
        ``knob``; ``points``, each with ``run``, ``value``, its metrics and its protocol; ``real``, the metrics of training
        samples in the generator's place; ``trade_off``, the names of the metrics of quality and of diversity.

    Raises:
        GenError: where a run cannot be read, has no such knob, or was trained on other data than the first.
    """
    knob, points, real, first = Knob.parse(over), list[dict[str, Any]](), dict[str, Any](), None
    for path in runs:
        loaded = _opened(path, device, plugin)
        if first is not None and loaded.fingerprint != first.fingerprint:
            raise ConfigError(DIFFERENT_DATA.format(path, runs[0]))
        own = _points(loaded, knob, num_samples, seed)
        if points and points[0]["protocol"]["real_features"] != own[0]["protocol"]["real_features"]:
            logging.getLogger("advgen").warning(
                "warning: the judges of %s and %s have other features: their distances are not on one scale", runs[0], path
            )
        first, real = first or loaded, real or own[0]["real"]
        found = [{name: value for name, value in point.items() if name != "real"} for point in own]
        points += found
        part = {"knob": knob.name, "points": found, "real": own[0]["real"]}
        keep_report(part, loaded.folder / f"sweep-{knob.name}.json", _chosen)
    trade_off = list(first.modality.trade_off) if first is not None else []
    return {"knob": knob.name, "points": points, "real": real, "trade_off": trade_off}


def _chosen(part: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The values of a kept sweep, each with its protocol."""
    return [(point["value"], chosen_protocol(point)) for point in part["points"]]


def _opened(path: Path | str, device: str, plugin: str | None) -> LoadedRun:
    from advgen.sampling import load_run

    return load_run(path, device, plugin)


def _points(run: LoadedRun, knob: Knob, num_samples: int | None, seed: int) -> list[dict[str, Any]]:
    """A run's metrics at each value; what is real is looked at once."""
    for value in knob.values:  # a wrong one is refused before the first is measured
        knob.turn(run, value, num_samples or 1)
    real, metrics, found = real_side(run, num_samples, seed), plugin_metrics(run.record)[0], list[dict[str, Any]]()
    for value in knob.values:
        knob.turn(run, value, real.count)
        report = judged(run, real, metrics)
        rows = {side: _numbers(report[side]) | _numbers(report[own]) for side, own in SIDES}
        found.append({"run": str(run.folder), "value": value, "metrics": rows["generated"], "real": rows["real"]})
        found[-1]["protocol"] = report["protocol"]
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not isinstance(value, Mapping)}


def format_sweep(report: Mapping[str, Any], metrics: Sequence[str] = ()) -> str:
    """A line for each run and value, and one of real data.

    Args:
        metrics: columns; none: Fréchet distance, and the modality's metrics of quality and diversity.

    Raises:
        ConfigError: listing the metrics there are, where one is not among them.
    """
    points, known = report["points"], list(report["points"][0]["metrics"])
    chosen = list(metrics) or [name for name in (*FIRST, *report["trade_off"]) if name in known]
    if unknown := [name for name in chosen if name not in known]:
        raise ConfigError(f"--metrics {unknown[0]}: {nearest(unknown[0], known)}")
    rows = [("run", report["knob"], *chosen)]
    rows += [(point["run"], point["value"], *_cells(point["metrics"], chosen)) for point in points]
    rows.append(("real", "", *_cells(report["real"], chosen)))
    rows = [tuple(map(visible, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    protocol = points[0]["protocol"]
    head = (
        f"{protocol['num_generated']} generated against {protocol['num_real']} real samples of the {protocol['split']} split "
        f"(seed {protocol['seed']}); features: {protocol['features']}"
    )
    return "\n".join(map(visible, [head, "", *(_line(row, widths) for row in rows), *cautions(protocol)]))


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _cells(numbers: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return ["-" if numbers.get(name) is None else f"{numbers[name]:.4g}" for name in names]
