"""Feature metrics against planted answers."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from advgen.errors import DataError, GenError
from advgen.metrics.features import frechet_distance, kernel_distance, vendi_score
from advgen.metrics.neighbours import (
    nearest_neighbours,
    neighbour_distances,
    neighbour_radii,
    precision_recall_density_coverage,
    two_sample_accuracy,
    within_class_recall,
)

PAIRED = [frechet_distance, kernel_distance, precision_recall_density_coverage]


def gaussian(num_samples: int, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(num_samples, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_frechet_distance_of_a_shifted_set_is_the_squared_shift() -> None:
    features = gaussian(300)
    shift = torch.arange(8, dtype=torch.float64)
    assert frechet_distance(generated=features + shift, real=features) == pytest.approx(float(shift @ shift), rel=1e-12)


def test_frechet_distance_of_a_set_scaled_about_its_mean_is_the_spread_of_the_difference() -> None:
    features = gaussian(300) - gaussian(300).mean(dim=0)
    total_variance = float(features.var(dim=0).sum())
    assert frechet_distance(generated=3 * features, real=features) == pytest.approx(4 * total_variance, rel=1e-12)


@pytest.mark.parametrize("num_samples", [2, 10, 300])
def test_frechet_distance_of_identical_sets_is_zero_even_with_fewer_samples_than_features(num_samples: int) -> None:
    features = gaussian(num_samples, width=64) @ torch.diag(torch.logspace(-6, 3, 64, dtype=torch.float64))
    assert frechet_distance(generated=features, real=features.flip(0)) <= 1e-12 * float(features.square().sum())


def test_frechet_distance_agrees_with_the_matrix_square_root() -> None:
    x, y = gaussian(400, seed=1) @ gaussian(8, seed=2), gaussian(300, seed=3) + 0.5
    root = scipy.linalg.sqrtm((x.T.cov() @ y.T.cov()).numpy()).real.trace()
    expected = float((x.mean(0) - y.mean(0)).square().sum() + x.T.cov().trace() + y.T.cov().trace()) - 2 * root
    assert frechet_distance(generated=x, real=y) == pytest.approx(expected, rel=1e-8)


def test_kernel_distance_equals_the_sum_worked_out_by_hand() -> None:
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    # Pairs within: (1*2+1)^3 = 27 and (0*1+1)^3 = 1; between: 1, 8, 1, 27 with mean 9.25.
    assert kernel_distance(generated=x, real=y) == pytest.approx(27 + 1 - 2 * 9.25)


def test_kernel_distance_is_unbiased_between_two_draws_of_one_distribution() -> None:
    values = [kernel_distance(generated=gaussian(60, seed=2 * i), real=gaussian(60, seed=2 * i + 1)) for i in range(60)]
    mean, error = torch.tensor(values).mean().item(), torch.tensor(values).std().item() / math.sqrt(60)
    assert abs(mean) < 3 * error
    assert min(values) < 0 < max(values)


def test_kernel_distance_over_blocks_is_the_mean_of_the_blocks() -> None:
    x, y = gaussian(25, seed=1), gaussian(20, seed=2) + 1
    parts = [kernel_distance(generated=x[i : i + 10], real=y[i : i + 10]) for i in (0, 10)]
    assert kernel_distance(generated=x, real=y, block=10) == pytest.approx(sum(parts) / 2)


@pytest.mark.parametrize("block", [1, 21])
def test_kernel_distance_refuses_a_block_that_does_not_fit(block: int) -> None:
    with pytest.raises(DataError, match="expected 2 to 20"):
        kernel_distance(generated=gaussian(25), real=gaussian(20), block=block)


def test_kernel_distance_does_not_depend_on_the_internal_blocks() -> None:
    x, y = gaussian(600, seed=1), gaussian(517, seed=2) + 0.3
    kernel = [(a @ b.T / 8 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = [float((k.sum() - k.trace()) / (len(k) * (len(k) - 1))) for k in kernel[:2]]
    assert kernel_distance(generated=x, real=y) == pytest.approx(sum(within) - 2 * float(kernel[2].mean()))


def test_identical_sets_are_fully_precise_recalled_and_covered() -> None:
    found = precision_recall_density_coverage(generated=gaussian(300), real=gaussian(300))
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 1.0, 1.0)
    # Each ball holds its centre and its five neighbours.
    assert found["density"] == pytest.approx(6 / 5)


def test_two_draws_of_one_distribution_have_density_near_one() -> None:
    found = precision_recall_density_coverage(generated=gaussian(800, seed=1), real=gaussian(800, seed=2))
    assert found["density"] == pytest.approx(1.0, abs=0.1)
    # Expected coverage of matching sets with k of n neighbours is close to 1 - 1/2^k.
    assert found["coverage"] == pytest.approx(1 - 0.5**5, abs=0.03)


def test_precision_and_recall_by_hand_on_a_line() -> None:
    real = torch.tensor([[0.0], [1.0], [10.0]])
    generated = torch.tensor([[0.5], [2.5], [100.0]])
    found = precision_recall_density_coverage(generated=generated, real=real, neighbours=1)
    # Real radii 1, 1, 9: 0.5 lies in balls 0 and 1, 2.5 in ball 10, 100 in none.
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["density"] == pytest.approx(3 / 3)
    assert found["coverage"] == 1.0
    # Generated radii 2, 2, 97.5: 0 and 1 lie in the first, 10 in the last.
    assert found["recall"] == 1.0


def test_collapse_to_one_mode_lowers_recall_and_coverage_but_not_precision() -> None:
    modes = torch.tensor([[-20.0], [20.0]], dtype=torch.float64).repeat(200, 1)
    real = gaussian(400, width=2) + modes
    collapsed = gaussian(400, width=2, seed=1) + 20
    found = precision_recall_density_coverage(generated=collapsed, real=real)
    assert found["precision"] > 0.9
    assert found["recall"] < 0.55
    assert found["coverage"] < 0.55


def test_noise_far_away_has_no_precision_and_no_coverage() -> None:
    found = precision_recall_density_coverage(generated=gaussian(50) + 1000, real=gaussian(50, seed=1))
    assert set(found.values()) == {0.0}


def test_repeated_real_samples_are_covered_by_their_copies() -> None:
    repeated = gaussian(10).repeat(10, 1)
    found = precision_recall_density_coverage(generated=repeated, real=repeated)
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 1.0, 1.0)


def test_radii_are_the_sorted_distances_to_others() -> None:
    features = gaussian(300)
    whole = torch.cdist(features, features).sort(dim=1).values[:, 5]
    torch.testing.assert_close(neighbour_radii(features, 5), whole)


def test_within_class_recall_finds_a_class_that_is_always_the_same_sample() -> None:
    labels = torch.arange(2).repeat(100)
    real, generated = gaussian(200) + 50 * labels[:, None], gaussian(200, seed=1) + 50 * labels[:, None]
    generated[labels == 1] = generated[1].clone()
    recalls = within_class_recall(generated=generated, generated_labels=labels, real=real, real_labels=labels)
    assert recalls[0] > 0.8
    assert recalls[1] < 0.05


def test_within_class_recall_is_zero_for_a_missing_class_and_leaves_out_one_too_rare_to_judge() -> None:
    real_labels = torch.tensor([0] * 20 + [1] * 20 + [2] * 3)
    generated_labels = torch.zeros(43, dtype=torch.int64)
    recalls = within_class_recall(
        generated=gaussian(43), generated_labels=generated_labels, real=gaussian(43), real_labels=real_labels
    )
    assert set(recalls) == {0, 1}
    assert recalls[1] == 0.0


def test_within_class_recall_refuses_labels_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"real labels have shape \(3,\)"):
        within_class_recall(
            generated=gaussian(9), generated_labels=torch.zeros(9), real=gaussian(9), real_labels=torch.zeros(3)
        )


def test_copies_are_at_exactly_zero_and_point_to_their_original() -> None:
    train = gaussian(600, width=32) * 1e3
    distances, indices = nearest_neighbours(train[[7, 599]], train)
    assert distances.tolist() == [0.0, 0.0]
    assert indices.tolist() == [7, 599]


def test_distances_are_those_of_differences_whatever_the_offset_and_however_many_are_alike() -> None:
    """Products of large numbers lose what differences keep: near pairs, and sets far from the origin."""
    train = gaussian(300, width=16) + 1e6
    near = train[:40] + 1e-6 * gaussian(40, width=16, seed=1)
    for samples in (gaussian(300, width=16, seed=2) + 1e6, near, near[:1].repeat(300, 1), 1e-3 * train):
        whole = torch.cdist(samples, train, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
        distances, indices = nearest_neighbours(samples, train)
        torch.testing.assert_close(distances, whole.values, rtol=1e-8, atol=0)
        assert torch.equal(indices, whole.indices)


def test_equal_sets_in_another_order_are_inside_each_others_balls() -> None:
    """Borders count: a ball reaches exactly to a sample, whichever side of the product that stood on."""
    real = gaussian(700, width=64)
    generated = real[torch.randperm(700, generator=torch.Generator().manual_seed(3))]
    found = precision_recall_density_coverage(generated=generated, real=real)
    assert (found["precision"], found["recall"], found["coverage"]) == (1.0, 1.0, 1.0)
    assert found["density"] == pytest.approx(6 / 5)


def test_nearest_neighbour_in_its_own_set_leaves_the_sample_itself_out() -> None:
    distances, indices = nearest_neighbours(torch.tensor([[0.0], [1.0], [5.0], [1.0]]))
    assert distances.tolist() == [1.0, 0.0, 4.0, 0.0]
    assert indices[[1, 3]].tolist() == [3, 1]


def test_vendi_score_counts_distinct_samples() -> None:
    assert vendi_score(torch.eye(4).repeat(3, 1)) == pytest.approx(4.0)
    assert vendi_score(torch.ones(7, 3)) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", PAIRED)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["generated", "real"])
def test_features_that_are_not_finite_are_refused_by_side(metric, value, side) -> None:
    sides = {"generated": gaussian(20), "real": gaussian(20, seed=1)}
    sides[side][3, 2] = value
    with pytest.raises(GenError, match=f"{side} features are not finite in 1 of 20 samples"):
        metric(**sides)


@pytest.mark.parametrize("side", ["generated", "real"])
def test_as_few_samples_as_neighbours_are_refused_by_side(side: str) -> None:
    sides = {"generated": gaussian(20), "real": gaussian(20)}
    sides[side] = sides[side][:5]
    with pytest.raises(DataError, match=f"{side} features hold 5 samples, expected more than 5"):
        precision_recall_density_coverage(**sides)


@pytest.mark.parametrize("metric", PAIRED)
def test_features_of_two_widths_are_refused(metric) -> None:
    with pytest.raises(DataError, match="8 wide and real ones 4"):
        metric(generated=gaussian(20), real=gaussian(20, width=4))


@pytest.mark.parametrize("metric", PAIRED)
def test_features_that_are_not_a_table_are_refused(metric) -> None:
    with pytest.raises(DataError, match=r"shape \(20, 2, 4\)"):
        metric(generated=gaussian(20).view(20, 2, 4), real=gaussian(20))


@pytest.mark.parametrize("metric", PAIRED)
def test_positional_sets_are_refused(metric) -> None:
    with pytest.raises(TypeError):
        metric(gaussian(20), gaussian(20))


def test_neighbour_distances_by_hand() -> None:
    samples = torch.tensor([[0.0], [1.0], [3.0], [100.0]])
    found = neighbour_distances(samples, torch.tensor([[0.5], [3.0]]), count=3)
    assert found["neighbour_distance_train"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert found["neighbour_distance_within"] == pytest.approx((1 + 1 + 2) / 3)


def test_copies_of_the_training_data_and_a_collapsed_set_are_at_no_distance() -> None:
    train = gaussian(50)
    assert neighbour_distances(train[:20], train, count=20)["neighbour_distance_train"] == 0
    assert neighbour_distances(train[:1].expand(20, 8), gaussian(50, seed=1), count=20)["neighbour_distance_within"] == 0


def test_two_draws_of_one_distribution_are_as_far_from_the_training_data_and_themselves() -> None:
    train = gaussian(1000, width=4)
    one, other = (neighbour_distances(gaussian(400, width=4, seed=seed), train, count=400) for seed in (1, 2))
    assert all(one[name] == pytest.approx(other[name], rel=0.1) for name in one)


def test_two_samples_are_told_apart_by_their_nearest_neighbours_by_hand() -> None:
    generated, real = torch.tensor([[0.0], [1.0], [10.0]]), torch.tensor([[9.0], [20.0], [21.0], [99.0]])
    # 0 and 1 are next to each other, 10 is next to 9 and 9 to 10, 20 and 21 are next to each other; 99 is left out.
    assert two_sample_accuracy(generated=generated, real=real) == pytest.approx(4 / 6)


def test_two_draws_of_one_distribution_are_told_apart_by_chance_and_copies_less_often() -> None:
    real = gaussian(500, width=4, seed=1)
    assert two_sample_accuracy(generated=gaussian(500, width=4, seed=2), real=real) == pytest.approx(0.5, abs=0.05)
    assert two_sample_accuracy(generated=real, real=real) == 0
    assert two_sample_accuracy(generated=gaussian(500, width=4, seed=2) + 20, real=real) == 1
    assert two_sample_accuracy(generated=real[:1].expand(500, 4), real=real) > 0.7
