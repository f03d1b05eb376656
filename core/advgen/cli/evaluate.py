"""``gen evaluate`` and ``gen sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from advgen.cli.latents import TruncationOption
from advgen.cli.output import (
    DeviceOption,
    JsonFlag,
    PluginOption,
    PresetOption,
    SetOption,
    StepOption,
    say_json,
    say_text,
    to_stderr,
)
from advgen.errors import ConfigError


def evaluate(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="Run folder; none with --samples.")] = None,
    samples: Annotated[
        Path | None,
        typer.Option(
            "--samples", metavar="FOLDER", help="Any samples (text: a file) instead of a run; with --plugin and --data."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="PATH", help="What --samples are compared with, as for gen train.")
    ] = None,
    preset: PresetOption = None,
    overrides: SetOption = None,
    num_samples: Annotated[
        int | None, typer.Option("-n", "--num-samples", min=6, metavar="N", help="Samples; default as many as held out.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Seed of the samples.")] = 0,
    features: Annotated[
        str | None,
        typer.Option("--features", metavar="NAME", help="Published features, such as inception; default: the data's judge."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", metavar="FILE", help="Their weights; default: the cache, else fetched.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="SPLIT", help="Real split that samples are compared with: test (default) or train."
        ),
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option("--neighbours", min=1, metavar="K", help="Of precision, recall, density, coverage; default 5.")
    ] = None,
    kid_block: Annotated[
        int | None,
        typer.Option("--kid-block", min=2, metavar="N", help="Kernel distance over blocks of N; default: whole sets."),
    ] = None,
    truncation: TruncationOption = None,
    step: StepOption = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare a run's samples, or those of any folder, with held-out data, beside real against real."""
    from advgen.evaluation import evaluate_run
    from advgen.metrics.comparison import Comparison
    from advgen.metrics.report import format_report

    chosen = {"reference": reference, "neighbours": neighbours, "kid_block": kid_block}
    asked: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    place: dict[str, Any] = {"num_samples": num_samples, "seed": seed, "device": device, "plugin": plugin}
    place["comparison"] = Comparison(**asked)
    with to_stderr():
        if samples is not None:
            _refuse_beside_samples(samples, {"the run": run, "--step": step, "--truncation": truncation})
            place["comparison"] = place["comparison"].within(features, weights)
            report = _of_folder(samples, data, preset, overrides or [], place)
        else:
            own = _run_alone(run, {"--data": data, "--preset": preset, "--set": overrides})
            report = evaluate_run(own, step=step, features=features, weights=weights, truncation=truncation, **place)
    if as_json:
        say_json(report)
    else:
        say_text(format_report(report))


def _refuse_beside_samples(samples: Path, of_runs: dict[str, Any]) -> None:
    """Refuse what says which samples of a run are judged, where those of a folder are.

    Raises:
        ConfigError: naming it.
    """
    if surplus := [name for name, value in of_runs.items() if value is not None]:
        raise ConfigError(f"--samples {samples} is judged as it is, without a run: leave out {surplus[0]}")


def _run_alone(run: Path | None, foreign: dict[str, Any]) -> Path:
    """The run.

    Raises:
        ConfigError: where there is none, or what goes with --samples is given too.
    """
    if run is None:
        raise ConfigError(
            "gen evaluate got neither a run nor --samples; expected gen evaluate RUN (gen runs list shows those in runs/), "
            "or gen evaluate --samples FOLDER --plugin NAME --data DATA"
        )
    if surplus := [name for name, value in foreign.items() if value]:
        raise ConfigError(f"{surplus[0]} goes with --samples, a run has its own data and options; leave it out")
    return run


def _of_folder(
    samples: Path, data: str | None, preset: str | None, overrides: list[str], place: dict[str, Any]
) -> dict[str, Any]:
    """The report of a folder of samples.

    Raises:
        ConfigError: where no plugin is named.
    """
    from advgen.sample_folders import evaluate_samples

    if place["plugin"] is None:
        raise ConfigError(f"--samples {samples}: say with --plugin NAME what reads them (gen plugins list shows the names)")
    return evaluate_samples(samples, data=data, preset=preset, overrides=overrides, **place)


def sweep(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, of the same data.")],
    over: Annotated[
        str,
        typer.Option("--over", metavar="NAME=V,V", help="temperature=0.7,1 or another sampling option; truncation=0.7,1."),
    ],
    num_samples: Annotated[
        int | None,
        typer.Option("-n", "--num-samples", min=6, metavar="N", help="Of each; default as many as held out."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="S", help="Seed of the samples.")] = 0,
    metrics: Annotated[
        str | None, typer.Option("--metrics", metavar="NAME,NAME", help="Columns; default: distance, quality and diversity.")
    ] = None,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare runs by their curves: quality and diversity at each value of what samples are drawn by."""
    from advgen.sweeping import format_sweep, sweep_runs

    columns = [name.strip() for name in (metrics or "").split(",") if name.strip()]
    with to_stderr():
        report = sweep_runs(runs, over, num_samples, seed, device, plugin)
        table = "" if as_json else format_sweep(report, columns)
    if as_json:
        say_json(report)
    else:
        say_text(table)
