"""The gradient balancer: shares, running means worked out by hand, its state, its refusals."""

from __future__ import annotations

import pytest
import torch

from advgen import ConfigError
from advgen_audio.balancer import GradientBalancer


def slope(balancer: GradientBalancer, output: torch.Tensor, **scales: float) -> torch.Tensor:
    """Gradient at the output (B, 2) of costs scale * mean over the batch of its columns, first "a", then "b"."""
    output = output.clone().requires_grad_()
    costs = {name: scale * output[:, "ab".index(name)].sum() for name, scale in scales.items()}
    (found,) = torch.autograd.grad(balancer(costs, output), output)
    return found


def test_costs_pull_by_their_weights_whatever_their_units():
    output = torch.randn(3, 2)
    for scale in (1.0, 1000.0, 1e-3):
        found = slope(GradientBalancer({"a": 3.0, "b": 1.0}), output, a=1.0, b=scale)
        torch.testing.assert_close(found, torch.tensor([0.75, 0.25]).expand(3, 2))


def test_only_the_costs_given_share():
    torch.testing.assert_close(
        slope(GradientBalancer({"a": 3.0, "b": 1.0}), torch.ones(2, 2), b=7.0), torch.tensor([[0.0, 1.0]] * 2)
    )


def test_the_running_mean_is_corrected_for_its_start():
    balancer, output = GradientBalancer({"a": 1.0}, decay=0.5, total=2.0), torch.zeros(1, 2)
    assert slope(balancer, output, a=1.0)[0, 0] == pytest.approx(2.0)
    # norms 1, then 3: (0.5 * 1 + 3) / (0.5 + 1) = 7 / 3, and 2 * 3 / (7 / 3) = 18 / 7
    assert slope(balancer, output, a=3.0)[0, 0].item() == pytest.approx(18 / 7)


def test_the_state_continues_where_it_was_and_evaluation_leaves_it():
    first, output = GradientBalancer({"a": 1.0, "b": 2.0}), torch.zeros(2, 2)
    slope(first, output, a=1.0, b=4.0)
    second = GradientBalancer({"a": 1.0, "b": 2.0})
    second.load_state_dict(first.state_dict())
    before = {name: value.clone() for name, value in second.state_dict().items()}
    second.eval()
    slope(second, output, a=9.0, b=9.0)
    assert all(torch.equal(value, before[name]) for name, value in second.state_dict().items())
    second.train()
    torch.testing.assert_close(slope(first, output, a=2.0, b=1.0), slope(second, output, a=2.0, b=1.0), atol=0, rtol=0)


def test_the_value_is_the_weighted_sum():
    output = torch.ones(2, 2, requires_grad=True)
    cost = GradientBalancer({"a": 2.0, "b": 3.0})({"a": output.sum(), "b": output[0, 0] * 5}, output)
    assert cost.item() == pytest.approx(2 * 4 + 3 * 5)


def test_a_step_that_is_not_finite_leaves_no_trace_and_no_slope_gives_none():
    balancer, output = GradientBalancer({"a": 1.0}), torch.zeros(1, 2)
    slope(balancer, output, a=2.0)
    before = balancer.sums.clone()
    slope(balancer, output, a=float("nan"))
    assert torch.equal(balancer.sums, before)
    assert slope(GradientBalancer({"a": 1.0}), output, a=0.0).abs().max() == 0


def test_what_cannot_be_balanced_is_named():
    output = torch.zeros(1, 2, requires_grad=True)
    with pytest.raises(ConfigError, match="weights above 0"):
        GradientBalancer({"a": 0.0})
    with pytest.raises(ConfigError, match="costs c, expected some of a"):
        GradientBalancer({"a": 1.0})({"c": output.sum()}, output)
    for cost in (torch.ones(()), torch.ones((), requires_grad=True) * 2):
        with pytest.raises(ConfigError, match="cost 'a' does not depend"):
            GradientBalancer({"a": 1.0})({"a": cost}, output)
