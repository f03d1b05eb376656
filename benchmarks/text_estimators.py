"""Every estimator of the text plugin beside likelihood alone at equal processor time, as whole curves of quality and diversity.

    python benchmarks/text_estimators.py --minutes 1 --seeds 3
    python benchmarks/text_estimators.py --data coco --preset captions --minutes 10 --seeds 3 --arm likelihood --arm dense \\
        --temperatures 0.7,0.8,0.9,1 --samples 9984

Without --data the language is the embedded grammar, whose likelihood is known: the table has the exact divergence from it.
Every arm has the preset's networks, rates, share of likelihood and seed; an arm changes the estimator and what that asks for.
Equal time is a number of steps for each arm: before anything is trained, steps of each phase are timed by the processor's
clock, which other programs do not lengthen. The numbers are kept with the runs.

Columns are means over seeds, ± standard errors, at each temperature; the row *real* is training text in the generator's place.
Called again with the same --out, a benchmark that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from clock import now
from trained import mean_and_error, trained

from advgen.config.load import load_config
from advgen.config.model import RunConfig
from advgen.registry import find_plugin
from advgen.setup import build
from advgen.step import critic_step, likelihood_step, train_step
from advgen.sweeping import sweep_runs
from advgen.world import World, pick_device

STEPS = {"likelihood": likelihood_step, "critic": critic_step, "adversarial": train_step}
_RATIO = ("loss=nonsaturating", "penalties={}")
ARMS: dict[str, tuple[str, ...]] = {
    "likelihood": ("phases=[{kind='likelihood'}]",),
    "dense": (),
    "terminal": ("estimator.rewards=terminal", "estimator.discount=1"),
    "rollout": ("estimator.rewards=rollout", "estimator.rollouts=4"),
    "importance": (*_RATIO, "estimator.rewards=importance"),
    "ppo": ("estimator.name=ppo", "estimator.reference_weight=0.1"),
    "straight_through": ("estimator.name=straight_through",),
    "expectation": (
        *("options.critic=mediator", "loss=cooperative", "penalties={}"),
        *("estimator={name='expectation', entropy_weight=1}", "discriminator.learning_rate=3e-3"),
    ),
}
"""What each changes in the preset; ``expectation`` with its mediator is CoT."""
GRAMMAR = {"valid_share": 3, "distinct_parses": 0, "grammar_kl": 3, "grammar_mass": 3, "frechet_distance": 2}
PROSE = {"bleu_2": 3, "bleu_5": 3, "self_bleu_2": 3, "self_bleu_5": 3, "frechet_distance": 2, "nll_test": 3, "novel_share": 3}
WARM, TIMED, MOST_SECONDS = 4, 30, 15.0


def overrides_of(arm: str, arguments: argparse.Namespace) -> tuple[str, ...]:
    """The preset's changes, the user's last."""
    return (*ARMS[arm], *arguments.set)


def seconds_a_step(arm: str, arguments: argparse.Namespace) -> float:
    """Processor time of a mean step of an arm's plan, each phase by its share."""
    config = load_config(
        find_plugin("text"),
        preset=arguments.preset,
        overrides=overrides_of(arm, arguments),
        cli={"data.path": arguments.data, "train.steps": 1},
    ).config
    total = sum(phase.share for phase in config.phases)
    return sum(phase.share / total * timed(config, phase.kind, arguments) for phase in config.phases)


def timed(config: RunConfig, kind: str, arguments: argparse.Namespace) -> float:
    """Seconds of a step of one phase: of the processor, on a GPU of the clock."""
    device = pick_device(arguments.device)
    setup = build(find_plugin("text"), config, World(0, 1, device))

    def work(step: int) -> float:
        STEPS[kind](setup.players, setup.objective, setup.draw, step, 0.9)
        return now(device)

    for step in range(WARM):
        start = work(step)
    for step in range(WARM, WARM + TIMED):
        if (spent := work(step) - start) > MOST_SECONDS:
            break
    return spent / (step + 1 - WARM)


def planned(arguments: argparse.Namespace) -> dict[str, int]:
    """Steps of each arm; measured once for each place, then read there."""
    file = arguments.out / "steps.json"
    found: dict[str, int] = json.loads(file.read_text()) if file.is_file() else {}
    for arm in arguments.arm or ARMS:
        if arm not in found:
            found[arm] = max(1, round(60 * arguments.minutes / seconds_a_step(arm, arguments)))
            print(f"{arm}: {found[arm]:,} steps are {arguments.minutes:g} minutes", file=sys.stderr, flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def measured(arm: str, seed: int, steps: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Train or go on with one run; its metrics at every temperature."""
    folder = arguments.out / f"{arm}-{seed}"
    if not (folder / "sweep-temperature.json").is_file():
        trained(
            "text",
            folder,
            arguments.device,
            data=arguments.data,
            preset=arguments.preset,
            overrides=overrides_of(arm, arguments),
            steps=steps,
            seed=seed,
        )
        sweep_runs([folder], f"temperature={arguments.temperatures}", arguments.samples, device=arguments.device)
    report = json.loads((folder / "sweep-temperature.json").read_text())
    return [{"arm": arm, "seed": seed, "steps": steps, "real": report["real"], **point} for point in report["points"]]


def print_table(points: list[dict[str, Any]]) -> None:
    """A line for each arm and temperature, real text last."""
    known, protocol = points[0]["metrics"], points[0]["protocol"]
    columns = GRAMMAR if "grammar_kl" in known else {name: digits for name, digits in PROSE.items() if name in known}
    print(f"{protocol['num_generated']:,} samples against {protocol['num_real']:,} held-out lines; {protocol['features']}")
    print(" | ".join(["arm", "steps", "temperature", *columns]))
    for arm, value in dict.fromkeys((point["arm"], point["value"]) for point in points):
        own = [point for point in points if (point["arm"], point["value"]) == (arm, value)]
        cells = [mean_and_error([each["metrics"][name] for each in own], digits) for name, digits in columns.items()]
        print(" | ".join([arm, f"{own[0]['steps']:,}", value, *cells]))
    real = points[0]["real"]
    cells = [f"{real[name]:.{digits}f}" if name in real else "-" for name, digits in columns.items()]
    print(" | ".join(["real", "", "", *cells]))


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="text as for gen train (the embedded grammar)")
    parser.add_argument("--preset", default="default", help="of the text plugin, which every arm changes (default)")
    parser.add_argument("--arm", action="append", choices=list(ARMS), help="only this arm; may be repeated (all)")
    parser.add_argument("--minutes", type=float, default=1.0, help="processor time of every run (1)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each arm, of seeds 0 and on (1)")
    parser.add_argument("--temperatures", default="1", help="of the softmax, such as 0.7,0.8,0.9,1 (1)")
    parser.add_argument("--samples", type=int, default=None, help="of each run and temperature (as many as are held out)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every arm; may be repeated")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (auto)")
    parser.add_argument("--out", type=Path, default=Path("runs/text_estimators"), help="run folders (runs/text_estimators)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return parser.parse_args(given)


def main() -> None:
    """Time, train, measure, print."""
    arguments = parse_arguments()
    steps, points = planned(arguments), list[dict[str, Any]]()
    for arm in arguments.arm or ARMS:
        for seed in range(arguments.seeds):
            points += measured(arm, seed, steps[arm], arguments)
    print(json.dumps(points, indent=2)) if arguments.json else print_table(points)


if __name__ == "__main__":
    main()
