"""A hand-written training loop of the image presets, for ``image_speed.py`` to compare with."""

from __future__ import annotations

import copy
from collections.abc import Callable

import step as pairs_of_steps
import torch
import torch.nn.functional as F
from torch import Tensor

from advgen import Batch
from advgen.setup import Setup

PairCost = Callable[[Tensor, Tensor], Tensor]
D_COSTS: dict[str, PairCost] = {
    "relativistic": lambda real, fake: F.softplus(fake - real),
    "nonsaturating": lambda real, fake: F.softplus(-real) + F.softplus(fake),
    "hinge": lambda real, fake: F.relu(1 - real) + F.relu(1 + fake),
}
G_COSTS: dict[str, PairCost] = {
    "relativistic": lambda real, fake: F.softplus(real - fake),
    "nonsaturating": lambda real, fake: F.softplus(-fake),
    "hinge": lambda real, fake: -fake,
}
PAIRED = ("relativistic",)
PATH_DECAY = 0.01


class PlainLoop:
    """What a careful person writes by hand for one preset: D judges real and generated images in two passes.

    Lazy penalties take an update of their own where the preset says so, as StyleGAN2's code does; labels, augmentation, norms
    and style mixing are the networks' own. No schedules, no checks, no keyed randomness, no logs, and nothing waits for the
    device.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup, self.config = setup, setup.config
        self.generator = copy.deepcopy(setup.players.generator.network)
        self.critic = copy.deepcopy(setup.players.discriminator.network)
        self.average = copy.deepcopy(setup.players.average)
        self.optimizers = [
            torch.optim.Adam(net.parameters(), lr=own.learning_rate, betas=own.betas, fused=True)
            for net, own in ((self.generator, self.config.generator), (self.critic, self.config.discriminator))
        ]
        self.source, self.rng = setup.corpus.splits["train"], torch.Generator().manual_seed(0)
        self.device, self.size = setup.world.device, self.config.train.batch_size
        self.order, self.at, self.turn, self.mean_length = torch.arange(0), 0, 0, torch.zeros((), device=self.device)

    def __call__(self) -> None:
        for _ in range(self.config.discriminator.steps):
            self.critic_step()
        self.generator_step()
        self.turn += 1

    def batch(self) -> Batch:
        """The next real images, in an order that is drawn anew each time round."""
        if self.at + self.size > len(self.order):
            self.order, self.at = torch.randperm(len(self.source)), 0
        rows = self.order[self.at : self.at + self.size]
        self.at += self.size
        return self.setup.modality.prepare(self.source.batch(rows, self.rng).to(self.device))

    def draw(self, real: Batch) -> Tensor:
        """As many generated images, of the same classes."""
        noise = self.setup.modality.noise(self.size, self.rng).to(self.device)
        return self.generator(noise, real.condition).values

    def judged(self, images: Tensor, real: Batch) -> Tensor:
        """Scores (B,)."""
        return pairs_of_steps.score(self.critic(images, real.condition))

    def due(self, name: str, own_step: bool) -> float:
        """gamma times the interval, where the penalty's turn has come; else 0."""
        penalty = self.config.penalties.get(name)
        if penalty is None or penalty.own_step != own_step or self.turn % penalty.interval:
            return 0.0
        return penalty.amount * penalty.interval

    def critic_step(self) -> None:
        """D on real and generated images, with what penalties are due."""
        real = self.batch()
        with torch.no_grad(), self.setup.players.precision():
            fake = self.draw(real)
        weights = {name: self.due(name, False) for name in ("r1", "r2")}
        one, other = (images.detach().requires_grad_(weights[name] > 0) for name, images in (("r1", real.values), ("r2", fake)))
        with self.setup.players.precision():
            on_real, on_fake = self.judged(one, real), self.judged(other, real)
        cost = D_COSTS[self.config.loss](on_real, on_fake).mean()
        mismatch = self.config.discriminator.mismatch
        if mismatch:
            others = Batch(real.values, None, {name: each.roll(-1, 0) for name, each in real.condition.items()})
            cost = cost + mismatch * F.softplus(self.judged(real.values, others) - on_real).mean()
        for name, images, scores in (("r1", one, on_real), ("r2", other, on_fake)):
            if weights[name]:
                cost = cost + self.slope(images, scores, weights[name])
        self.learn(1, cost)
        if self.due("r1", True):
            images = real.values.detach().requires_grad_()
            self.learn(1, self.slope(images, self.judged(images, real), self.due("r1", True)))

    def slope(self, images: Tensor, scores: Tensor, weight: float) -> Tensor:
        """gamma / 2 of the squared gradient."""
        gradient = torch.autograd.grad(scores.sum(), images, create_graph=True)[0]
        return weight / 2 * gradient.square().flatten(1).sum(1).mean()

    def generator_step(self) -> None:
        """G on a fresh draw, its path lengths where they are due, and its average."""
        real = self.batch()
        self.critic.requires_grad_(False)
        with self.setup.players.precision():
            on_fake = on_real = self.judged(self.draw(real), real)
            if self.config.loss in PAIRED:
                with torch.no_grad():
                    on_real = self.judged(real.values, real)
        self.learn(0, G_COSTS[self.config.loss](on_real, on_fake).mean())
        if self.due("path_length", True):
            self.learn(0, self.path_cost(real, self.due("path_length", True)))
        self.critic.requires_grad_(True)
        if self.average is not None:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.average.parameters()), list(self.generator.parameters()), 0.01)

    def path_cost(self, real: Batch, weight: float) -> Tensor:
        """How far path lengths of half the batch are from their running mean."""
        half = self.size // 2
        noise = self.setup.modality.noise(half, self.rng).to(self.device)
        lengths = self.generator.path_lengths(noise, {name: each[:half] for name, each in real.condition.items()})
        self.mean_length = self.mean_length.lerp(lengths.detach().mean(), PATH_DECAY)
        return weight * (lengths - self.mean_length).square().mean()

    def learn(self, which: int, cost: Tensor) -> None:
        """One update of G (0) or D (1)."""
        self.optimizers[which].zero_grad(set_to_none=True)
        cost.backward()
        network, own = ((self.generator, self.config.generator), (self.critic, self.config.discriminator))[which]
        pairs_of_steps.clip(network, own)
        self.optimizers[which].step()
