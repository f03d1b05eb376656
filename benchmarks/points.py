"""Ten seeds of the points example, the default objective beside the textbook loss, against the published figures.

    python benchmarks/points.py                      # 40 runs; hours on one core, so see --jobs, --seeds and --steps
    python benchmarks/points.py --seeds 2 --steps 2000 --mode ring --json

Protocol (PacGAN): 100,000 training points, 2,500 generated ones judged at the last step of every run; high quality is
within 3 standard deviations of the nearest mode; reverse KL is of the histogram of high-quality points over the modes.
Every run counts: minimum, median and maximum are printed, never the best epoch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "advgen-points"
NUM_JUDGED = 2_500
OBJECTIVES = {
    "relativistic": (),
    "nonsaturating": ("loss=nonsaturating", "penalties=none"),
}
PUBLISHED = {
    "ring": (
        ("GAN (VEEGAN, table 1)", "1", "0.993", "-"),
        ("ALI (VEEGAN, table 1)", "2.8", "0.0013", "-"),
        ("Unrolled GAN (VEEGAN, table 1)", "7.6", "0.356", "-"),
        ("VEEGAN (VEEGAN, table 1)", "8", "0.529", "-"),
        ("GAN (PacGAN, table 1)", "6.3±0.5", "0.982±0.002", "0.45±0.09"),
        ("ALI (PacGAN, table 1)", "6.6±0.3", "0.976±0.004", "0.36±0.04"),
        ("PacGAN2 (PacGAN, table 1)", "7.9±0.1", "0.956±0.020", "0.07±0.03"),
        ("PacGAN3 (PacGAN, table 1)", "7.8±0.1", "0.977±0.003", "0.10±0.02"),
        ("PacGAN4 (PacGAN, table 1)", "7.8±0.1", "0.959±0.014", "0.07±0.02"),
    ),
    "grid": (
        ("GAN (VEEGAN, table 1)", "3.3", "0.005", "-"),
        ("ALI (VEEGAN, table 1)", "15.8", "0.016", "-"),
        ("Unrolled GAN (VEEGAN, table 1)", "23.6", "0.16", "-"),
        ("VEEGAN (VEEGAN, table 1)", "24.6", "0.40", "-"),
        ("GAN (PacGAN, table 1)", "17.3±0.8", "0.948±0.007", "0.70±0.07"),
        ("ALI (PacGAN, table 1)", "24.1±0.4", "0.957±0.006", "0.14±0.03"),
        ("PacGAN2 (PacGAN, table 1)", "23.8±0.7", "0.913±0.008", "0.13±0.04"),
        ("PacGAN3 (PacGAN, table 1)", "24.6±0.4", "0.942±0.004", "0.06±0.02"),
        ("PacGAN4 (PacGAN, table 1)", "24.8±0.2", "0.936±0.006", "0.04±0.01"),
    ),
}
"""Mean ± standard error as printed in the papers: VEEGAN arXiv 1705.07761, PacGAN arXiv 1712.04086."""


@dataclass(frozen=True)
class Job:
    """One run of the benchmark."""

    mode: str
    objective: str
    seed: int
    steps: int | None
    folder: str


@dataclass(frozen=True)
class Outcome:
    """What one run scored at its last step."""

    mode: str
    objective: str
    seed: int
    steps: int
    seconds: float
    modes_found: float
    high_quality: float
    reverse_kl: float


def use_example_from_checkout() -> None:
    """Make the plugin known where it is not installed, with the metadata that pip would have written."""
    from importlib.metadata import entry_points

    if any(entry.name == "points" for entry in entry_points(group="advgen.plugins")):
        return
    site = Path(tempfile.gettempdir()) / "advgen-points-benchmark"
    metadata = site / "advgen_points-0.1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: advgen-points\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[advgen.plugins]\npoints = advgen_points\n")
    sys.path[:0] = [str(site), str(EXAMPLE / "src")]


def run(job: Job) -> Outcome:
    """Train, draw 2,500 points from the run's generator and judge them."""
    use_example_from_checkout()
    import torch

    import advgen

    torch.set_num_threads(1)
    started = time.perf_counter()
    result = advgen.train(
        "points",
        overrides=(f"options.mode={job.mode}", *OBJECTIVES[job.objective]),
        steps=job.steps,
        seed=job.seed,
        device="cpu",
        out=Path(job.folder) / f"{job.mode}-{job.objective}-{job.seed}",
        progress=False,
    )
    seconds = time.perf_counter() - started
    scores = judge(job.mode, advgen.load_generator(result.folder).draw(NUM_JUDGED))
    return Outcome(job.mode, job.objective, job.seed, result.step, round(seconds, 1), **scores)


def judge(mode: str, batch: object) -> dict[str, float]:
    """The plugin's own metrics, without the ceiling, which is the same for all."""
    from advgen_points.config import PointsConfig
    from advgen_points.modality import PointsModality

    from advgen import DataRequest

    config = PointsConfig(mode=mode)
    modality = PointsModality(config, PointsModality.read(config, DataRequest(None)).facts)
    scores = modality.metrics(batch, batch)
    return {name: scores[name] for name in ("modes_found", "high_quality", "reverse_kl")}


def outcomes(jobs: list[Job], num_processes: int) -> Iterator[Outcome]:
    """Every outcome in order; a line on standard error as each comes in."""
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(run, jobs):
            print(outcome, file=sys.stderr, flush=True)
            yield outcome


def spread(values: list[float], digits: int) -> str:
    """minimum / median / maximum."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def print_table(mode: str, results: list[Outcome]) -> None:
    """Own rows (minimum / median / maximum over the seeds), the ceiling and the published rows of one mixture."""
    line = "{:34} {:>22} {:>26} {:>26}"
    print(f"\n{mode}: {len(results)} runs, {spread([outcome.seconds for outcome in results], 0)} s each (min / median / max)")
    print(line.format("method", f"modes of {8 if mode == 'ring' else 25}", "high quality", "reverse KL"))
    for objective in OBJECTIVES:
        own = [outcome for outcome in results if outcome.objective == objective]
        if own:
            columns = [
                spread([getattr(o, name) for o in own], n)
                for name, n in (("modes_found", 0), ("high_quality", 4), ("reverse_kl", 4))
            ]
            print(line.format(f"advgen {objective}, {len(own)} seeds", *columns))
    print(line.format("the mixture itself (ceiling)", "8" if mode == "ring" else "25", "0.9889", "0"))
    for row in PUBLISHED[mode]:
        print(line.format(*row))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Ring and grid of Gaussians: default objective, textbook loss, published figures."
    )
    parser.add_argument("--seeds", type=int, default=10, help="runs of each kind (10)")
    parser.add_argument("--steps", type=int, default=None, help="training steps (the plugin's default)")
    parser.add_argument("--mode", choices=("ring", "grid"), action="append", help="only this mixture (both)")
    parser.add_argument("--objective", choices=tuple(OBJECTIVES), action="append", help="only this objective (both)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one thread each (1)")
    parser.add_argument("--out", default=None, help="keep the run folders here (a temporary folder)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    return parser.parse_args()


def main() -> None:
    """Run everything that was asked for and print it."""
    arguments = parse_arguments()
    modes = arguments.mode or ["ring", "grid"]
    with tempfile.TemporaryDirectory() as temporary:
        jobs = [
            Job(mode, objective, seed, arguments.steps, arguments.out or temporary)
            for mode in modes
            for objective in arguments.objective or OBJECTIVES
            for seed in range(arguments.seeds)
        ]
        results = list(outcomes(jobs, arguments.jobs))
    if arguments.json:
        print(
            json.dumps(
                {"ceiling": 0.9889, "num_judged": NUM_JUDGED, "runs": [asdict(outcome) for outcome in results]}, indent=2
            )
        )
        return
    for mode in modes:
        print_table(mode, [outcome for outcome in results if outcome.mode == mode])


if __name__ == "__main__":
    main()
