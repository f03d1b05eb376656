"""What a token is credited with, and the costs of draws that are scored again, against exact values of enumerable games."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from advgen.config.model import EstimatorConfig, PlayerConfig, RunConfig
from advgen.contracts import Batch, Discriminator, Generator, Head, Mode, Sample, Verdict
from advgen.engine import make_player
from advgen.errors import ConfigError, ContractError
from advgen.estimators import score_function_cost
from advgen.losses import LOSSES
from advgen.players import Chunk, Objective, Players
from advgen.setup import make_objective
from advgen.updates.crediting import credited_cost, opinion_of
from advgen.updates.policies import carried_on, clipped_cost, divergence, expected_cost, importance_weights
from advgen.updates.policy import update_policy
from advgen.world import World

V, L, GRID = 2, 3, 8
CPU = torch.device("cpu")
SEQUENCES = torch.tensor(list(itertools.product(range(V), repeat=L)))
# In eighths, so that a grid of 8 uniforms a place draws every sequence as often as it is likely.
EIGHTHS = {(): 3, (0,): 6, (1,): 1, (0, 0): 2, (0, 1): 5, (1, 0): 7, (1, 1): 4}


class Table(Generator):
    """Draws 0 with the probability that stands for what was drawn before."""

    def __init__(self, eighths: Mapping[tuple[int, ...], int] = EIGHTHS) -> None:
        super().__init__()
        self.prefixes = list(eighths)
        chances = torch.tensor([n / 8 for n in eighths.values()], dtype=torch.float64)
        self.logit = torch.nn.Parameter(torch.logit(chances))

    def rows(self, tokens: Tensor, place: int) -> Tensor:
        """Log-probabilities (B, V) of the next token."""
        index = torch.tensor([self.prefixes.index(tuple(row[:place])) for row in tokens.tolist()])
        logit = self.logit[index]
        return torch.stack([logit, -logit], 1).sigmoid().log()

    def score(self, tokens: Tensor, condition: Mapping[str, Tensor], **more: Any) -> Tensor:
        return torch.stack([self.rows(tokens, place) for place in range(L)], 1)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        return self.continue_from(torch.zeros(len(noise), L, dtype=torch.int64), noise, condition, kept=torch.zeros(len(noise)))

    def continue_from(
        self, prefix: Tensor, noise: Tensor, condition: Mapping[str, Tensor], *, kept: Any = None, **more: Any
    ) -> Any:
        values = prefix.clone()
        for place in range(L):
            drawn = (noise[:, place] >= self.rows(values, place).exp()[:, 0]).long()
            values[:, place] = torch.where(place < kept, values[:, place], drawn)
        return Sample(values, mask=torch.arange(L) >= kept.unsqueeze(1))


class Scores(Discriminator):
    """One score a sample, a function of its tokens."""

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.score, self.seen = score, list[int]()
        self.nothing = torch.nn.Parameter(torch.zeros(()))

    def embed(self, sample: Sample) -> Tensor:
        return sample.values.double()

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        self.seen.append(len(seen))
        assert not self.training or not torch.is_grad_enabled()
        return Verdict.of(self.score(seen))


def grid(turn: int, samples: Tensor, count: int) -> Tensor:
    """Uniforms for 64 further draws of each sequence: at every turn 8 x 8 over the last two places."""
    middle = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    rows = torch.tensor([[0.5, one, two] for one in middle.tolist() for two in middle.tolist()], dtype=torch.float64)
    return rows.repeat(count // len(rows), 1).expand(len(samples), count, L)


def credited(
    judge: Discriminator,
    *,
    loss: str = "wasserstein",
    mask: Tensor | None = None,
    real: Tensor = SEQUENCES,
    generator: Generator | None = None,
    **estimator: Any,
) -> tuple[Tensor, Players]:
    """The cost of each token of every sequence."""
    generator = Table() if generator is None else generator
    players = Players(
        make_player("generator", generator, PlayerConfig(), CPU),
        make_player("discriminator", judge, PlayerConfig(), CPU),
        None,
        None,  # type: ignore[arg-type]  # nothing here asks the modality
        World(0, 1, CPU),
        torch.float64,
    )
    settings = EstimatorConfig(name="score_function", **estimator)
    config = RunConfig(plugin="toy", loss=loss, estimator=settings)
    objective = Objective(config, LOSSES[loss], {}, lambda path, progress: 1.0)
    zeros = torch.zeros(len(SEQUENCES))
    chunk = Chunk(Batch(real), zeros, zeros, lambda shape: zeros, more_noise=grid)
    fake = Sample(SEQUENCES, mask=mask)
    return credited_cost(players, objective, chunk, fake, opinion_of(players, objective, chunk, fake), 0.0), players


def worth(tokens: Tensor) -> Tensor:
    """Any score: each of the 8 sequences has its own."""
    return ((tokens @ torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64) + 1.7).square() * 0.3) % 2.3 - 0.6


def likelihoods(generator: Table) -> Tensor:
    """Log-probability (8, L) of each token of every sequence."""
    return generator.score(SEQUENCES, {}).gather(2, SEQUENCES.unsqueeze(2)).squeeze(2)


def surrogate_gradient(
    generator: Table, cost: Tensor, rewards: Any, baseline: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    log_prob = likelihoods(generator)
    surrogate, _ = score_function_cost(
        log_prob=log_prob,
        entropy=torch.zeros_like(log_prob),
        cost=cost,
        mask=None,
        baseline=torch.full((L,), baseline, dtype=torch.float64),
        positions=L,
        discount=0.5,
        rewards=rewards,
        entropy_weight=0.0,
    )
    weights = log_prob.sum(1).exp().detach() if weights is None else weights
    return torch.autograd.grad((weights * surrogate).sum(), generator.logit)[0]


def test_rollouts_value_each_token_by_the_samples_that_go_on_from_it() -> None:
    generator = Table()
    found, _ = credited(Scores(worth), rewards="rollout", rollouts=GRID * GRID)
    chances = likelihoods(generator).sum(1).exp().detach()
    for row, sequence in enumerate(SEQUENCES.tolist()):
        for place in range(L):
            alike = (SEQUENCES[:, : place + 1] == SEQUENCES[row, : place + 1]).all(1)
            expected = -(chances * worth(SEQUENCES.double()))[alike].sum() / chances[alike].sum()
            assert found[row, place].item() == pytest.approx(expected.item()), (sequence, place)


@pytest.mark.parametrize("baseline", [0.0, 3.0])
def test_the_rollout_gradient_is_the_exact_one_in_expectation_whatever_the_baseline(baseline: float) -> None:
    generator = Table()
    found, _ = credited(Scores(worth), rewards="rollout", rollouts=GRID * GRID)
    chances = likelihoods(generator).sum(1).exp()
    (exact,) = torch.autograd.grad(-(chances * worth(SEQUENCES.double())).sum(), generator.logit)
    torch.testing.assert_close(surrogate_gradient(generator, found, "rollout", baseline), exact)


@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_a_score_that_a_sample_keeps_is_credited_to_all_its_tokens_and_to_no_other_sample(rows: int) -> None:
    judge = Scores(lambda tokens: 10 * tokens[:, 0] + 1)
    found, _ = credited(judge, rewards="rollout", rollouts=GRID * GRID, rollout_rows=rows)
    assert torch.equal(found, -(10 * SEQUENCES[:, :1] + 1).double().expand(-1, L))
    assert max(judge.seen) <= max(rows, len(SEQUENCES))


def test_prefixes_of_all_positions_are_judged_together_in_pieces_of_512_on_a_cpu() -> None:
    judge = Scores(worth)
    credited(judge, rewards="rollout", rollouts=GRID * GRID)
    assert judge.seen == [len(SEQUENCES), 512, len(SEQUENCES) * (L - 1) * GRID * GRID - 512]


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_no_more_noise_is_drawn_at_once_than_the_rows_that_are_written(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two questions to D: the rows of a piece, and what is left of the prefixes at its two ends."""
    judge, times, draw, asked = Scores(worth), GRID * GRID, grid, dict[int, int]()

    def counted(turn: int, samples: Tensor, count: int) -> Tensor:
        asked[len(judge.seen)] = asked.get(len(judge.seen), 0) + len(samples) * count
        return draw(turn, samples, count)

    monkeypatch.setitem(globals(), "grid", counted)
    credited(judge, rewards="rollout", rollouts=times, rollout_rows=rows)
    assert len(asked) == len(judge.seen) - 1 and max(asked.values()) <= rows + 2 * times


def test_a_sample_that_ends_early_is_credited_up_to_its_end_alone() -> None:
    mask = torch.ones(len(SEQUENCES), L, dtype=torch.bool)
    mask[3, 1:] = False
    judge = Scores(worth)
    found, _ = credited(judge, rewards="rollout", rollouts=GRID * GRID, mask=mask)
    assert found[3, 0] == -worth(SEQUENCES[3:4].double())[0] and not found[3, 1:].any()
    assert sum(judge.seen[1:]) == (len(SEQUENCES) - 1) * (L - 1) * GRID * GRID


def test_completions_are_paired_with_the_real_sample_of_their_sample() -> None:
    judge = Scores(lambda tokens: 10 * tokens[:, 0])
    found, _ = credited(judge, loss="relativistic", rewards="rollout", rollouts=GRID * GRID, real=SEQUENCES.flip(0))
    expected = torch.nn.functional.softplus(10.0 * SEQUENCES.flip(0)[:, 0] - 10.0 * SEQUENCES[:, 0]).double()
    torch.testing.assert_close(found, expected.unsqueeze(1).expand(-1, L))


def test_rewards_carry_no_graph_and_are_judged_without_dropout() -> None:
    class Dropping(Scores):
        def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
            assert not self.training
            return Verdict.of(worth(seen) + self.nothing)

    judge = Dropping(worth)
    for rewards in ("dense", "terminal", "rollout", "importance"):
        found, _ = credited(judge, loss="nonsaturating", rewards=rewards, rollouts=GRID * GRID)
        assert not found.requires_grad and judge.training


def data() -> Tensor:
    """Probabilities (8,) of a language to learn."""
    chances = torch.tensor([1.0, 3.0, 2.0, 5.0, 0.5, 4.0, 2.5, 1.5], dtype=torch.float64)
    return chances / chances.sum()


def prefix_ratios() -> Tensor:
    """log (data / uniform) of each sequence up to each place, (8, L)."""
    columns = []
    for place in range(L):
        alike = (SEQUENCES[:, None, : place + 1] == SEQUENCES[None, :, : place + 1]).all(2).double()
        columns.append((alike @ data()).log() - (alike / 8).sum(1).log())
    return torch.stack(columns, 1)


@pytest.mark.parametrize("each_token", [False, True])
def test_importance_weights_give_the_gradient_of_likelihood_on_the_data(each_token: bool) -> None:
    ratios = prefix_ratios()

    class Ratio(Scores):
        def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
            return Verdict.of(ratios + 5.0 if each_token else ratios[:, -1] + 5.0)

    generator = Table(dict.fromkeys(EIGHTHS, 4))
    found, _ = credited(Ratio(worth), loss="nonsaturating", rewards="importance", generator=generator)
    (exact,) = torch.autograd.grad(-(data() * likelihoods(generator).sum(1)).sum() / L, generator.logit)
    uniform = torch.full((8,), 1 / 8, dtype=torch.float64)
    torch.testing.assert_close(surrogate_gradient(generator, found, "importance", weights=uniform), exact)


def test_importance_weights_have_mean_zero_and_survive_logits_that_would_overflow() -> None:
    logits = torch.tensor([900.0, 899.0, -900.0])
    found = importance_weights(logits, logits)
    assert torch.isfinite(found).all() and found.mean().item() == pytest.approx(0.0, abs=1e-6)
    torch.testing.assert_close(found[0], 3 * torch.tensor([900.0, 899.0]).softmax(0)[0] - 1)
    assert not importance_weights(torch.full((4,), 7.0), torch.full((4,), 7.0)).any()


def test_a_sample_that_has_ended_keeps_its_ratio() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    scores = torch.tensor([[1.0, 2.0, float("nan")], [3.0, float("inf"), 9.0]])
    assert carried_on(scores, mask).tolist() == [[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"loss": "hinge", "estimator": {"name": "score_function", "rewards": "importance"}}, "density ratio"),
        (
            {"loss": "nonsaturating", "estimator": {"name": "ppo", "rewards": "importance"}, "train": {"accumulate": 2}},
            "train.accumulate=1",
        ),
        ({"loss": "relativistic", "estimator": {"name": "expectation"}}, "each token by itself"),
        ({"estimator": {"name": "ppo"}, "auxiliary": {"feature_matching": 1.0}}, "auxiliary.feature_matching"),
    ],
)
def test_what_an_estimator_cannot_do_is_refused_before_the_first_step(more: dict[str, Any], message: str) -> None:
    from advgen.registry import find_plugin

    with pytest.raises(ConfigError, match=message):
        make_objective(find_plugin("text"), RunConfig(plugin="text", **more))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "ppo", "entropy_floor": 1.0}, "entropy_weight"),
        ({"name": "score_function", "real_share": 0.2}, "name=ppo"),
        ({"name": "score_function", "reference_weight": 0.2}, "name=ppo"),
    ],
)
def test_settings_that_nothing_reads_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EstimatorConfig(**settings)


def test_a_generator_without_the_hooks_says_what_they_are_for() -> None:
    class Plain(Table):
        continue_from, score = Generator.continue_from, Generator.score

    with pytest.raises(ConfigError, match="rewards=rollout"):
        Plain().continue_from(SEQUENCES, SEQUENCES, {})
    with pytest.raises(ConfigError, match="ppo and expectation"):
        Plain().score(SEQUENCES, {})


# Clipped updates


def clipped(ratio: list[float], advantage: list[float], clip: float) -> tuple[Tensor, Tensor]:
    log_prob = torch.tensor([ratio]).log().requires_grad_()
    cost = clipped_cost(
        log_prob=log_prob, drawn_at=torch.zeros(1, len(ratio)), advantage=torch.tensor([advantage]), mask=None, clip=clip
    )
    return cost, torch.autograd.grad(cost.sum(), log_prob)[0]


def test_clipped_cost_by_hand() -> None:
    cost, gradient = clipped([1.0, 1.5, 1.5, 0.5, 0.5], [2.0, 1.0, -1.0, 1.0, -1.0], 0.2)
    # Moved beyond the clip towards what pays: no gradient; moved the other way: all of it.
    torch.testing.assert_close(cost, -torch.tensor([2.0 + 1.2 - 1.5 + 0.5 - 0.8]))
    torch.testing.assert_close(gradient, -torch.tensor([[2.0, 0.0, -1.5, 0.5, 0.0]]))


def test_without_clipping_every_token_keeps_its_gradient() -> None:
    _, gradient = clipped([1.0, 3.0, 0.1], [2.0, 1.0, -1.0], float("inf"))
    torch.testing.assert_close(gradient, -torch.tensor([[2.0, 3.0, -0.1]]))


def test_masked_positions_give_no_gradient_to_clipped_and_expected_costs() -> None:
    mask = torch.tensor([[True, False]])
    log_prob = torch.tensor([[-0.5, float("-inf")]]).requires_grad_()
    cost = clipped_cost(log_prob=log_prob, drawn_at=torch.full((1, 2), -0.5), advantage=torch.ones(1, 2), mask=mask, clip=0.2)
    assert torch.autograd.grad(cost.sum(), log_prob)[0].tolist() == [[-1.0, 0.0]]
    logits = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rows = logits.log_softmax(-1)
    found = expected_cost(log_probs=rows, cost=torch.randn(1, 2, 4), mask=mask, positions=1.0, entropy_weight=1.0)
    found = found + divergence(rows, torch.zeros(1, 2, 4).log_softmax(-1), mask)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient[0, 0].abs().sum() > 0 and not gradient[0, 1].any()


def test_divergence_by_hand() -> None:
    rows = torch.tensor([[[0.75, 0.25]]]).log()
    expected = 0.75 * torch.tensor(1.5).log() + 0.25 * torch.tensor(0.5).log()
    torch.testing.assert_close(divergence(rows, torch.tensor([[[0.5, 0.5]]]).log(), None), expected.unsqueeze(0))
    assert divergence(rows, rows, None).item() == 0.0


def entropy_gained(above: float) -> tuple[Tensor, Tensor]:
    """How far one update with the floor so far above the mean entropy of the draws moves the logits, and that entropy."""
    generator, noise = Table(), (torch.arange(8, dtype=torch.float64).unsqueeze(1) * torch.tensor([1, 3, 5]) % 8 + 0.5) / 8
    with torch.no_grad():
        drawn = generator.score(generator(noise, {}).values, {})
    mean = -(drawn.exp() * drawn).sum(-1).mean()
    settings = EstimatorConfig(name="ppo", epochs=1, entropy_weight=1.0, entropy_floor=float(mean) + above)
    config = RunConfig(plugin="toy", loss="wasserstein", estimator=settings)
    players = Players(
        make_player("generator", generator, PlayerConfig(optimizer="sgd", learning_rate=0.1), CPU),
        make_player("discriminator", Scores(lambda tokens: torch.zeros(len(tokens), dtype=torch.float64)), PlayerConfig(), CPU),
        None,
        None,  # type: ignore[arg-type]  # nothing here asks the modality
        World(0, 1, CPU),
        torch.float64,
    )
    before = generator.logit.detach().clone()
    chunk = Chunk(Batch(SEQUENCES), noise, noise[:, 0], torch.rand)
    update_policy(players, Objective(config, LOSSES["wasserstein"], {}, lambda path, progress: 1.0), [chunk], 0, 0.0)
    return generator.logit.detach() - before, before


def test_above_the_floor_entropy_is_not_rewarded_and_below_it_it_is() -> None:
    """All samples are worth the same, so nothing but the reward for entropy can move the generator."""
    moved, _ = entropy_gained(above=-1e-6)
    assert torch.equal(moved, torch.zeros_like(moved))
    moved, logit = entropy_gained(above=1e-6)
    reached = moved != 0
    assert reached.sum() >= 4 and torch.equal(moved[reached].sign(), -logit[reached].sign())


# Exact expectation


def test_the_expectation_is_what_the_score_function_has_on_average() -> None:
    generator = Table()
    table = torch.tensor([[0.3, -1.0], [2.0, 0.1], [-0.7, 1.1]], dtype=torch.float64).expand(len(SEQUENCES), L, V)
    own = table.gather(2, SEQUENCES.unsqueeze(2)).squeeze(2)
    log_prob = likelihoods(generator)
    surrogate, _ = score_function_cost(
        log_prob=log_prob,
        entropy=torch.zeros_like(log_prob),
        cost=own,
        mask=None,
        baseline=torch.zeros(L, dtype=torch.float64),
        positions=L,
        discount=0.0,
        rewards="dense",
        entropy_weight=0.0,
    )
    weights = log_prob.sum(1).exp().detach()
    (sampled,) = torch.autograd.grad((weights * surrogate).sum(), generator.logit)
    rows = generator.score(SEQUENCES, {})
    found = expected_cost(log_probs=rows, cost=table, mask=None, positions=L, entropy_weight=0.0)
    (exact,) = torch.autograd.grad((weights * found).sum(), generator.logit)
    torch.testing.assert_close(exact, sampled)


def test_with_a_mediator_and_entropy_the_expectation_is_a_divergence_that_vanishes_at_the_mediator() -> None:
    rows = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    log_probs = rows.log_softmax(-1)
    found = expected_cost(log_probs=log_probs, cost=-log_probs, mask=None, positions=3.0, entropy_weight=1.0)
    torch.testing.assert_close(found, torch.zeros_like(found))
    (gradient,) = torch.autograd.grad(found.sum(), rows)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


def test_alternatives_of_another_shape_are_refused() -> None:
    from advgen.contracts import check_verdict

    verdict = Verdict((Head(torch.zeros(2, 3), alternatives=torch.zeros(2, 4, 5)),))
    with pytest.raises(ContractError, match="alternatives"):
        check_verdict(verdict, 2, "toy")
    with pytest.raises(ContractError, match="expected the same"):
        expected_cost(log_probs=torch.zeros(2, 3, 5), cost=torch.zeros(2, 3, 4), mask=None, positions=1.0, entropy_weight=0.0)
