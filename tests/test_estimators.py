"""Estimators against exact gradients on problems small enough to enumerate."""

from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
from torch import Tensor

from advgen.errors import ConfigError, ContractError
from advgen.estimators import ESTIMATORS, get_estimator, gumbel, returns, score_function_cost, straight_through, update_baseline

Rewards = Literal["dense", "terminal", "rollout"]
V, L = 3, 2
SEQUENCES = torch.tensor(list(itertools.product(range(V), repeat=L)))


def policy_logits() -> Tensor:
    """First token's logits in row 0, the second's given the first in rows 1 to V."""
    return torch.randn(V + 1, V, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


def log_probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(log-probability, entropy) of each token of each sequence, both (V^L, L)."""
    rows = torch.stack([torch.zeros(len(SEQUENCES), dtype=torch.int64), SEQUENCES[:, 0] + 1], 1)
    each = logits.log_softmax(-1)[rows]
    return each.gather(-1, SEQUENCES.unsqueeze(-1)).squeeze(-1), -(each.exp() * each).sum(-1)


def causal_cost() -> Tensor:
    """A cost per position that depends on the tokens so far, (V^L, L)."""
    first = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)[SEQUENCES[:, 0]]
    return torch.stack([first, first * (SEQUENCES[:, 1] + 1) - 0.5], 1)


def estimate(logits: Tensor, cost: Tensor, rewards: Rewards, baseline: Tensor, entropy_weight: float = 0.0) -> Tensor:
    """Expected score-function gradient, by enumeration."""
    log_prob, entropy = log_probabilities(logits)
    surrogate, _ = score_function_cost(
        log_prob=log_prob,
        entropy=entropy,
        cost=cost,
        mask=None,
        baseline=baseline,
        positions=L,
        discount=1.0,
        rewards=rewards,
        entropy_weight=entropy_weight,
    )
    weights = log_prob.sum(1).exp().detach()
    return torch.autograd.grad((weights * surrogate).sum(), logits)[0]


def exact(logits: Tensor, cost: Tensor) -> Tensor:
    """Gradient of the expected mean cost."""
    log_prob, _ = log_probabilities(logits)
    return torch.autograd.grad((log_prob.sum(1).exp() * cost.mean(1)).sum(), logits)[0]


@pytest.mark.parametrize("rewards", ["dense", "terminal"])
@pytest.mark.parametrize("level", [0.0, 7.0])
def test_score_function_gradient_is_exact_in_expectation_whatever_the_baseline(rewards: Rewards, level: float) -> None:
    logits, baseline = policy_logits(), torch.tensor([level, -level], dtype=torch.float64)
    torch.testing.assert_close(estimate(logits, causal_cost(), rewards, baseline), exact(logits, causal_cost()))


def test_terminal_reward_takes_one_cost_per_sample() -> None:
    logits, zero = policy_logits(), torch.zeros(L, dtype=torch.float64)
    whole = estimate(logits, causal_cost().mean(1), "terminal", zero)
    torch.testing.assert_close(whole, exact(logits, causal_cost()))


@pytest.mark.parametrize("rewards", ["dense", "terminal", "rollout"])
def test_constant_reward_gives_zero_expected_gradient(rewards: Rewards) -> None:
    logits, baseline = policy_logits(), torch.tensor([0.4, -0.1], dtype=torch.float64)
    gradient = estimate(logits, torch.full((V**L, L), 5.0, dtype=torch.float64), rewards, baseline)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("rewards", ["dense", "terminal"])
def test_baseline_at_the_constant_reward_gives_zero_gradient_for_every_sample(rewards: Rewards) -> None:
    logits = policy_logits()
    log_prob, entropy = log_probabilities(logits)
    surrogate, gained = score_function_cost(
        log_prob=log_prob,
        entropy=entropy,
        cost=torch.full((V**L, L), 5.0, dtype=torch.float64),
        mask=None,
        baseline=torch.tensor([-5.0, -5.0], dtype=torch.float64),
        positions=L,
        discount=0.9,
        rewards=rewards,
        entropy_weight=0.0,
    )
    assert gained[0].tolist() == [-5.0, -5.0] and not gained.requires_grad
    assert surrogate.shape == (V**L,) and not surrogate.any()


def test_entropy_bonus_raises_entropy() -> None:
    logits, zero = policy_logits(), torch.zeros(L, dtype=torch.float64)
    log_prob, entropy = log_probabilities(logits)
    gradient = estimate(logits, torch.zeros(V**L, L, dtype=torch.float64), "dense", zero, entropy_weight=2.0)
    weights = log_prob.sum(1).exp().detach()
    (expected,) = torch.autograd.grad(-2.0 * (weights * entropy.mean(1)).sum(), logits)
    torch.testing.assert_close(gradient, expected)


def masked_surrogate(rewards: Rewards, filler: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Surrogate, returns and gradients of two sequences of 2 and 1 valid tokens, padding holding ``filler``."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    log_prob, entropy = (torch.where(mask, value, filler).requires_grad_() for value in (torch.tensor(-0.5), torch.tensor(1.0)))
    surrogate, gained = score_function_cost(
        log_prob=log_prob,
        entropy=entropy,
        cost=torch.where(mask, torch.tensor([[1.0, 3.0, 0.0], [5.0, 0.0, 0.0]]), filler),
        mask=mask,
        baseline=torch.zeros(3),
        positions=1.5,
        discount=0.5,
        rewards=rewards,
        entropy_weight=0.1,
    )
    on_log_prob, on_entropy = torch.autograd.grad(surrogate.sum(), [log_prob, entropy])
    return surrogate, gained, on_log_prob, on_entropy


@pytest.mark.parametrize("rewards", ["dense", "terminal"])
@pytest.mark.parametrize("filler", [9.0, float("-inf"), float("nan")])
def test_masked_positions_give_no_gradient(rewards: Rewards, filler: float) -> None:
    surrogate, gained, on_log_prob, on_entropy = masked_surrogate(rewards, filler)
    clean = masked_surrogate(rewards, 0.0)
    torch.testing.assert_close((surrogate, gained, on_log_prob, on_entropy), clean)
    padding = torch.tensor([[False, False, True], [False, True, True]])
    assert not on_log_prob[padding].any() and not on_entropy[padding].any()


def test_masked_surrogate_by_hand() -> None:
    surrogate, gained, on_log_prob, _ = masked_surrogate("dense", 0.0)
    assert gained.tolist() == [[-1.0, -3.0, 0.0], [-5.0, 0.0, 0.0]]
    # Returns -2.5 and -3, then -5, over 1.5 positions of a mean sample.
    expected = torch.tensor([[2.5, 3.0, 0.0], [5.0, 0.0, 0.0]]) / 1.5
    torch.testing.assert_close(on_log_prob, expected)
    assert surrogate.tolist() == pytest.approx([-0.5 * (5.5 / 1.5) - 0.1 * 2 / 1.5, -0.5 * (5 / 1.5) - 0.1 / 1.5])


def test_terminal_surrogate_by_hand() -> None:
    _, gained, on_log_prob, _ = masked_surrogate("terminal", 0.0)
    # Mean costs 2 and 5; a position before the last is discounted once.
    assert gained.tolist() == [[-2.0, -2.0, 0.0], [-5.0, 0.0, 0.0]]
    assert on_log_prob.tolist() == [[1.0, 2.0, 0.0], [5.0, 0.0, 0.0]]


@pytest.mark.parametrize("rewards", ["dense", "terminal"])
def test_a_sample_without_valid_positions_costs_nothing(rewards: Rewards) -> None:
    surrogate, gained = score_function_cost(
        log_prob=torch.full((1, 2), -1.0),
        entropy=torch.ones(1, 2),
        cost=torch.ones(1, 2),
        mask=torch.zeros(1, 2, dtype=torch.bool),
        baseline=torch.zeros(2),
        positions=1.0,
        discount=1.0,
        rewards=rewards,
        entropy_weight=1.0,
    )
    assert surrogate.tolist() == [0.0] and gained.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("rewards", "shape"), [("dense", (2,)), ("dense", (2, 4)), ("terminal", (3,))])
def test_costs_that_do_not_fit_the_tokens_are_refused(rewards: Rewards, shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match=r"tokens \(2, 3\)"):
        score_function_cost(
            log_prob=torch.zeros(2, 3),
            entropy=torch.zeros(2, 3),
            cost=torch.zeros(shape),
            mask=None,
            baseline=torch.zeros(3),
            positions=3.0,
            discount=1.0,
            rewards=rewards,
            entropy_weight=0.0,
        )


LENGTHS = torch.tensor([1, 2, 3, 4])


def stopping_gradient(cost_of_length: Tensor, baseline: Tensor, rewards: Rewards, discount: float) -> Tensor:
    """Expected gradient at each position's logit of stopping there, of a writer that stops with probability 0.3 or at 4."""
    logit = torch.full((4,), -0.8473, dtype=torch.float64).requires_grad_()
    stop, go = torch.nn.functional.logsigmoid(logit), torch.nn.functional.logsigmoid(-logit)
    place, last = torch.arange(4), (LENGTHS - 1).unsqueeze(1)
    free = place < 3  # the fourth position ends every sample
    log_prob = torch.where(free, torch.where(place == last, stop, go), 0.0)
    mask = place <= last
    surrogate, _ = score_function_cost(
        log_prob=log_prob,
        entropy=torch.zeros_like(log_prob),
        cost=cost_of_length,
        mask=mask,
        baseline=baseline,
        positions=2.5,
        discount=discount,
        rewards=rewards,
        entropy_weight=0.0,
    )
    weights = torch.where(mask, log_prob, 0.0).sum(1).exp().detach()
    assert weights.sum().item() == pytest.approx(1.0)
    return torch.autograd.grad((weights * surrogate).sum(), logit)[0]


@pytest.mark.parametrize("rewards", ["dense", "terminal"])
@pytest.mark.parametrize("discount", [0.0, 0.5, 0.9, 1.0])
def test_constant_reward_neither_pays_nor_punishes_an_early_end(rewards: Rewards, discount: float) -> None:
    gradient = stopping_gradient(torch.full((4, 4), 0.7, dtype=torch.float64), torch.full((4,), -0.7), rewards, discount)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)


def test_a_position_never_seen_before_counts_as_average() -> None:
    unknown = torch.tensor([-0.7, -0.7, torch.nan, torch.nan])
    gradient = stopping_gradient(torch.full((4, 4), 0.7, dtype=torch.float64), unknown, "dense", 0.9)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-7, rtol=0)


@pytest.mark.parametrize(("late_cost", "sign"), [(2.0, -1.0), (-0.6, 1.0)])
def test_ending_is_learned_where_going_on_costs_more_than_average(late_cost: float, sign: float) -> None:
    cost = torch.full((4, 4), 0.7, dtype=torch.float64)
    cost[:, 3] = late_cost  # known to be reached at the average cost
    gradient = stopping_gradient(cost, torch.full((4,), -0.7), "dense", 0.9)
    assert (gradient[:3] * sign > 0).all()


def test_returns_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    assert returns(rewards, None, 0.5).tolist() == [[3.0, 4.0, 4.0]]
    assert returns(rewards, torch.tensor([[True, True, False]]), 0.5).tolist() == [[2.0, 2.0, 0.0]]
    assert returns(rewards, None, 0.0).tolist() == rewards.tolist()
    assert returns(rewards[:, :1], None, 0.9).tolist() == [[1.0]]


def test_baseline_of_a_position_reached_late_starts_at_its_first_mean() -> None:
    late = update_baseline(torch.tensor([1.0, 0.0]), torch.tensor([[1.0, 4.0]]), None, 0.9, torch.tensor([500, 0]))
    assert late.tolist() == [1.0, 4.0]


def test_baseline_starts_at_the_mean_then_moves_by_decay() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    seen = torch.tensor([[1.0, 5.0, 99.0], [3.0, 99.0, 99.0]])
    first = update_baseline(torch.zeros(3), seen, mask, 0.9, 0)
    assert first.tolist() == [2.0, 5.0, 0.0]
    warm = update_baseline(first, torch.ones(2, 3), None, 0.9, 1000)
    torch.testing.assert_close(warm, 0.9 * first + 0.1)
    early = update_baseline(first, torch.ones(2, 3), None, 0.9, torch.tensor(1))
    torch.testing.assert_close(early, 0.5 * first + 0.5)


def test_straight_through_is_hard_forward_and_soft_backward() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tokens, direction = torch.tensor([[0, 4, 2], [1, 1, 3]]), torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(2, 3, 5)
    hard = straight_through(logits, tokens, 0.7)
    assert torch.equal(hard, torch.nn.functional.one_hot(tokens, 5).double())
    (gradient,) = torch.autograd.grad((hard * direction).sum(), logits)
    (soft,) = torch.autograd.grad(((logits / 0.7).softmax(-1) * direction).sum(), logits)
    torch.testing.assert_close(gradient, soft)


def test_straight_through_is_exactly_one_hot_in_half_precision() -> None:
    hard = straight_through(torch.randn(4, 6, 50).bfloat16(), torch.randint(50, (4, 6)), 0.3)
    assert ((hard == 0) | (hard == 1)).all() and (hard.sum(-1) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gumbel_noise_is_finite_at_the_ends_of_the_interval(dtype: torch.dtype) -> None:
    assert torch.isfinite(gumbel(torch.tensor([0.0, 1e-30, 0.5, 1.0], dtype=dtype))).all()


def test_gumbel_argmax_draws_from_the_softmax() -> None:
    rng = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 1.0, -1.0])
    draws = (logits + gumbel(torch.rand(40_000, 3, generator=rng))).argmax(1)
    torch.testing.assert_close(draws.bincount() / 40_000, logits.softmax(0), atol=0.01, rtol=0)


def test_table_gives_each_estimator_its_sampling_mode() -> None:
    modes = {name: get_estimator(name).mode for name in ESTIMATORS}
    again = dict.fromkeys(("ppo", "expectation"), "values")
    assert modes == {"pathwise": "values", "straight_through": "relaxed", "score_function": "log_prob", **again}
    assert {name for name in ESTIMATORS if ESTIMATORS[name].scores_again} == set(again)
    assert all(estimator.summary and estimator.source for estimator in ESTIMATORS.values())


def test_unknown_estimator_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'pathwise'"):
        get_estimator("pathwize")
