"""The loss of a mediator on a language of two sentences of unequal length, "a" and "b b b b b b b", each as likely."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

import advgen
from advgen import Batch, Discriminator, Generator, Head, Mode, Sample, Verdict
from advgen.config.model import EstimatorConfig, PlayerConfig, RunConfig
from advgen.engine import make_player
from advgen.errors import ConfigError
from advgen.players import Chunk, Objective, Players
from advgen.reduction import discriminator_cost, generator_cost
from advgen.updates.crediting import credited_cost, opinion_of
from advgen.updates.discriminator import update_discriminator
from advgen.updates.generator import update_generator
from advgen.updates.shared import mean_positions
from advgen.world import World
from advgen_text.objectives import COOPERATIVE

L, B = 7, 64
CPU = torch.device("cpu")
SENTENCES = torch.tensor([[0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
LENGTHS = torch.tensor([1, L])
HALF = torch.arange(B) % 2
"""One sentence of the data after the other, so that each is half of them."""


class Coin(Generator):
    """Draws "a" where the noise is below its probability, else all of "b"; what follows the first token is certain."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.logit = torch.nn.Parameter(torch.tensor(math.log(chance / (1 - chance)), dtype=torch.float64))

    @property
    def chance(self) -> float:
        return float(self.logit.detach().sigmoid())

    def score(
        self, tokens: Tensor, condition: Mapping[str, Tensor], *, temperature: float = 1.0, drawn: bool = False
    ) -> Tensor:
        rows = torch.tensor([-50.0, 0.0], dtype=torch.float64).expand(*tokens.shape, 2).clone()
        rows[:, 0] = torch.stack([self.logit, torch.zeros_like(self.logit)])
        return rows

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        drawn = sentences((noise >= self.logit.sigmoid()).long())
        return Sample(drawn.values, mask=drawn.mask)


class CoinMediator(Discriminator):
    """The same as a mediator."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.model = Coin(chance)

    def embed(self, sample: Sample) -> Tensor:
        return sample.values.double()

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        every = self.model.score(seen.long(), condition).log_softmax(-1)
        own = every.gather(2, seen.long().unsqueeze(2)).squeeze(2)
        return Verdict((Head(own, mask, alternatives=every),))


def sentences(which: Tensor) -> Batch:
    return Batch(SENTENCES[which], torch.arange(L) < LENGTHS[which].unsqueeze(1))


def game(generator: float, mediator: float, parts: int = 1) -> tuple[Coin, CoinMediator, Players, Objective, list[Chunk]]:
    """Both players with the probability that they start at, and a batch that holds each sentence as often as it is likely;
    cut in parts, the first of them have the short sentences."""
    coin, judge = Coin(generator), CoinMediator(mediator)
    settings = PlayerConfig(optimizer="sgd", learning_rate=0.5)
    players = Players(
        make_player("generator", coin, settings, CPU),
        make_player("discriminator", judge, settings, CPU),
        None,
        None,  # type: ignore[arg-type]  # nothing here asks the modality
        World(0, 1, CPU),
        torch.float64,
    )
    estimator = EstimatorConfig(name="expectation", entropy_weight=1.0)
    config = RunConfig(plugin="toy", loss="cooperative", estimator=estimator)
    objective = Objective(config, COOPERATIVE, {}, lambda path, progress: 1.0)
    noise, order = (torch.arange(B) + 0.5) / B, HALF.sort().values if parts > 1 else HALF
    cuts = zip(order.split(B // parts), noise.split(B // parts), strict=True)
    return coin, judge, players, objective, [Chunk(sentences(one), two, two, torch.rand) for one, two in cuts]


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("chance", [0.5, 0.875, 0.125])
def test_the_best_mediator_is_the_mixture_of_data_and_samples_whatever_their_lengths(chance: float, parts: int) -> None:
    """Also where samples are longer than the data or shorter, and where micro-batches differ in both."""
    mixture = (0.5 + chance) / 2
    _, judge, players, objective, chunks = game(chance, mixture, parts)
    update_discriminator(players, objective, chunks, 0, 0.0)
    assert judge.model.chance == pytest.approx(mixture, abs=1e-12)


def test_both_players_end_at_the_language() -> None:
    coin, judge, players, objective, chunks = game(0.9, 0.9)
    for update in range(400):
        update_discriminator(players, objective, chunks, update, 0.0)
        update_generator(players, objective, chunks, update, 0.0)
    assert coin.chance == pytest.approx(0.5, abs=0.02)
    assert judge.model.chance == pytest.approx(0.5, abs=0.02)


def test_the_generators_cost_is_the_divergence_from_the_mediator_whatever_its_lengths() -> None:
    """Three quarters "a" against a half: (3 log 1.5 + log 0.5) / 4 nats a sentence, by 4, the mean length of the data."""
    _, _, players, objective, chunks = game(0.75, 0.5)
    logs = update_generator(players, objective, chunks, 0, 0.0)
    assert float(logs["generator/loss"]) == pytest.approx((0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 4, abs=1e-12)


def test_a_sample_credited_as_a_whole_is_credited_with_the_sum_of_its_positions() -> None:
    _, _, players, objective, (chunk,) = game(0.5, 0.5)
    estimator = EstimatorConfig(name="score_function", rewards="terminal")
    objective.config = objective.config.model_copy(update={"estimator": estimator})
    fake = sentences(torch.tensor([0, 1])).sample
    opinion = opinion_of(players, objective, chunk, fake, mean_positions(players.world, [chunk]))
    cost = credited_cost(players, objective, chunk, fake, opinion, 0.0)
    torch.testing.assert_close(cost, torch.full((2,), math.log(2) / 4, dtype=torch.float64))


def test_costs_by_hand_are_summed_over_positions_and_divided_by_the_real_mean() -> None:
    scores = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -4.0, -5.0]])
    real = Verdict.of(scores, mask=torch.tensor([[True, False, False], [True, True, True]]))
    fake = Verdict.of(scores, mask=torch.tensor([[True, True, False], [True, False, False]]))
    torch.testing.assert_close(discriminator_cost(COOPERATIVE, real, fake), torch.tensor([1.0 + 3.0, 12.0 + 3.0]) / 2)
    torch.testing.assert_close(generator_cost(COOPERATIVE, real, fake), torch.tensor([3.0, 3.0]) / 2)
    given = discriminator_cost(COOPERATIVE, real, fake, positions=torch.tensor(5.0))
    torch.testing.assert_close(given, torch.tensor([4.0, 15.0]) / 5)
    one = Verdict.of(torch.tensor([-1.0, -2.0]))
    torch.testing.assert_close(discriminator_cost(COOPERATIVE, one, one, positions=torch.tensor(5.0)), torch.tensor([2.0, 4.0]))


def test_a_mediator_under_penalties_is_refused_before_a_run_begins(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"penalties.r1 needs a gradient at what Mediator sees.*--set penalties=none"):
        advgen.train("text", overrides=["options.critic=mediator"], steps=2, out=tmp_path / "run", progress=False, device="cpu")
    assert not (tmp_path / "run").exists()
