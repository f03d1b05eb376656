"""Speed of the image families: a training step beside a plain loop, and images per second at several sizes.

    python benchmarks/image_speed.py pairs                                    # each family against a plain loop, at 32 px
    python benchmarks/image_speed.py sizes                                    # each family alone, at 32, 64 and 128 px
    python benchmarks/image_speed.py sizes --preset stylegan2 --side 128 --batch 32 --device cuda
    python benchmarks/image_speed.py sizes --preset r3 --side 32 --batch 512 --device cuda --set data.device_share=0

Images are made up, RGB in ten classes: speed does not ask what is seen. In pairs, advgen and a hand-written loop of the same
networks, costs, optimizer and batch take turns of --steps training steps; printed are images per second of both, the median
ratio and its 95 % bootstrap interval. Sizes are timed in --rounds turns of --steps steps; printed are images per second, and
seconds per 1,000 images. Steps come in whole cycles of the lazy penalties (16 for StyleGAN2), so that each turn has its share.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import step as pairs_of_steps
import torch
from image_loops import PlainLoop
from PIL import Image

from advgen.config.load import load_config
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.world import join_world

SMALL = ("default", "classic", "r3-small", "resnet-small", "stylegan2-small")
NUM_CLASSES = 10


def make_images(folder: Path, side: int, count: int) -> Path:
    """Noise in a folder for each class."""
    rng = np.random.default_rng(0)
    for index in range(count):
        place = folder / str(index % NUM_CLASSES)
        place.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(place / f"{index}.png")
    return folder


def prepared(preset: str, side: int, arguments: argparse.Namespace, data: Path) -> Setup:
    """A run of a preset on such images, before its first step."""
    record = find_plugin("image")
    cli: dict[str, object] = {"train.steps": 100_000, "data.path": str(data), "train.precision": arguments.precision}
    cli |= {"train.batch_size": arguments.batch} if arguments.batch else {}
    config = load_config(record, preset=preset, overrides=arguments.overrides, cli=cli).config
    return build(record, config, join_world(arguments.device))


def cycle(setup: Setup) -> int:
    """Steps after which every lazy penalty has had its turn."""
    return max((penalty.interval for penalty in setup.config.penalties.values() if penalty.amount), default=1)


def turn(setup: Setup, steps: int) -> int:
    """As many steps as asked for, or the next whole cycles."""
    whole = cycle(setup)
    return -(-steps // whole) * whole


def of_pairs(preset: str, side: int, arguments: argparse.Namespace, data: Path) -> dict[str, object]:
    """Ratio advgen / plain of images per second."""
    setup = prepared(preset, side, arguments, data)
    steps, ours, plain = turn(setup, arguments.steps), pairs_of_steps.own_step(setup), PlainLoop(setup)
    tell(f"{preset} {side} px: {arguments.pairs} pairs of {steps} steps")
    times = pairs_of_steps.alternate(ours, plain, arguments.pairs, steps, warm_up=steps)
    return pairs_of_steps.summary(times, setup.config.train.batch_size, steps)


def of_size(preset: str, side: int, arguments: argparse.Namespace, data: Path) -> dict[str, object]:
    """Images per second of advgen alone."""
    setup = prepared(preset, side, arguments, data)
    steps, ours, batch = turn(setup, arguments.steps), pairs_of_steps.own_step(setup), setup.config.train.batch_size
    tell(f"{preset} {side} px: {arguments.rounds} turns of {steps} steps")
    pairs_of_steps.seconds(ours, steps)
    if setup.world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    speeds = [batch * steps / pairs_of_steps.seconds(ours, steps) for _ in range(arguments.rounds)]
    row = {
        "images_per_second": statistics.median(speeds),
        "interval_95": list(pairs_of_steps.interval(speeds)),
        "seconds_per_thousand": 1_000 / statistics.median(speeds),
        "steps_a_turn": steps,
    }
    return row | ({"peak_gpu_mb": torch.cuda.max_memory_allocated() / 2**20} if setup.world.device.type == "cuda" else {})


def parameters(setup: Setup) -> dict[str, int]:
    """Numbers that each player learns."""
    players = (("generator", setup.players.generator), ("discriminator", setup.players.discriminator))
    return {name: sum(each.numel() for each in player.network.parameters()) for name, player in players}


def measured(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each preset and size, printed as soon as it is known."""
    rows, measure = list[dict[str, object]](), of_pairs if arguments.what == "pairs" else of_size
    for side in arguments.side or ([32] if arguments.what == "pairs" else [32, 64, 128]):
        with tempfile.TemporaryDirectory() as folder:
            data = make_images(Path(folder), side, max(400, 2 * (arguments.batch or 0)))
            for preset in arguments.preset or SMALL:
                setup = prepared(preset, side, arguments, data)
                facts = {"preset": preset, "side": side, "batch": setup.config.train.batch_size}
                rows.append(facts | {"parameters": parameters(setup)} | measure(preset, side, arguments, data))
                if not arguments.json:
                    print(in_words(rows[-1]), flush=True)
    return rows


def in_words(row: dict[str, object]) -> str:
    """A row as a line."""
    sizes = " + ".join(f"{count / 1e6:.2f}M" for count in row["parameters"].values())
    name = f"{row['preset']} ({sizes}), {row['side']} px, batch {row['batch']}"
    if "ratio" in row:
        return pairs_of_steps.line(row, name)
    low, high = row["interval_95"]
    memory = f", peak {row['peak_gpu_mb']:.0f} MB of the GPU" if "peak_gpu_mb" in row else ""
    return (
        f"{name}: {row['images_per_second']:.4g} images/s [{low:.4g}, {high:.4g}], "
        f"{row['seconds_per_thousand']:.3g} s per 1,000 images{memory}"
    )


def tell(text: str) -> None:
    """What is going on, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pairs", "sizes"])
    parser.add_argument("--preset", action="append", help=f"again and again for more; default: {', '.join(SMALL)}")
    parser.add_argument("--side", type=int, action="append", help="pixels; default: 32 for pairs, 32, 64 and 128 for sizes")
    parser.add_argument("--batch", type=int, default=16, help="batch size; 0: the preset's (16)")
    parser.add_argument("--pairs", type=int, default=30, help="alternating pairs (30)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each size (7)")
    parser.add_argument("--steps", type=int, default=4, help="steps a turn, at least (4)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto", help="of both loops")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(given)


def main() -> None:
    """Print a line per measurement, or JSON."""
    arguments = parse()
    torch.manual_seed(0)
    device = join_world(arguments.device).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    where = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    if not arguments.json:
        print(", ".join(f"{key} {value}" for key, value in where.items()))
    rows = measured(arguments)
    if arguments.json:
        print(json.dumps({**where, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
