"""The loss table, and how verdicts become costs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from advgen.contracts import Head, Verdict
from advgen.errors import ConfigError, ContractError, PluginError
from advgen.losses import LOSSES, Loss, get_loss
from advgen.reduction import (
    discriminator_cost,
    generator_cost,
    generator_cost_per_position,
    head_means,
    masked_mean,
    reduce_verdict,
)

TABLE = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
LOG2 = math.log(2)


def verdict(scores: Tensor, mask: Tensor | None = None) -> Verdict:
    return Verdict.of(scores, mask=mask)


def random_pair(*shape: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=rng), torch.randn(*shape, generator=rng)


@TABLE
def test_entry_is_filed_under_its_own_name_with_a_source(loss: Loss) -> None:
    assert LOSSES[loss.name] is loss and loss.summary and "http" in loss.source


@TABLE
def test_discriminator_pays_the_declared_cost_at_a_tie(loss: Loss) -> None:
    cost = loss.discriminator(real=torch.zeros(2, 3), fake=torch.zeros(2, 3))
    torch.testing.assert_close(cost, torch.full((2, 3), loss.tie_discriminator))


@TABLE
@pytest.mark.parametrize("shape", [(4,), (4, 5), (4, 2, 3)])
def test_costs_have_the_shape_of_the_logits(loss: Loss, shape: tuple[int, ...]) -> None:
    real, fake = random_pair(*shape)
    assert loss.discriminator(real=real, fake=fake).shape == shape
    assert loss.generator(real=real, fake=fake).shape == shape


@TABLE
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_costs_and_gradients_are_finite_at_extreme_logits(loss: Loss, size: float) -> None:
    for player in (loss.discriminator, loss.generator):
        real, fake = torch.full((2, 3), size, requires_grad=True), torch.full((2, 3), -size, requires_grad=True)
        cost = player(real=real, fake=fake).sum()
        gradients = torch.autograd.grad(cost, [real, fake], allow_unused=True)
        assert torch.isfinite(cost) and all(torch.isfinite(g).all() for g in gradients if g is not None)


@TABLE
def test_different_shapes_are_refused_naming_both(loss: Loss) -> None:
    for player in (loss.discriminator, loss.generator):
        with pytest.raises(ContractError, match=r"\(2, 3\).*\(2, 4\)"):
            player(real=torch.zeros(2, 3), fake=torch.zeros(2, 4))


@TABLE
def test_positional_calls_are_refused(loss: Loss) -> None:
    for player in (loss.discriminator, loss.generator):
        with pytest.raises(TypeError):
            player(torch.zeros(2), torch.zeros(2))  # type: ignore[call-arg]


@TABLE
def test_generator_wants_a_higher_fake_score(loss: Loss) -> None:
    real, fake = random_pair(4, 3)
    fake.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.generator(real=real, fake=fake).sum(), fake)
    assert (gradient <= 0).all() if loss.name != "least_squares" else gradient[fake < 1].lt(0).all()


@TABLE
def test_discriminator_gains_by_telling_real_from_fake(loss: Loss) -> None:
    apart = loss.discriminator(real=torch.full((2, 3), 0.4), fake=torch.full((2, 3), -0.4)).mean()
    confused = loss.discriminator(real=torch.full((2, 3), -0.4), fake=torch.full((2, 3), 0.4)).mean()
    assert apart < loss.tie_discriminator < confused or (loss.name == "least_squares" and apart < confused)


@TABLE
def test_verdict_costs_are_the_mean_of_the_elementwise_costs(loss: Loss) -> None:
    real, fake = random_pair(4, 3)
    expected = loss.discriminator(real=real, fake=fake).mean(1)
    torch.testing.assert_close(discriminator_cost(loss, verdict(real), verdict(fake)), expected)
    expected = loss.generator(real=real, fake=fake).mean(1)
    torch.testing.assert_close(generator_cost(loss, verdict(real), verdict(fake)), expected)


@TABLE
def test_what_padding_holds_reaches_neither_cost_nor_gradient(loss: Loss) -> None:
    real, fake = random_pair(2, 3)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    results = []
    for filler in (0.0, float("nan"), float("inf")):
        one, other = (torch.where(mask, x, filler).requires_grad_() for x in (real, fake))
        pair = verdict(one, mask), verdict(other, mask)
        cost = discriminator_cost(loss, *pair) + generator_cost(loss, *pair)
        results.append((cost, *torch.autograd.grad(cost.sum(), [one, other])))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])
    assert not results[0][1][~mask].any() and not results[0][2][~mask].any()


@TABLE
def test_half_precision_scores_are_reduced_in_full_precision(loss: Loss) -> None:
    real, fake = (x.bfloat16() for x in random_pair(2, 300))
    assert discriminator_cost(loss, verdict(real), verdict(fake)).dtype == torch.float32
    assert generator_cost(loss, verdict(real), verdict(fake)).dtype == torch.float32


@TABLE
def test_heads_of_different_shapes_are_refused(loss: Loss) -> None:
    with pytest.raises(ContractError, match=r"head 0.*\(2, 3\).*\(2, 4\)"):
        discriminator_cost(loss, verdict(torch.zeros(2, 3)), verdict(torch.zeros(2, 4)))
    with pytest.raises(ContractError, match="2 heads for real and 1 for fake"):
        generator_cost(loss, Verdict.of(torch.zeros(2), torch.zeros(2)), verdict(torch.zeros(2)))


@pytest.mark.parametrize("name", [loss.name for loss in LOSSES.values() if not loss.couples_batch])
def test_costs_per_position_average_to_the_generator_cost(name: str) -> None:
    real, fake = (verdict(scores) for scores in random_pair(4, 3))
    ((cost, mask),) = generator_cost_per_position(get_loss(name), real, fake)
    torch.testing.assert_close(cost.mean(), generator_cost(get_loss(name), real, fake).mean())
    assert mask is None and cost.shape == (4, 3)


@pytest.mark.parametrize("name", ["relativistic_average", "relativistic_hinge"])
def test_coupled_cost_per_position_carries_the_share_through_the_mean(name: str) -> None:
    loss = get_loss(name)
    real, fake = (x.double() for x in random_pair(4, 3))
    fake.requires_grad_()
    means = [(real.mean(), fake.detach().mean())]
    ((cost, _),) = generator_cost_per_position(loss, verdict(real), verdict(fake), means)
    (held,) = torch.autograd.grad(cost.mean(), fake)
    (exact,) = torch.autograd.grad(generator_cost(loss, verdict(real), verdict(fake)).mean(), fake)
    torch.testing.assert_close(held, exact)


@pytest.mark.parametrize("name", ["relativistic_average", "relativistic_hinge"])
def test_given_means_replace_those_of_the_batch(name: str) -> None:
    loss = get_loss(name)
    real, fake = random_pair(4, 3)
    whole = discriminator_cost(loss, verdict(real), verdict(fake))
    means = [(real.mean(), fake.mean())]
    halves = [discriminator_cost(loss, verdict(real[i : i + 2]), verdict(fake[i : i + 2]), means) for i in (0, 2)]
    torch.testing.assert_close(torch.cat(halves), whole)
    elementwise = loss.discriminator(real=real[:2], fake=fake[:2], real_mean=real.mean(), fake_mean=fake.mean())  # type: ignore[call-arg]
    torch.testing.assert_close(elementwise.mean(1), halves[0])


@pytest.mark.parametrize("name", ["relativistic", "relativistic_average", "relativistic_hinge", "wasserstein"])
def test_a_shift_of_all_logits_changes_nothing_for_relativistic_losses(name: str) -> None:
    real, fake = random_pair(4, 3)
    loss = get_loss(name)
    torch.testing.assert_close(loss.discriminator(real=real + 5, fake=fake + 5), loss.discriminator(real=real, fake=fake))


def test_values_by_hand() -> None:
    real, fake = torch.tensor([2.0]), torch.tensor([-1.0])

    def costs(name: str) -> tuple[float, float]:
        loss = get_loss(name)
        return loss.discriminator(real=real, fake=fake).item(), loss.generator(real=real, fake=fake).item()

    assert costs("minimax") == pytest.approx((0.126928 + 0.313262, -0.313262), abs=1e-5)
    assert costs("nonsaturating") == pytest.approx((0.126928 + 0.313262, 1.313262), abs=1e-5)
    assert costs("least_squares") == pytest.approx((0.5 + 0.5, 2.0))
    assert costs("hinge") == pytest.approx((0.0, 1.0))
    assert costs("wasserstein") == pytest.approx((-3.0, 1.0))
    assert costs("relativistic") == pytest.approx((0.048587, 3.048587), abs=1e-5)
    assert costs("relativistic_average") == pytest.approx((2 * 0.048587, 2 * 3.048587), abs=1e-5)
    assert costs("relativistic_hinge") == pytest.approx((0.0, 8.0))


def test_nonsaturating_keeps_a_gradient_of_one_where_the_fake_is_hopeless_and_minimax_does_not() -> None:
    slopes = {}
    for name in ("nonsaturating", "minimax", "relativistic"):
        fake = torch.tensor([-30.0], requires_grad=True)
        (slope,) = torch.autograd.grad(get_loss(name).generator(real=torch.zeros(1), fake=fake).sum(), fake)
        slopes[name] = slope.item()
    assert slopes["nonsaturating"] == pytest.approx(-1) and slopes["relativistic"] == pytest.approx(-1)
    assert abs(slopes["minimax"]) < 1e-12


def test_perfect_discriminator_pays_nothing_under_the_hinge() -> None:
    cost = get_loss("hinge").discriminator(real=torch.tensor([1.0, 7.0]), fake=torch.tensor([-1.0, -7.0]))
    assert cost.tolist() == [0.0, 0.0]


def test_masked_mean_by_hand() -> None:
    values = torch.tensor([[1.0, 2.0, 30.0], [4.0, 50.0, 60.0], [7.0, 8.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert masked_mean(values, mask).tolist() == [1.5, 4.0, 0.0]
    assert masked_mean(values, None).tolist() == [11.0, 38.0, 8.0]


def test_masked_mean_refuses_a_mask_of_another_shape() -> None:
    with pytest.raises(ContractError, match=r"\(2, 3\).*\(2, 4\)"):
        masked_mean(torch.zeros(2, 4), torch.ones(2, 3, dtype=torch.bool))


def test_forty_nine_patches_are_averaged_not_summed() -> None:
    patches = torch.arange(49.0).reshape(1, 7, 7)
    assert reduce_verdict(verdict(patches)).tolist() == [24.0]
    half = (torch.arange(49) < 10).reshape(1, 7, 7)
    assert reduce_verdict(verdict(patches, half)).tolist() == [4.5]


def test_heads_are_summed_by_weight() -> None:
    heads = (Head(torch.tensor([[1.0, 3.0]]), weight=0.25), Head(torch.tensor([10.0]), weight=2.0))
    assert reduce_verdict(Verdict(heads)).tolist() == [20.5]
    assert generator_cost(get_loss("wasserstein"), Verdict(heads), Verdict(heads)).tolist() == [-20.5]


def test_pairs_with_unequal_masks_meet_the_partners_mean() -> None:
    real = verdict(torch.tensor([[1.0, 3.0, 99.0, 99.0]]), torch.tensor([[True, True, False, False]]))
    fake = verdict(torch.tensor([[0.0, 1.0, 2.0, 99.0]]), torch.tensor([[True, True, True, False]]))
    # Pairs: (1, 0), (3, 1), (mean 2, 2); the fourth position is missing on both sides.
    expected = sum(math.log1p(math.exp(gap)) for gap in (0 - 1, 1 - 3, 2 - 2)) / 3
    assert discriminator_cost(get_loss("relativistic"), real, fake).item() == pytest.approx(expected)


def test_mask_on_one_side_alone_counts_every_position() -> None:
    real = verdict(torch.tensor([[1.0, 99.0]]), torch.tensor([[True, False]]))
    fake = verdict(torch.tensor([[1.0, 1.0]]))
    assert discriminator_cost(get_loss("relativistic"), real, fake).item() == pytest.approx(LOG2)


def test_sides_use_their_own_masks() -> None:
    real = verdict(torch.tensor([[1.0, 99.0, 99.0]]), torch.tensor([[True, False, False]]))
    fake = verdict(torch.tensor([[2.0, 4.0, 99.0]]), torch.tensor([[True, True, False]]))
    assert discriminator_cost(get_loss("wasserstein"), real, fake).tolist() == [2.0]
    assert generator_cost(get_loss("wasserstein"), real, fake).tolist() == [-3.0]


def test_cost_per_position_comes_with_the_fake_samples_mask() -> None:
    mask = torch.tensor([[True, False]])
    ((cost, valid),) = generator_cost_per_position(
        get_loss("relativistic"), verdict(torch.zeros(1, 2)), verdict(torch.ones(1, 2), mask)
    )
    assert valid is mask and cost[0, 0].item() == pytest.approx(math.log1p(math.exp(-1)))


def test_head_means_give_sum_and_count_of_valid_scores() -> None:
    ((total, count),) = head_means(verdict(torch.tensor([[1.0, 2.0], [3.0, 9.0]]), torch.tensor([[True, True], [True, False]])))
    assert (total.item(), count.item()) == (6.0, 3)
    ((total, count),) = head_means(verdict(torch.ones(2, 5)))
    assert (total.item(), count.item()) == (10.0, 10)


def test_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'hinge'"):
        get_loss("hing")


def test_a_loss_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(PluginError, match="pairs"):
        replace(get_loss("hinge"), pairs=True)
    with pytest.raises(PluginError, match="no sides"):
        replace(get_loss("hinge"), sides=None)
    with pytest.raises(PluginError, match="generator_sides"):
        replace(get_loss("hinge"), couples_batch=True)
    with pytest.raises(PluginError, match="likelihoods"):
        replace(get_loss("relativistic"), positions_alike=True)
