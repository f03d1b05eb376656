"""Modes of StackedMNIST that a run finds, and its KL, beside real data, the sampling floor and published figures.

    python benchmarks/stacked_mnist.py --data mnist/ --minutes 30 --out runs/stacked           # the default preset
    python benchmarks/stacked_mnist.py --data mnist/ --minutes 30 --preset classic --seeds 3
    python benchmarks/stacked_mnist.py --data mnist/ --run runs/stacked/default-0              # a finished run
    python benchmarks/stacked_mnist.py --data mnist/ --steps 20000 --set train.batch_size=64 --json

Protocol (PacGAN, table 2): 128,000 stacked images of 28x28, digits from both parts of MNIST; 26,000 samples; a digit classifier
on each channel; a mode is found by one sample; KL of the samples' histogram over the 1,000 modes to the uniform one, in nats.
Called again with the same --out, a benchmark that was cut off goes on.

The classifier is our own (PacGAN's has 99.25 % on the test digits): its accuracy is printed, its weights are kept in the cache.
Perfect samples have a KL of about 999 / (2 * 26,000) from counting alone, more from the classifier's mistakes and from digits
that are not equally frequent: that is what real data, scored in the same way, shows.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from plugins.stacked_mnist import StackedConfig, StackedModality, StackedSource, as_modes
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from trained import figures, mean_and_error, opened, trained

from advgen import ArraySource, DataError, DataRequest, cache_folder, content_hash
from advgen.data.datasets import locate
from advgen.registry import find_plugin
from advgen_image.config import ImageConfig
from advgen_image.idx import read_idx

NUM_MODES = 1_000
NUM_JUDGED = 26_000
SIDE = 28
CHUNK = 512
VERSION = "1"
PUBLISHED = (
    ("DCGAN (as in VEEGAN), PacGAN table 2", "99.0", "3.40"),
    ("ALI, PacGAN table 2", "16.0", "5.40"),
    ("Unrolled GAN, PacGAN table 2", "48.7", "4.32"),
    ("VEEGAN, PacGAN table 2", "150.0", "2.95"),
    ("DCGAN (own), PacGAN table 2, 10 runs", "78.9±6.46", "4.50±0.127"),
    ("PacDCGAN2, PacGAN table 2, 10 runs", "1000.0±0.00", "0.06±0.003"),
    ("R3GAN config E, 32x32, 20.7 M, table 3", "1000", "0.029"),
)
"""arXiv 1712.04086 and 2501.05441: 6.4 million images trained on by the first, 10 million by the last."""


class DigitClassifier(nn.Sequential):
    """digits (N, 1, 28, 28) in [-1, 1] -> logits (N, 10)."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 5, padding=2), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10)),
        )


@dataclass(frozen=True)
class Score:
    """What one set of images scored."""

    name: str
    modes: int
    kl: float
    num_images: int
    steps: int | None = None
    minutes: float | None = None


def score(name: str, modes: Tensor, **more: float | int | None) -> Score:
    """Modes found and KL of numbers of modes (N,)."""
    counts = torch.bincount(modes, minlength=NUM_MODES)
    return Score(name, int((counts > 0).sum()), reverse_kl(counts), len(modes), **more)  # type: ignore[arg-type]


def reverse_kl(counts: Tensor) -> float:
    """KL of a histogram (K,) to the uniform one, in nats; ln K where all samples are of one mode."""
    shares = counts.double() / counts.sum()
    return float((shares * torch.log(shares * len(counts))).nan_to_num(0.0).sum())


def floor(num_images: int) -> float:
    """What counting alone adds to the KL of perfect samples, to first order."""
    return (NUM_MODES - 1) / (2 * num_images)


@torch.no_grad()
def modes_of(images: Tensor, classifier: nn.Module) -> Tensor:
    """(N,) mode of images (N, 3, H, W) in [-1, 1], channel by channel, at the size of the classifier."""
    found = []
    for part in images.split(CHUNK):
        digits = part.clamp(-1, 1).flatten(0, 1)[:, None]
        if digits.shape[-2:] != (SIDE, SIDE):
            digits = F.interpolate(digits, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        found.append(as_modes(classifier(digits).argmax(1).view(-1, 3)))
    return torch.cat(found)


def digit_classifier(data: Path, epochs: int) -> tuple[DigitClassifier, float]:
    """The classifier of MNIST's training digits and its accuracy on the test digits; trained once, then from the cache."""
    found = read_idx(data, ImageConfig(image_height=SIDE, image_width=SIDE))
    if found.labels is None or not found.num_test:
        raise DataError(f"{data}: the classifier needs labels and MNIST's own test part; expected its four idx files")
    edge = len(found.labels) - found.num_test
    images, labels = torch.from_numpy(found.values), torch.from_numpy(found.labels)
    train, test = (ArraySource(images[rows], condition={"label": labels[rows]}) for rows in (slice(edge), slice(edge, None)))
    key = content_hash([VERSION.encode(), found.fingerprint.encode(), str(epochs).encode()])
    file = cache_folder() / "benchmarks" / f"digits-{key}.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DigitClassifier()
        if file.is_file():
            network.load_state_dict(load_file(file))
        else:
            print(f"training the digit classifier on {len(train):,} digits, once", file=sys.stderr, flush=True)
            fit(network, train, epochs)
            keep(network, file)
    return network, accuracy(network.eval().requires_grad_(False), test)


def fit(network: nn.Module, source: ArraySource, epochs: int, batch_size: int = 128) -> None:
    """Adam at 2e-3 along a cosine."""
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    steps = max(1, len(source) // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(source)).split(batch_size)[:steps]:
            optimizer.zero_grad()
            F.cross_entropy(network(scaled(source.values[rows])), source.conditions["label"][rows]).backward()
            optimizer.step()
            schedule.step()


def keep(network: nn.Module, file: Path) -> None:
    """Beside its place, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        save_file(network.state_dict(), Path(folder) / file.name)
        os.replace(Path(folder) / file.name, file)


@torch.no_grad()
def accuracy(network: nn.Module, source: ArraySource) -> float:
    """Share of digits that are recognised."""
    found = torch.cat([network(scaled(part)).argmax(1) for part in source.values.split(CHUNK)])
    return float((found == source.conditions["label"]).double().mean())


def scaled(values: Tensor) -> Tensor:
    """uint8 to [-1, 1], as the image plugin does."""
    return values.float() / 127.5 - 1


def real_scores(data: Path, classifier: nn.Module) -> list[Score]:
    """26,000 stacks of real digits: by the classifier as samples are, and by the digits' own labels."""
    held = StackedModality.read(StackedConfig(num_stacked=1), DataRequest(data)).splits["test"]
    assert isinstance(held, StackedSource)
    rows = torch.arange(len(held)).split(CHUNK)
    found = torch.cat([modes_of(scaled(held.batch(part, torch.Generator()).values), classifier) for part in rows])
    return [score("real data, same classifier", found), score("real data, own labels", held.modes())]


def run_scores(arguments: argparse.Namespace, data: Path, classifier: nn.Module) -> list[Score]:
    """A score for each run that was named, or for each seed."""
    found = []
    for seed in range(arguments.seeds):
        if arguments.run is not None:
            run = opened(arguments.run, arguments.device)
        else:
            plan = {"steps": arguments.steps, "minutes": arguments.minutes, "overrides": tuple(arguments.set)}
            folder = arguments.out / f"{arguments.preset}-{seed}"
            run = trained("stacked_mnist", folder, arguments.device, data=data, preset=arguments.preset, seed=seed, **plan)
        minutes = round(max(figures(run.folder, "seconds"), default=0.0) / 60, 2)
        modes = modes_of(run.draw(NUM_JUDGED, seed=0).values, classifier)
        found.append(score(f"{run.folder}", modes, steps=run.step, minutes=minutes))
        print(found[-1], file=sys.stderr, flush=True)
    return found


def print_table(own: list[Score], real: list[Score], known: float, label: str) -> None:
    """Own runs, what bounds them, and the published rows."""
    line = "{:44} {:>14} {:>14}"
    print(f"{NUM_JUDGED:,} samples, digits recognised with {known:.2%} on the test digits")
    print(line.format("", "modes of 1000", "KL"))
    modes, kls = mean_and_error([each.modes for each in own], 1), mean_and_error([each.kl for each in own], 4)
    print(line.format(f"advgen {label}, {len(own)} run{'s' if len(own) > 1 else ''}", modes, kls))
    for row in real:
        print(line.format(row.name, row.modes, f"{row.kl:.4f}"))
    print(line.format("counting alone, (1000 - 1) / (2 * 26,000)", NUM_MODES, f"{floor(NUM_JUDGED):.4f}"))
    for published in PUBLISHED:
        print(line.format(*published))


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Modes and KL on StackedMNIST, by PacGAN's protocol.")
    parser.add_argument("--data", required=True, help="folder of MNIST's idx files, or mnist to fetch them")
    parser.add_argument("--run", type=Path, default=None, help="score this run and train nothing")
    parser.add_argument("--preset", default="default", help="of the image plugin (default)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for gen train; may be repeated")
    plan = parser.add_mutually_exclusive_group()
    plan.add_argument("--steps", type=int, default=None, help="training steps")
    plan.add_argument("--minutes", type=float, default=None, help="training minutes (the preset's)")
    parser.add_argument("--seeds", type=int, default=1, help="runs, of seeds 0 and on (1)")
    parser.add_argument("--epochs", type=int, default=3, help="of the classifier (3)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (auto)")
    parser.add_argument("--out", type=Path, default=Path("runs/stacked_mnist"), help="run folders (runs/stacked_mnist)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args(given)
    if arguments.run is not None:
        arguments.seeds = 1
    return arguments


def main() -> None:
    """Train or open the runs, score them, print."""
    arguments = parse_arguments()
    data = locate(find_plugin("image"), arguments.data)
    classifier, known = digit_classifier(data, arguments.epochs)
    own, real = run_scores(arguments, data, classifier), real_scores(data, classifier)
    report = {
        "protocol": {"samples": NUM_JUDGED, "classifier_accuracy": known, "floor": floor(NUM_JUDGED)},
        "preset": None if arguments.run else arguments.preset,
        "set": arguments.set,
        "runs": [asdict(each) for each in own],
        "real": [asdict(each) for each in real],
    }
    text = json.dumps(report, indent=2)
    if arguments.run is None:
        (arguments.out / f"{arguments.preset}.json").write_text(text + "\n", encoding="utf-8")
    if arguments.json:
        print(text)
    else:
        print_table(own, real, known, str(arguments.run or arguments.preset))


if __name__ == "__main__":
    main()
