"""Few training images: DiffAugment, ADA and LeCam beside nothing, at equal steps or equal time.

    python benchmarks/limited_data.py --data photos/ --steps 5000
    python benchmarks/limited_data.py --data mnist --upright --keep 100 --arm none --arm diffaugment --seeds 3
    python benchmarks/limited_data.py --data photos/photos.csv --keep 2688 --minutes 5 --set options.conditional=false

Of the training images 100, 500 or 1,000 are kept, at random but fixed, the smaller sets inside the larger; what is held out
stays whole. Every arm has the same networks, data, seed and plan. Samples of the average are compared with the
held-out images in the features of a judge that was trained on all training images: no arm trains on those, and the same judge
serves all. Beside each size stands what the kept images themselves would score, as a generator that copies them would.

D's scores come from the run's log (the mean over its last quarter): the gap between training and generated images, and how far
held-out images lie from the training ones on that way, 0 where D treats both alike, 1 where it takes them for generated.
Called again with the same --out, a benchmark that was cut off goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from plugins.few_images import subset
from trained import figures, mean_and_error, trained

from advgen import Batch, Corpus, DataRequest, Judge, cache_folder
from advgen.data.datasets import locate
from advgen.metrics.judging import compare
from advgen.metrics.real import real_samples
from advgen.registry import find_plugin
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality

KEPT = (100, 500, 1000)
NUM_JUDGED = 1_000
METRICS = ("frechet_distance", "kernel_distance", "precision", "recall", "coverage")
ARMS = ("none", "diffaugment", "ada", "lecam")
# A fifth of what two cores train on in five minutes.
ADA_IMAGES = 40_000


@dataclass(frozen=True)
class Outcome:
    """What one run scored at its last step."""

    keep: int
    arm: str
    seed: int
    steps: int
    frechet_distance: float
    kernel_distance: float
    precision: float
    recall: float
    coverage: float
    score_gap: float | None = None
    overfitting: float | None = None


@dataclass(frozen=True)
class Bench:
    """The whole data, their judge, and the held-out images."""

    data: Path
    corpus: Corpus
    modality: ImageModality
    judge: Judge
    held_out: Batch

    def measured(self, samples: Batch) -> dict[str, float]:
        """Metrics of samples against what is held out."""
        found = compare(self.judge, samples, self.held_out)
        return {name: found[name] for name in METRICS}


def make_bench(data: Path, config: ImageConfig) -> Bench:
    """Read the data and train their judge, or take it from the cache."""
    corpus = ImageModality.read(config, DataRequest(data))
    modality = ImageModality(config, corpus.facts)
    held_out = real_samples(modality, corpus, "test", limit=NUM_JUDGED)
    return Bench(data, corpus, modality, modality.judge(corpus, cache_folder()), held_out)


def overrides_of(arm: str, arguments: argparse.Namespace) -> tuple[str, ...]:
    """An arm's settings; upright images (digits, letters, faces) get no turns and flips."""
    speed = arguments.ada_images or (ADA_IMAGES if arguments.minutes else max(1, arguments.steps * arguments.batch // 5))
    augmented = {
        "diffaugment": ("options.augment=diffaugment", 'options.augment_ops=["color","translation"]'),
        "ada": ("options.augment=ada", 'options.augment_ops=["color","noise","cutout"]'),
    }
    own = augmented.get(arm, ())[: 2 if arguments.upright else 1]
    if arm == "ada":
        own += (f"options.ada_images={speed}",)
    return own + (("penalties.lecam.weight=0.3",) if arm == "lecam" else ())


def outcome(bench: Bench, arguments: argparse.Namespace, keep: int, arm: str, seed: int) -> Outcome:
    """Train or go on with one run, and measure it."""
    place = (f"options.keep={keep}", f"train.batch_size={arguments.batch}", *sizes(arguments), *overrides_of(arm, arguments))
    run = trained(
        "few_images",
        arguments.out / f"{keep}-{arm}-{seed}",
        arguments.device,
        data=bench.data,
        preset=arguments.preset,
        overrides=(*place, *arguments.set),
        steps=None if arguments.minutes else arguments.steps,
        minutes=arguments.minutes,
        seed=seed,
    )
    numbers = bench.measured(run.draw(len(bench.held_out), seed=0))
    late = partial(last_quarter, run.folder)
    train, generated = late("discriminator/train_score"), late("discriminator/generated_score")
    gap = None if train is None or generated is None else train - generated
    return Outcome(keep, arm, seed, run.step, **numbers, score_gap=gap, overfitting=late("discriminator/overfitting"))


def sizes(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The images' size, where one was asked for."""
    given = {"image_height": arguments.side, "image_width": arguments.side}
    return tuple(f"options.{name}={side}" for name, side in given.items() if side)


def last_quarter(folder: Path, name: str) -> float | None:
    """Mean of a figure's last values, which one look at a few samples would not give; None where it was never logged."""
    values = figures(folder, name)
    late = values[-max(1, len(values) // 4) :]
    return sum(late) / len(late) if late else None


def copied(bench: Bench, keep: int) -> Outcome:
    """What the kept images score in the generator's place."""
    few = subset(bench.corpus, keep, 0)
    samples = real_samples(bench.modality, few, "train", limit=NUM_JUDGED)
    return Outcome(keep, "the kept images", 0, 0, **bench.measured(samples))


def print_table(found: list[Outcome], bench: Bench) -> None:
    """A row for each size and arm."""
    held = len(bench.held_out)
    print(f"{held} samples against {held} held-out images; features of {bench.judge.name} trained on all training images")
    line = "{:>6} {:18} {:>16} {:>16} {:>14} {:>14} {:>14} {:>14}"
    print(line.format("images", "arm", "Fréchet", "kernel", "precision", "recall", "D's gap", "overfitting"))
    for keep, arm in dict.fromkeys((each.keep, each.arm) for each in found):
        own = [each for each in found if (each.keep, each.arm) == (keep, arm)]
        columns = [("frechet_distance", 2), ("kernel_distance", 3), ("precision", 3), ("recall", 3)]
        print(line.format(keep, arm, *(cell(own, *column) for column in [*columns, ("score_gap", 2), ("overfitting", 2)])))


def cell(own: list[Outcome], name: str, digits: int) -> str:
    """mean±standard error over the seeds that have the number."""
    values = [getattr(each, name) for each in own]
    return mean_and_error(values, digits) if None not in values else "-"


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Augmentation and LeCam on few images, at equal steps or time.")
    parser.add_argument("--data", required=True, help="folder of images or idx files, or mnist to fetch them")
    parser.add_argument("--keep", type=int, action="append", help="training images; may be repeated (100, 500, 1000)")
    parser.add_argument("--arm", choices=ARMS, action="append", help="only this arm; may be repeated (all)")
    plan = parser.add_mutually_exclusive_group()
    plan.add_argument("--steps", type=int, default=3000, help="of every run (3000)")
    plan.add_argument("--minutes", type=float, default=None, help="of every run, instead of steps")
    parser.add_argument("--batch", type=int, default=16, help="batch size (16)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each kind, of seeds 0 and on (1)")
    parser.add_argument("--preset", default="default", help="of the image plugin (default)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every arm; may be repeated")
    parser.add_argument("--side", type=int, default=None, help="scale and crop images to this size (their own)")
    parser.add_argument("--upright", action="store_true", help="no flips, turns or stretching, for digits and the like")
    parser.add_argument("--ada-images", type=int, default=None, help="ADA's way from 0 to 1 (a fifth of the run's; 40,000)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (auto)")
    parser.add_argument("--out", type=Path, default=Path("runs/limited_data"), help="run folders (runs/limited_data)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return parser.parse_args(given)


def main() -> None:
    """Run everything that was asked for and print it."""
    arguments = parse_arguments()
    given: dict[str, Any] = {"image_height": arguments.side, "image_width": arguments.side}
    bench = make_bench(locate(find_plugin("image"), arguments.data), ImageConfig(**given))
    found = []
    for keep in arguments.keep or KEPT:
        found.append(copied(bench, keep))
        for arm in arguments.arm or ARMS:
            for seed in range(arguments.seeds):
                found.append(outcome(bench, arguments, keep, arm, seed))
                print(found[-1], file=sys.stderr, flush=True)
    text = json.dumps({"features": bench.judge.name, "runs": [asdict(each) for each in found]}, indent=2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "limited_data.json").write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)
    else:
        print_table(found, bench)


if __name__ == "__main__":
    main()
