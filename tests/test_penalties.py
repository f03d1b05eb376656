"""Gradient penalties against finite differences, on the shapes of three modalities."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advgen.contracts import Head, Verdict
from advgen.errors import ConfigError, ContractError
from advgen.penalties import PENALTIES, Penalty, get_penalty
from advgen.reduction import reduce_verdict

Judge = Callable[[Tensor], Verdict]
TABLE = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
SHAPES = pytest.mark.parametrize("shape", [(2, 1, 4, 4), (2, 1, 12), (2, 3, 4)], ids=["image", "audio", "tokens"])
WEIGHT = 3.0


class SmoothCritic(nn.Module):
    """seen (B, ...) -> two smooth heads: one score a sample, and three positions of which one is masked."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.inner = nn.Linear(size, 5, dtype=torch.float64)
        self.whole = nn.Linear(5, 1, dtype=torch.float64)
        self.parts = nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, seen: Tensor) -> Verdict:
        hidden = torch.tanh(self.inner(seen.flatten(1)))
        mask = torch.tensor([True, True, False]).expand(len(seen), 3)
        return Verdict((Head(self.whole(hidden).squeeze(1), weight=0.75), Head(self.parts(hidden), mask, 0.25)))


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def samples(shape: tuple[int, ...]) -> tuple[SmoothCritic, Tensor, Tensor]:
    real, fake = torch.randn(2, *shape, dtype=torch.float64)
    return SmoothCritic(real[0].numel()), real, fake


def compute(penalty: Penalty, judge: Judge, real: Tensor, fake: Tensor) -> Tensor:
    torch.manual_seed(1)
    noise = torch.tensor([0.2, 0.9], dtype=torch.float64)
    return penalty.compute(judge_real=judge, judge_fake=judge, real=real, fake=fake, weight=WEIGHT, noise=noise)


def finite_difference_norms(judge: Judge, seen: Tensor) -> Tensor:
    """Norm of each sample's score gradient by central differences, (B,)."""
    step, squares = 1e-5, torch.zeros(len(seen), dtype=seen.dtype)
    for index in range(seen[0].numel()):
        move = torch.zeros_like(seen).flatten(1)
        move[:, index] = step
        move = move.reshape(seen.shape)
        with torch.no_grad():
            slope = (reduce_verdict(judge(seen + move)) - reduce_verdict(judge(seen - move))) / (2 * step)
        squares += slope.square()
    return squares.sqrt()


def where_judged(penalty: Penalty, critic: Judge, real: Tensor, fake: Tensor) -> Tensor:
    """The point at which a penalty asks for the gradient."""
    points: list[Tensor] = []

    def watch(seen: Tensor) -> Verdict:
        points.append(seen.detach().clone())
        return critic(seen)

    compute(penalty, watch, real, fake)
    return points[0]


@TABLE
@SHAPES
def test_penalty_agrees_with_finite_differences(penalty: Penalty, shape: tuple[int, ...]) -> None:
    critic, real, fake = samples(shape)
    norms = finite_difference_norms(critic, where_judged(penalty, critic, real, fake))
    expected = WEIGHT / 2 * norms.square() if penalty.name in {"r1", "r2"} else WEIGHT * (norms - 1).square()
    torch.testing.assert_close(compute(penalty, critic, real, fake), expected, rtol=1e-6, atol=1e-9)


@TABLE
@SHAPES
def test_penalty_reaches_the_parameters_by_double_backward(penalty: Penalty, shape: tuple[int, ...]) -> None:
    critic, real, fake = samples(shape)
    weight = critic.inner.weight
    (gradient,) = torch.autograd.grad(compute(penalty, critic, real, fake).sum(), weight)
    step, values = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0] += sign * step
        values.append(compute(penalty, critic, real, fake).sum().item())
        with torch.no_grad():
            weight[0, 0] -= sign * step
    assert gradient[0, 0].item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-8)


@TABLE
def test_samples_are_left_as_they_came(penalty: Penalty) -> None:
    critic, real, fake = samples((2, 3, 4))
    before = real.clone(), fake.clone()
    torch.autograd.backward(compute(penalty, critic, real, fake).sum())
    assert not real.requires_grad and not fake.requires_grad
    assert torch.equal(real, before[0]) and torch.equal(fake, before[1])


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_a_verdict_that_is_known_already_can_be_used_again(name: str) -> None:
    critic, real, fake = samples((2, 3, 4))
    fresh = compute(get_penalty(name), critic, real, fake)
    seen = (real if name == "r1" else fake).requires_grad_()
    known = critic(seen)
    reused = compute(get_penalty(name), lambda point: known if point is seen else Verdict(()), real, fake)
    torch.testing.assert_close(reused, fresh)


@pytest.mark.parametrize("name", ["wgan_gp", "dragan"])
def test_mixed_points_are_cut_from_both_samples(name: str) -> None:
    critic, real, fake = samples((2, 3, 4))
    real.requires_grad_()
    fake.requires_grad_()
    torch.autograd.backward(compute(get_penalty(name), critic, real, fake).sum())
    assert real.grad is None and fake.grad is None


@TABLE
def test_penalty_of_a_sample_does_not_depend_on_the_others(penalty: Penalty) -> None:
    critic, real, fake = samples((2, 3, 4))
    both = compute(penalty, critic, real, fake)
    real[1], fake[1] = real[1].flip(0), fake[1].flip(0)
    torch.testing.assert_close(compute(penalty, critic, real, fake)[0], both[0])


@TABLE
def test_flat_discriminator_gives_a_finite_penalty_and_gradient(penalty: Penalty) -> None:
    scale = torch.zeros((), dtype=torch.float32, requires_grad=True)
    value = compute(penalty, lambda seen: Verdict.of(scale * seen.sum((1, 2))), torch.ones(2, 3, 4), torch.zeros(2, 3, 4))
    expected = 0.0 if penalty.name in {"r1", "r2"} else WEIGHT
    torch.testing.assert_close(value, torch.full_like(value, expected))
    assert torch.isfinite(torch.autograd.grad(value.sum(), scale)[0])


@TABLE
def test_scores_that_ignore_the_input_are_refused(penalty: Penalty) -> None:
    with pytest.raises(ContractError, match=r"do not depend on the \(2, 3, 4\)"):
        compute(penalty, lambda seen: Verdict.of(seen.detach().sum((1, 2))), torch.ones(2, 3, 4), torch.zeros(2, 3, 4))


def test_scores_that_depend_on_parameters_alone_are_refused() -> None:
    bias = torch.zeros(2, requires_grad=True)
    with pytest.raises(ContractError, match="do not depend"):
        compute(get_penalty("r1"), lambda seen: Verdict.of(bias + 0), torch.ones(2, 3), torch.zeros(2, 3))


def test_penalties_work_where_gradients_are_off() -> None:
    critic, real, fake = samples((2, 3, 4))
    with torch.no_grad():
        value = compute(get_penalty("r1"), critic, real, fake)
    assert (value > 0).all()


def test_penalties_look_where_they_say() -> None:
    critic, real, fake = samples((2, 3, 4))
    share = torch.tensor([0.2, 0.9], dtype=torch.float64).reshape(2, 1, 1)
    torch.testing.assert_close(where_judged(get_penalty("r1"), critic, real, fake), real)
    torch.testing.assert_close(where_judged(get_penalty("r2"), critic, real, fake), fake)
    torch.testing.assert_close(where_judged(get_penalty("wgan_gp"), critic, real, fake), share * real + (1 - share) * fake)
    move = where_judged(get_penalty("dragan"), critic, real, fake) - real
    assert (move >= 0).all() and (move <= share * 0.5 * real.std(correction=0) + 1e-12).all()


def test_each_judge_sees_its_own_samples() -> None:
    def forbidden(seen: Tensor) -> Verdict:
        raise AssertionError("the other side's judge was asked")

    critic, real, fake = samples((2, 3, 4))
    common = {"real": real, "fake": fake, "weight": 1.0, "noise": torch.rand(2)}
    get_penalty("r1").compute(judge_real=critic, judge_fake=forbidden, **common)  # type: ignore[arg-type]
    get_penalty("r2").compute(judge_real=forbidden, judge_fake=critic, **common)  # type: ignore[arg-type]


def test_forty_nine_patches_weigh_as_much_as_one_score() -> None:
    real = torch.ones(1, 49, dtype=torch.float64)
    one = get_penalty("r1").compute(
        judge_real=lambda seen: Verdict.of(seen.sum(1)),
        judge_fake=Verdict.of,
        real=real,
        fake=real,
        weight=2.0,
        noise=torch.rand(1),
    )
    patches = get_penalty("r1").compute(
        judge_real=lambda seen: Verdict.of(seen.sum(1, keepdim=True).expand(1, 49)),
        judge_fake=Verdict.of,
        real=real,
        fake=real,
        weight=2.0,
        noise=torch.rand(1),
    )
    assert one.item() == pytest.approx(49.0) and patches.item() == pytest.approx(49.0)


def test_wgan_gp_refuses_samples_of_different_shapes() -> None:
    with pytest.raises(ContractError, match=r"\(2, 3\).*\(2, 4\)"):
        compute(get_penalty("wgan_gp"), Verdict.of, torch.ones(2, 3), torch.ones(2, 4))


def test_noise_must_be_one_number_per_sample() -> None:
    with pytest.raises(ContractError, match=r"\(2,\), expected \(3,\)"):
        compute(get_penalty("wgan_gp"), Verdict.of, torch.ones(3, 3), torch.ones(3, 3))


def test_unknown_penalty_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'wgan_gp'"):
        get_penalty("wgan-gp")


def test_the_move_of_dragan_may_be_given_so_that_ranks_equal_one_process() -> None:
    critic, real, _ = samples((4, 3))
    move, noise = torch.rand_like(real), torch.rand(4, dtype=torch.float64)
    common = {"judge_real": critic, "judge_fake": critic, "weight": WEIGHT}
    whole = get_penalty("dragan").compute(**common, real=real, fake=real, noise=noise, move=move)
    parts = [
        get_penalty("dragan").compute(**common, real=real[cut], fake=real[cut], noise=noise[cut], move=move[cut])
        for cut in (slice(0, 2), slice(2, 4))
    ]
    torch.testing.assert_close(torch.cat(parts), whole)
