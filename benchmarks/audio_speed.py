"""Speed of the audio plugin: inference of every generator, and training of every vocoder beside a plain loop.

    python benchmarks/audio_speed.py inference
    python benchmarks/audio_speed.py training
    python benchmarks/audio_speed.py training --preset hifigan-v1 --batch 128 --segment 0 --device cuda --loop published

Inference is the whole way from mel or noise to samples, as times real time: seconds of sound per second, of one clip of a
second and of 16. Generators take turns, forward and backward by turns; printed are medians and their 95 % bootstrap interval.
A generator that is slow has fewer than --rounds calls: those of --limit seconds, three at least.

Training is compared in alternating pairs with a hand-written loop of the same networks, costs, optimizer and batch. The
published critics have 70 million parameters: a step of 16 segments of 8,192 samples takes half a minute on two cores, that of
bigvgan several. So a batch is 2 segments of 2,048 unless --batch and --segment say otherwise (0: the preset's). Generators
from noise are compared with a careful loop. Both plain loops of vocoders
make one fake a step and use it for both players, where advgen draws afresh for each:
  careful    D is frozen while G learns, nothing waits for the device, mels are made on the device
  published  as HiFi-GAN's repository: D judges real sound with gradients in G's turn too and gathers gradients that nobody
             uses, costs are read one by one, mels of real sound come from a loader on the CPU (with --workers processes)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile
import step as pairs_of_steps
import torch
from audio_loops import plain_loop

from advgen.config.load import load_config, options_of
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.world import join_world
from advgen_audio.data.segments import pack_clips
from advgen_audio.modality import AudioModality, frames_at
from advgen_audio.presets import VOCODERS
from advgen_audio.spectra.front_ends import MelSpectrogram, named_spec
from advgen_audio.vocoding.task import mel_spec

# Clips of a second at the rate that a preset is meant for; WaveGAN's published clip is 16,384 samples.
SAMPLES = {
    "default": (8000, 8000),
    "large": (16000, 16000),
    "wavegan": (16000, 16384),
    "vocos-small": (8000, 8000),
    "retrieval": (8000, 8000),
}
NAMES = {"default": "spectral", "large": "spectral-large"}
NUM_CLASSES = 10
MIN_ROUNDS = 3
# Learns by likelihood, so there is no turn of critics to compare.
WITHOUT_CRITICS = ("retrieval",)
GENERATORS = ("default", "large", "wavegan")
PRESETS = (*VOCODERS, *GENERATORS)


@dataclass(frozen=True)
class Subject:
    """A generator and how to run it on a batch."""

    name: str
    num_parameters: int
    seconds_of_sound: float
    prepare: Callable[[int], Callable[[], object]]


def vocoder_subject(preset: str, device: torch.device) -> Subject:
    """A vocoder as it is used: weight norm folded in, mels given."""
    options = preset_options(preset)
    rate_hz = SAMPLES[preset][0] if preset in SAMPLES else mel_rate(options.mel)
    spec = mel_spec(options, rate_hz, frames_at(options, rate_hz))
    num_samples = rate_hz // spec.hop * spec.hop
    facts = {"sample_rate_hz": rate_hz, "length": num_samples, "mel": spec.to_facts()}
    modality = AudioModality(options, {**facts, "examples": pack_clips(torch.zeros(1, num_samples))})
    vocoder = modality.generator().vocoder.for_inference().to(device)
    mel = MelSpectrogram(spec)(0.1 * torch.randn(1, num_samples)).to(next(vocoder.parameters()))

    def prepare(batch: int) -> Callable[[], object]:
        mels = mel.expand(batch, -1, -1).contiguous()
        return lambda: vocoder(mels)

    return Subject(preset, parameters(vocoder), num_samples / rate_hz, prepare)


def generator_subject(preset: str, device: torch.device) -> Subject:
    """A generator from noise and class; WaveGAN is published without."""
    rate_hz, num_samples = SAMPLES[preset]
    classes = [] if preset == "wavegan" else [str(index) for index in range(NUM_CLASSES)]
    facts = {"sample_rate_hz": rate_hz, "length": num_samples, "classes": classes, "class_counts": [1] * len(classes)}
    modality = AudioModality(preset_options(preset), facts)
    network = modality.generator().to(device).eval()

    def prepare(batch: int) -> Callable[[], object]:
        noise = modality.noise(batch, torch.Generator().manual_seed(0)).to(device)
        label = {"label": (torch.arange(batch) % NUM_CLASSES).to(device)}
        return lambda: network(noise, label)

    return Subject(NAMES.get(preset, preset), parameters(network), num_samples / rate_hz, prepare)


def preset_options(preset: str) -> object:
    """The audio options of a preset."""
    record = find_plugin("audio")
    return options_of(record, load_config(record, preset=preset).config)


def mel_rate(name: str) -> int:
    """The rate of a published front end."""
    return named_spec(name).rate_hz


def parameters(network: torch.nn.Module) -> int:
    """How many numbers it has learned."""
    return sum(tensor.numel() for tensor in network.parameters())


def inference(subjects: list[Subject], batch: int, arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Times real time of each subject at one batch size; subjects take turns until each has its rounds, or its time."""
    calls = {subject.name: subject.prepare(batch) for subject in subjects}
    times: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    with torch.inference_mode():
        for subject in subjects:
            tell(f"{subject.name}, {batch} x 1 s: first call")
            spent = pairs_of_steps.seconds(calls[subject.name], 1)
            # What a first call prepares is nothing beside so long a call.
            times[subject.name] += [spent] if spent > arguments.limit / 8 else []
        for index in range(arguments.rounds):
            tell(f"{batch} x 1 s: round {index + 1} of {arguments.rounds}")
            for subject in subjects if index % 2 == 0 else subjects[::-1]:
                own = times[subject.name]
                if len(own) < MIN_ROUNDS or (len(own) < arguments.rounds and sum(own) < arguments.limit):
                    own.append(pairs_of_steps.seconds(calls[subject.name], 1))
    return [inference_row(subject, batch, times[subject.name]) for subject in subjects]


def inference_row(subject: Subject, batch: int, times: list[float]) -> dict[str, object]:
    """Median and interval of seconds of sound per second."""
    speeds = [batch * subject.seconds_of_sound / spent for spent in times]
    return {
        "generator": subject.name,
        "parameters": subject.num_parameters,
        "batch": batch,
        "times_real_time": statistics.median(speeds),
        "interval_95": list(pairs_of_steps.interval(speeds)),
        "rounds": len(speeds),
    }


def tell(text: str) -> None:
    """What is going on, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def training(preset: str, arguments: argparse.Namespace, data: Path | None) -> dict[str, object]:
    """Ratio advgen / plain of segments per second for one preset."""
    if preset in WITHOUT_CRITICS:
        raise SystemExit(f"--preset {preset} learns by likelihood: there is no adversarial step to compare")
    record = find_plugin("audio")
    with tempfile.TemporaryDirectory() as folder:
        rate_hz = SAMPLES[preset][0] if preset in SAMPLES else mel_rate(preset_options(preset).mel)
        path = data or make_clips(Path(folder), rate_hz, 4 * max(64, arguments.batch))
        cli: dict[str, object] = {"train.steps": 1000, "data.path": str(path), "train.precision": arguments.precision}
        cli |= {"train.batch_size": arguments.batch} if arguments.batch else {}
        if preset in GENERATORS:
            cli["options.length"] = SAMPLES[preset][1]
        elif arguments.segment:
            cli["options.segment"] = arguments.segment
        config = load_config(record, preset=preset, overrides=arguments.overrides, cli=cli).config
        setup = build(record, config, join_world(arguments.device))
        plain = plain_loop(setup, arguments.loop == "published", arguments.workers)
        tell(f"{preset}, batch {config.train.batch_size} x {segment(setup)}: warm-up")
        times = pairs_of_steps.alternate(
            pairs_of_steps.own_step(setup),
            plain,
            arguments.pairs,
            arguments.steps,
            arguments.warm_up,
            lambda pair: tell(f"{preset}: pair {pair + 1} of {arguments.pairs}"),
        )
    row = pairs_of_steps.summary(times, config.train.batch_size, arguments.steps)
    return {
        "preset": preset,
        "loop": loop_name(setup, arguments),
        "batch": config.train.batch_size,
        **row,
        "segment": segment(setup),
    }


def loop_name(setup: Setup, arguments: argparse.Namespace) -> str:
    """Which plain loop a run is compared with; generators from noise have the careful one alone."""
    name: str = arguments.loop
    return name if setup.modality.config.task == "vocode" else "careful"


def segment(setup: Setup) -> int:
    """Samples of a training segment."""
    return int(setup.corpus.splits["train"].length)


def make_clips(folder: Path, rate_hz: int, count: int) -> Path:
    """Tones in noise, a second and a half each: speed does not ask what is heard."""
    rng, time = torch.Generator().manual_seed(0), torch.arange(3 * rate_hz // 2) / rate_hz
    for index in range(count):
        clip = 0.3 * (2 * torch.pi * (100 + index) * time).sin() + 0.05 * torch.randn(len(time), generator=rng)
        soundfile.write(folder / f"clip-{index}.wav", clip.numpy(), rate_hz)
    return folder


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["inference", "training"])
    parser.add_argument("--preset", action="append", help="again and again for more; default: every one")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=30, help="inference: calls of each generator, at most")
    parser.add_argument("--limit", type=float, default=60.0, help="inference: seconds for a generator and size, after 3 calls")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 16], help="inference: batch sizes")
    parser.add_argument("--pairs", type=int, default=30, help="training: alternating pairs")
    parser.add_argument("--steps", type=int, default=1, help="training: steps a turn")
    parser.add_argument("--warm-up", type=int, default=1, help="training: steps of each before the first pair")
    parser.add_argument("--batch", type=int, default=2, help="training: batch size; 0: the preset's")
    parser.add_argument("--segment", type=int, default=2048, help="training: samples of a vocoder's segment; 0: the preset's")
    parser.add_argument("--loop", choices=["careful", "published"], default="careful")
    parser.add_argument("--workers", type=int, default=0, help="training: loader processes of the published loop")
    parser.add_argument("--precision", default="auto", help="training: of both loops")
    parser.add_argument("--data", type=Path, help="training: a folder of sound; default: made clips")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    return parser.parse_args()


def run_training(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Every preset, one after the other, each row as soon as it is known."""
    for preset in arguments.preset or [preset for preset in PRESETS if preset not in WITHOUT_CRITICS]:
        yield training(preset, arguments, arguments.data)


def run_inference(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Every generator at every batch size."""
    device = join_world(arguments.device).device
    presets = arguments.preset or PRESETS
    subjects = [(vocoder_subject if preset in VOCODERS else generator_subject)(preset, device) for preset in presets]
    for batch in arguments.sizes:
        yield from inference(subjects, batch, arguments)


def place(device: str) -> dict[str, object]:
    """What the numbers hold for."""
    chosen = join_world(device).device
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "cpu"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def main() -> None:
    """Print a line per measurement, or JSON."""
    arguments = parse()
    torch.manual_seed(0)
    where = place(arguments.device)
    if not arguments.json:
        print(", ".join(f"{name} {value}" for name, value in where.items()))
    measured, rows = (run_inference if arguments.what == "inference" else run_training)(arguments), []
    for row in measured:
        rows.append(row)
        if not arguments.json:
            print(in_words(row), flush=True)
    if arguments.json:
        print(json.dumps({**where, "rows": rows}, indent=2))


def in_words(row: dict[str, object]) -> str:
    """A row as a line."""
    if "preset" in row:
        return pairs_of_steps.line(row, f"{row['preset']}, batch {row['batch']} x {row['segment']}, {row['loop']} loop")
    low, high = row["interval_95"]
    return (
        f"{row['generator']} ({row['parameters'] / 1e6:.2f}M), {row['batch']} x 1 s: "
        f"{row['times_real_time']:.3g} times real time [{low:.3g}, {high:.3g}], {row['rounds']} rounds"
    )


if __name__ == "__main__":
    main()
