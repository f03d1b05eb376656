"""``gen export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from advgen.cli.output import JsonFlag, RunArgument, StepOption, TrustOption, say, say_json, to_stderr


def export(
    run: RunArgument,
    kind: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="onnx: a file for other programs; huggingface: a folder with a card."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="File or folder to make; default below export/ in the run.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="ID", help="The model's licence, such as apache-2.0; default not stated.")
    ] = None,
    intended_use: Annotated[
        str | None, typer.Option("--intended-use", metavar="TEXT", help="What the model is for; default: the plugin's text.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="X", help="onnx: largest difference from eager that is kept.")
    ] = 1e-4,
    step: StepOption = None,
    plugin: TrustOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Ship a run's generator (its average, where it keeps one).

    onnx: one file, inputs noise and condition, free batch axis, checked against eager in ONNX Runtime; pip install
    "advgen[export]". huggingface: safetensors, config.json and a model card with samples and metrics; gen sample takes it.
    """
    from advgen.export import export_run

    with to_stderr():
        result = export_run(
            run, kind, out, licence=licence, tolerance=tolerance, step=step, plugin=plugin, intended_use=intended_use
        )
    if as_json:
        say_json(result.as_dict())
        return
    say(f"{result.kind} of step {result.step}: {result.path}")
    if "difference" in result.about:
        about = result.about
        say(f"  inputs {', '.join(about['inputs'])}; outputs {', '.join(about['outputs'])}; opset {about['opset']}")
        say(f"  difference from eager {about['difference']:.3g}, allowed {about['tolerance']:.3g}: {about['checked']}")
    else:
        say(
            f"  {len(result.files)} files; licence {result.about['licence']}; "
            + _evaluated(bool(result.about["evaluated"]), run)
        )


def _evaluated(evaluated: bool, run: Path) -> str:
    return "metrics in the card" if evaluated else f"no metrics: gen evaluate {run} first puts them in the card"
