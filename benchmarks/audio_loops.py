"""Hand-written training loops of the audio presets, for ``audio_speed.py`` to compare with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import step as pairs_of_steps
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from advgen import Batch, Sample, Verdict
from advgen.setup import Setup
from advgen_audio.reconstruction import loss_spec
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram

D_COSTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "least_squares": lambda real, fake: 0.5 * ((real - 1).square() + fake.square()),
    "hinge": lambda real, fake: F.relu(1 - real) + F.relu(1 + fake),
}
G_COSTS: dict[str, Callable[[Tensor], Tensor]] = {
    "least_squares": lambda fake: 0.5 * (fake - 1).square(),
    "hinge": lambda fake: -fake,
}


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


def wavegan_step(setup: Setup) -> Callable[[], None]:
    """Five critic updates with a gradient penalty, each on sound and noise of its own, then one of the generator."""
    generator, critic = (copy.deepcopy(player.network) for player in (setup.players.generator, setup.players.discriminator))
    optimizers = [
        torch.optim.Adam(net.parameters(), own.learning_rate, own.betas, fused=True)
        for net, own in ((generator, setup.config.generator), (critic, setup.config.discriminator))
    ]
    source, rng, size = setup.corpus.splits["train"], torch.Generator().manual_seed(0), setup.config.train.batch_size
    weight, device = setup.config.penalties["wgan_gp"].amount, setup.world.device

    def score(values: Tensor) -> Tensor:
        scores: Tensor = critic(values, {}).heads[0].scores
        return scores

    def fake() -> Tensor:
        values: Tensor = generator(setup.modality.noise(size, rng).to(device), {}).values
        return values

    def learn(which: int, cost: Tensor) -> None:
        optimizers[which].zero_grad(set_to_none=True)
        cost.backward()
        optimizers[which].step()

    def step() -> None:
        for _ in range(setup.config.discriminator.steps):
            real = source.batch(torch.randint(len(source), (size,), generator=rng), rng).values.to(device)
            with torch.no_grad():
                made = fake()
            between = torch.lerp(real, made, torch.rand(size, 1, 1, device=device)).requires_grad_()
            slope = torch.autograd.grad(score(between).sum(), between, create_graph=True)[0].flatten(1).norm(dim=1)
            learn(1, score(made).mean() - score(real).mean() + weight * (slope - 1).square().mean())
        critic.requires_grad_(False)
        learn(0, -score(fake()).mean())
        critic.requires_grad_(True)

    return step


def plain_loop(setup: Setup, published: bool, workers: int) -> Callable[[], None]:
    """One step of the loop that fits a run: of vocoders, of WaveGAN, or of the default's pairs and penalties."""
    options = setup.modality.config
    if options.task == "vocode":
        return PlainLoop(setup, published, workers).step
    return wavegan_step(setup) if options.networks == "wavegan" else pairs_of_steps.PlainLoop(setup)
