"""Whether D knows training samples from held-out ones: looked at between log steps, told once. Legend: B samples."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from advgen.contracts import Batch, Source
from advgen.players import Players
from advgen.randomness import keyed_generator, seed_networks
from advgen.reduction import reduce_verdict
from advgen.runs import RunFolder
from advgen.setup import Setup
from advgen.updates.judging import judge_sample

SAMPLES = 64
EVERY, SHORTEST = 100, 10
"""Steps between two looks, in a long plan and in the shortest: each costs three passes of D and one of G, without gradients."""
WINDOW = 8
LIMIT = 0.5
STATE = "overfitting"


@dataclass(frozen=True)
class Look:
    """D's scores, (B,) each, on the CPU: of training samples, held-out ones and generated ones."""

    train: Tensor
    held_out: Tensor
    generated: Tensor


def overfitting(looks: list[Look]) -> float | None:
    """How far held-out scores are from training scores on the way to generated ones; None where D knows neither apart.

    Returns:
        0 where D treats both alike; 1 where it takes held-out samples for generated ones.

    Source: r_v of Karras et al. 2020 (ADA), https://arxiv.org/abs/2006.06676
    """
    train, held_out, generated = (float(torch.cat([getattr(look, name) for look in looks]).mean()) for name in vars(looks[0]))
    return (train - held_out) / (train - generated) if train > generated else None


def certainty(look: Look) -> float:
    """Mean sign of D's scores of training samples about the middle to generated ones, in [-1, 1].

    Source: r_t of Karras et al. 2020 (ADA), with the middle in the place of 0, as relativistic losses leave the level free
    """
    middle = (look.train.mean() + look.generated.mean()) / 2
    return float((look.train - middle).sign().mean())


def interval(steps: int | None) -> int:
    """Steps between two looks at the least in a plan of so many (None: not known), so that it can be warned half way."""
    return EVERY if steps is None else min(EVERY, max(SHORTEST, steps // (2 * WINDOW)))


class OverfittingWatch:
    """Looks at D now and then; for modalities that have an advice to give. What it has seen is in the checkpoint."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        splits, group = setup.corpus.splits, setup.players.judges.batch_group
        self.train, self.held_out = splits["train"], splits["validation"]
        self.counts = [min(SAMPLES, len(source)) // group * group for source in (self.train, self.held_out)]
        self.advice = setup.modality.against_overfitting() if min(self.counts) > 1 else ""
        self.every = interval(setup.config.train.steps)
        self.next_step, self.looks = self._remembered()

    def blindness(self) -> str:
        """Why a D that should be watched cannot be; empty where it is, and where nobody has an advice."""
        if self.advice or not self.setup.modality.against_overfitting():
            return ""
        return (
            f"the discriminator is not watched for overfitting: {len(self.held_out)} validation samples are fewer than the "
            f"{max(self.setup.players.judges.batch_group, 2)} that a look takes; start anew with more data, or with a larger "
            "data.validation_share"
        )

    def figures(self, step: int) -> dict[str, float]:
        """What a look at this step adds to its log row; nothing between two looks."""
        if not self.advice or step < self.next_step:
            return {}
        self.looks.append(look := self._look(step))
        self._remember(step + self.every)
        found = {f"discriminator/{name}_score": float(scores.mean()) for name, scores in vars(look).items()}
        ratio = overfitting(list(self.looks))
        found["discriminator/certainty"] = certainty(look)
        return found if ratio is None else found | {"discriminator/overfitting": ratio}

    def _remember(self, next_step: int) -> None:
        """Put what was seen where checkpoints are made of."""
        self.next_step, state = next_step, self.setup.players.state
        state[f"{STATE}.next_step"] = torch.tensor(next_step)
        for name in vars(self.looks[0]):
            state[f"{STATE}.{name}"] = torch.stack([getattr(look, name) for look in self.looks])

    def _remembered(self) -> tuple[int, deque[Look]]:
        """The step of the next look, and the last ones."""
        state, looks = self.setup.players.state, deque[Look](maxlen=WINDOW)
        if f"{STATE}.next_step" not in state:
            return 0, looks
        seen = [state[f"{STATE}.{each.name}"].cpu() for each in fields(Look)]
        looks.extend(Look(*scores) for scores in zip(*seen, strict=True))
        return int(state[f"{STATE}.next_step"]), looks

    def warning(self, step: int, folder: RunFolder) -> str | None:
        """One line, once in a run, where D overfits beyond doubt; kept in its record."""
        ratio = overfitting(list(self.looks)) if len(self.looks) == WINDOW else None
        if ratio is None or ratio < LIMIT or self._gap() < 2 * self._error():
            return None
        about = folder.read_json("run.json")
        if "overfitting" in about:
            return None
        folder.write_json("run.json", about | {"overfitting": {"step": step, "ratio": ratio}})
        way = f"{ratio:.0%} of the way from" if ratio < 1 else "all the way and beyond from"
        return (
            f"warning: step {step}: the discriminator overfits: it scores held-out samples {way} its {len(self.train)} "
            f"training samples to generated ones, so samples get no better or become copies; {self.advice}"
        )

    def _gap(self) -> float:
        return float(sum(look.train.mean() - look.held_out.mean() for look in self.looks)) / len(self.looks)

    def _error(self) -> float:
        """Standard error of the gap in one look: looks at a small split see the same samples, so more of them add little."""
        newest = self.looks[-1]
        return float((newest.train.var() / len(newest.train) + newest.held_out.var() / len(newest.held_out)).sqrt())

    @torch.no_grad()
    def _look(self, step: int) -> Look:
        """Both networks as they are at evaluation: no augmentation, no statistics that move, no random state used up."""
        players, seed = self.setup.players, self.setup.config.train.seed
        networks = (players.generator.network, players.discriminator.network)
        modes = [network.training for network in networks]
        device = players.world.device
        with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device]):
            seed_networks(seed, "overfitting", step)
            try:
                for network in networks:
                    network.eval()
                real = self._drawn(self.train, self.counts[0], step)
                held_out = self._drawn(self.held_out, self.counts[1], step)
                return Look(*(_scores(players, each) for each in (real, held_out, self._generated(real, step))))
            finally:
                for network, mode in zip(networks, modes, strict=True):
                    network.train(mode)

    def _drawn(self, source: Source, count: int, step: int) -> Batch:
        """Random samples, prepared, on the device."""
        random = keyed_generator(self.setup.config.train.seed, "overfitting", "data", step)
        indices = torch.randperm(len(source), generator=random)[:count]
        players = self.setup.players
        batch: Batch = players.modality.prepare(source.batch(indices, random).to(players.world.device))
        if batch.values.is_floating_point():
            batch = Batch(batch.values.to(players.dtype), batch.mask, batch.condition)
        return batch

    def _generated(self, real: Batch, step: int) -> Batch:
        """Generated samples under the conditions of the real ones; not truncated, as in training, whatever the options say."""
        players = self.setup.players
        noise = players.modality.noise(len(real), keyed_generator(self.setup.config.train.seed, "overfitting", "noise", step))
        noise = noise.to(players.world.device, players.dtype if noise.is_floating_point() else noise.dtype)
        with players.precision():
            latent = players.generates.latent(noise, real.condition)
            sample = players.generates.render(latent, real.condition).seen_in(players.dtype)
        return Batch(sample.values, sample.mask, real.condition)


def _scores(players: Players, batch: Batch) -> Tensor:
    with players.precision():
        verdict = judge_sample(players.judges, batch.sample, batch.condition)
    return reduce_verdict(verdict).double().cpu()
