"""Updates recorded as CUDA graphs beside plain ones: time of a step, and how far the weights end apart.

    python benchmarks/recorded.py image/default text/captions text/textgail
    python benchmarks/recorded.py audio/default --set train.deterministic=true

For each preset and each kind of its phases: --steps steps by plain updates, twice, and by recorded ones, from the same start.
Printed: milliseconds of a step of both, the ratio, and how far weights are from the first plain run's, over their norm: those
of the second plain run, which is 0 where the GPU's algorithms repeat to the bit, and those of the recorded one. Needs a GPU.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from clock import now
from torch import Tensor

from advgen.config.load import load_config
from advgen.errors import ConfigError, GenError
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.step import critic_step, likelihood_step, train_step
from advgen.world import World, pick_device

STEPS = {"likelihood": likelihood_step, "critic": critic_step, "adversarial": train_step}


@dataclass(frozen=True)
class Trial:
    """What some steps came to.

    Args:
        weights: of both players, (N,).
        milliseconds: of a later step.
        refusals: kinds of update that could not be recorded.
    """

    weights: Tensor
    milliseconds: float
    refusals: dict[str, str]


def trial(setup: Setup, kind: str, steps: int, timed: int) -> Trial:
    """Steps of one phase from the start, then more of them by the clock."""
    for step in range(steps):
        STEPS[kind](setup.players, setup.objective, setup.draw, step, step / steps)
    networks = (setup.players.generator.network, setup.players.discriminator.network)
    weights = torch.cat([each.detach().flatten() for network in networks for each in network.parameters()])
    start = now(setup.world.device)
    for step in range(steps, steps + timed):
        STEPS[kind](setup.players, setup.objective, setup.draw, step, 1.0)
    spent = now(setup.world.device) - start
    recorder = setup.players.recorder
    return Trial(weights, 1e3 * spent / timed, {} if recorder is None else recorder.refusals)


def compared(preset: str, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """A row for each kind of phase."""
    plugin, _, name = preset.partition("/")
    record, device = find_plugin(plugin), pick_device(arguments.device)

    def setup(recorded: bool) -> Setup:
        given = [*arguments.set, f"train.cuda_graphs={str(recorded).lower()}"]
        config = load_config(record, preset=name or "default", overrides=given, cli={"train.steps": 1000}).config
        return build(record, config, World(0, 1, device))

    for kind in dict.fromkeys(phase.kind for phase in setup(False).config.phases):
        first, second, other = (
            trial(setup(recorded), kind, arguments.steps, arguments.timed) for recorded in (False, False, True)
        )
        plain = min(first.milliseconds, second.milliseconds)
        yield {
            "preset": preset,
            "phase": kind,
            "plain_ms": round(plain, 2),
            "recorded_ms": round(other.milliseconds, 2),
            "ratio": round(plain / other.milliseconds, 2),
            "plain_from_plain": distance(first.weights, second.weights),
            "recorded_from_plain": distance(first.weights, other.weights),
            "refusals": other.refusals,
        }


def distance(one: Tensor, other: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((one - other).norm() / one.norm())


def main() -> None:
    """Print a line of JSON for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+", metavar="PLUGIN/PRESET")
    parser.add_argument("--steps", type=int, default=8, help="after which weights are compared (8)")
    parser.add_argument("--timed", type=int, default=30, help="further steps, by the clock (30)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for gen train; may be repeated")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    try:
        if pick_device(arguments.device).type != "cuda":
            raise ConfigError("nothing is recorded without a GPU: there is none here, or --device names another device")
        for preset in arguments.presets:
            for row in compared(preset, arguments):
                print(json.dumps(row), flush=True)
    except GenError as error:
        parser.exit(error.exit_code, f"error: {error}\n")


if __name__ == "__main__":
    main()
