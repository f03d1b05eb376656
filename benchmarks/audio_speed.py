"""Speed of the audio plugin: inference of every generator, and training of every vocoder beside a plain loop.

    python benchmarks/audio_speed.py inference --rounds 30
    python benchmarks/audio_speed.py training --preset hifigan-v1 --batch 128 --device cuda --loop published --pairs 30

Inference is the whole way from mel or noise to samples, as times real time: seconds of sound per second, of one clip of a
second and of 16. Generators take turns, forward and backward by turns; printed are medians and their 95 % bootstrap interval.

Training is compared in alternating pairs with a hand-written loop of the same networks, costs, optimizer and batch. Both plain
loops make one fake a step and use it for both players, where advgen draws afresh for each:
  careful    D is frozen while G learns, nothing waits for the device, mels are made on the device
  published  as HiFi-GAN's repository: D judges real sound with gradients in G's turn too and gathers gradients that nobody
             uses, costs are read one by one, mels of real sound come from a loader on the CPU (with --workers processes)
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile
import step as pairs_of_steps
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from advgen import Batch, Sample, Verdict
from advgen.config.load import load_config, options_of
from advgen.registry import find_plugin
from advgen.setup import Setup, build
from advgen.world import join_world
from advgen_audio.data.segments import pack_clips
from advgen_audio.modality import AudioModality, frames_at
from advgen_audio.presets import VOCODERS
from advgen_audio.reconstruction import loss_spec
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram, named_spec
from advgen_audio.vocoding.task import mel_spec

# Clips of a second at the rate that a preset is meant for; WaveGAN's published clip is 16,384 samples.
SAMPLES = {"default": (8000, 8000), "large": (16000, 16000), "wavegan": (16000, 16384), "vocos-small": (8000, 8000)}
NAMES = {"default": "spectral", "large": "spectral-large"}
NUM_CLASSES = 10
D_COSTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "least_squares": lambda real, fake: 0.5 * ((real - 1).square() + fake.square()),
    "hinge": lambda real, fake: F.relu(1 - real) + F.relu(1 + fake),
}
G_COSTS: dict[str, Callable[[Tensor], Tensor]] = {
    "least_squares": lambda fake: 0.5 * (fake - 1).square(),
    "hinge": lambda fake: -fake,
}


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
    mel = MelSpectrogram(spec)(0.1 * torch.randn(1, num_samples)).to(device)

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


def inference(subjects: list[Subject], batch: int, rounds: int) -> list[dict[str, object]]:
    """Times real time of each subject at one batch size; subjects take turns."""
    calls = {subject.name: subject.prepare(batch) for subject in subjects}
    times: dict[str, list[float]] = {subject.name: [] for subject in subjects}
    with torch.inference_mode():
        for call in calls.values():
            pairs_of_steps.seconds(call, 2)
        for index in range(rounds):
            for subject in subjects if index % 2 == 0 else subjects[::-1]:
                spent = pairs_of_steps.seconds(calls[subject.name], 1)
                times[subject.name].append(batch * subject.seconds_of_sound / spent)
    return [
        {
            "generator": subject.name,
            "parameters": subject.num_parameters,
            "batch": batch,
            "times_real_time": statistics.median(times[subject.name]),
            "interval_95": list(pairs_of_steps.interval(times[subject.name])),
            "rounds": rounds,
        }
        for subject in subjects
    ]


class Segments(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Segment (1, T), its mel (M, F) and the loss's mel, made one by one on the CPU as published loaders make them."""

    def __init__(self, setup: Setup, spec: MelSpec) -> None:
        self.source = setup.corpus.splits["train"]
        self.mels = [MelSpectrogram(spec), MelSpectrogram(loss_spec(spec))]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        values = self.source.batch(torch.tensor([index]), torch.default_generator).values[0]
        one, other = (mel(values)[0] for mel in self.mels)
        return values, one, other


class PlainLoop:
    """What a person writes by hand for one vocoder preset; see the top of the file for both ways."""

    def __init__(self, setup: Setup, published: bool, workers: int) -> None:
        self.setup, self.published, self.workers = setup, published, workers
        self.spec = MelSpec.from_facts(setup.corpus.facts["mel"])
        self.generator = copy.deepcopy(setup.players.generator.network)
        self.critic = copy.deepcopy(setup.players.discriminator.network)
        self.average = copy.deepcopy(self.generator) if setup.config.average.enabled else None
        config = setup.config
        self.optimizers = [
            torch.optim.AdamW(
                net.parameters(), own.learning_rate, own.betas, weight_decay=own.weight_decay, fused=None if published else True
            )
            for net, own in ((self.generator, config.generator), (self.critic, config.discriminator))
        ]
        self.loss_mel = MelSpectrogram(loss_spec(self.spec)).to(setup.world.device)
        self.batches = self._from_loader() if published else self._on_device()

    def step(self) -> None:
        """One update of each player, on one batch and one fake of it."""
        real, real_mel = next(self.batches)
        with self.setup.players.precision():
            fake = self.generator(torch.zeros(len(real), 0, device=real.values.device), real.condition).values
        self._update_critic(real.values, fake.detach())
        self._update_generator(real.values, fake, real_mel)
        if self.average is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 0.01)

    def _update_critic(self, real: Tensor, fake: Tensor) -> None:
        cost_of = D_COSTS[self.setup.config.loss]
        with self.setup.players.precision():
            pairs = zip(self._judge(real).heads, self._judge(fake).heads, strict=True)
            costs = [one.weight * cost_of(one.scores, other.scores).mean() for one, other in pairs]
        self._log(costs)
        self._learn(1, torch.stack([cost.float() for cost in costs]).sum())

    def _update_generator(self, real: Tensor, fake: Tensor, real_mel: Tensor) -> None:
        weights, cost_of = self.setup.config.auxiliary, G_COSTS[self.setup.config.loss]
        self.critic.requires_grad_(self.published)
        with self.setup.players.precision():
            with torch.set_grad_enabled(self.published):
                on_real = self._judge(real)
            on_fake = self._judge(fake)
            mel = weights["mel"] * (real_mel - self.loss_mel(fake[:, 0])).abs().mean()
            matching = weights["feature_matching"] * layers_apart(on_real, on_fake)
            costs = [head.weight * cost_of(head.scores).mean() for head in on_fake.heads] + [mel, matching]
        self._log(costs)
        self._learn(0, torch.stack([cost.float() for cost in costs]).sum())
        self.critic.requires_grad_(True)

    def _judge(self, waveform: Tensor) -> Verdict:
        return self.critic(self.critic.embed(Sample(waveform)), {})

    def _log(self, costs: list[Tensor]) -> None:
        if self.published:
            [cost.item() for cost in costs]

    def _learn(self, which: int, cost: Tensor) -> None:
        network, config = (self.generator, self.critic)[which], self.setup.config
        self.optimizers[which].zero_grad(set_to_none=True)
        cost.backward()
        pairs_of_steps.clip(network, (config.generator, config.discriminator)[which])
        self.optimizers[which].step()

    def _on_device(self) -> Iterator[tuple[Batch, Tensor]]:
        source, size = self.setup.corpus.splits["train"], self.setup.config.train.batch_size
        rng, device = torch.Generator().manual_seed(0), self.setup.world.device
        while True:
            for indices in torch.randperm(len(source), generator=rng).split(size):
                if len(indices) == size:
                    real = self.setup.modality.prepare(source.batch(indices, rng).to(device))
                    yield real, self.loss_mel(real.values[:, 0])

    def _from_loader(self) -> Iterator[tuple[Batch, Tensor]]:
        device, size = self.setup.world.device, self.setup.config.train.batch_size
        loader = DataLoader(
            Segments(self.setup, self.spec),
            size,
            shuffle=True,
            drop_last=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=device.type == "cuda",
        )
        while True:
            for parts in loader:
                values, mel, loss_mel = (part.to(device, non_blocking=True) for part in parts)
                yield Batch(values, condition={"mel": mel}), loss_mel


def layers_apart(real: Verdict, fake: Verdict) -> Tensor:
    """Feature matching with nothing detached, as it is published."""
    heads = zip(real.heads, fake.heads, strict=True)
    pairs = [
        (other.weight, a, b)
        for one, other in heads
        for a, b in zip((*one.features, one.scores), (*other.features, other.scores), strict=True)
    ]
    return torch.stack([weight * (a - b).abs().mean() for weight, a, b in pairs]).sum()


def training(preset: str, arguments: argparse.Namespace, data: Path | None) -> dict[str, object]:
    """Ratio advgen / plain of segments per second for one preset."""
    record = find_plugin("audio")
    with tempfile.TemporaryDirectory() as folder:
        rate_hz = SAMPLES[preset][0] if preset in SAMPLES else mel_rate(preset_options(preset).mel)
        path = data or make_clips(Path(folder), rate_hz, 4 * max(64, arguments.batch or 0))
        cli = {"train.steps": 1000, "data.path": str(path), "train.precision": arguments.precision}
        cli |= {"train.batch_size": arguments.batch} if arguments.batch else {}
        config = load_config(record, preset=preset, overrides=arguments.overrides, cli=cli).config
        setup = build(record, config, join_world(arguments.device))
        plain = PlainLoop(setup, arguments.loop == "published", arguments.workers)
        times = pairs_of_steps.alternate(pairs_of_steps.own_step(setup), plain.step, arguments.pairs, arguments.steps)
    row = pairs_of_steps.summary(times, config.train.batch_size, arguments.steps)
    return {"preset": preset, "loop": arguments.loop, "batch": config.train.batch_size, "segment": segment(setup), **row}


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
    parser.add_argument("--rounds", type=int, default=30, help="inference: calls of each generator")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 16], help="inference: batch sizes")
    parser.add_argument("--pairs", type=int, default=30, help="training: alternating pairs")
    parser.add_argument("--steps", type=int, default=2, help="training: steps a turn")
    parser.add_argument("--batch", type=int, help="training: batch size; default: the preset's")
    parser.add_argument("--loop", choices=["careful", "published"], default="careful")
    parser.add_argument("--workers", type=int, default=0, help="training: loader processes of the published loop")
    parser.add_argument("--precision", default="auto", help="training: of both loops")
    parser.add_argument("--data", type=Path, help="training: a folder of sound; default: made clips")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    return parser.parse_args()


def run_inference(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """Every generator at every batch size."""
    device = join_world(arguments.device).device
    presets = arguments.preset or [*VOCODERS, "default", "large", "wavegan"]
    subjects = [(vocoder_subject if preset in VOCODERS else generator_subject)(preset, device) for preset in presets]
    return [row for batch in arguments.sizes for row in inference(subjects, batch, arguments.rounds)]


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
    if arguments.what == "inference":
        rows = run_inference(arguments)
    else:
        rows = [training(preset, arguments, arguments.data) for preset in arguments.preset or VOCODERS]
    if arguments.json:
        print(json.dumps({**where, "rows": rows}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    for row in rows:
        if arguments.what == "training":
            print(pairs_of_steps.line(row, f"{row['preset']}, batch {row['batch']} x {row['segment']}, {row['loop']} loop"))
            continue
        low, high = row["interval_95"]
        print(
            f"{row['generator']} ({row['parameters'] / 1e6:.2f}M), {row['batch']} x 1 s: "
            f"{row['times_real_time']:.3g} times real time [{low:.3g}, {high:.3g}], {row['rounds']} rounds"
        )


if __name__ == "__main__":
    main()
