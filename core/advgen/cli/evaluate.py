"""``gen evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgen.cli.output import DeviceOption, JsonFlag, RunArgument, StepOption, TrustOption, say, say_json, to_stderr


def evaluate(
    run: RunArgument,
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
    step: StepOption = None,
    device: DeviceOption = "auto",
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare a run's samples with held-out data, beside real against real."""
    from advgen.evaluation import evaluate_run, format_report

    with to_stderr():
        report = evaluate_run(
            run,
            num_samples=num_samples,
            seed=seed,
            device=device,
            plugin=plugin,
            step=step,
            features=features,
            weights=weights,
        )
    if as_json:
        say_json(report)
    else:
        say(format_report(report))
