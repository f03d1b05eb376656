"""Augmentation inside the image plugin's discriminator: what it does to images, its derivatives, its controller, its state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

import advgen
from advgen import Sample, Verdict
from advgen.runs import checkpoint
from advgen.testing import Check, conformance_checks
from advgen_image import advgen_register
from advgen_image.augmentation.ada import AdaptiveAugmentation
from advgen_image.augmentation.augmented import AugmentedDiscriminator
from advgen_image.augmentation.diffaugment import DiffAugment
from advgen_image.augmentation.resample import moved
from advgen_image.config import ImageConfig
from advgen_image.networks import ImageDiscriminator, ImageShape

ALL_OF_ADA = ("blit", "geometry", "color", "noise", "cutout")
TINY = ["options.width=4", "options.noise_size=8", "train.batch_size=8", "train.log_every=1"]
CHECKED = ("verdicts", "judged_rows", "penalties_can", "gradient_reaches", "resumes_exactly", "trains_with[relativistic]")


def probability(value: float) -> Tensor:
    return torch.tensor(value)


def pictures(channels: int = 3, count: int = 6) -> Tensor:
    torch.manual_seed(0)
    return torch.rand(count, channels, 12, 16, dtype=torch.float64) * 2 - 1


def everything(kind: str) -> Any:
    names = ("color", "translation", "cutout") if kind == "diffaugment" else ALL_OF_ADA
    return (DiffAugment if kind == "diffaugment" else AdaptiveAugmentation)(dict.fromkeys(names, 1.0))


def critic(config: ImageConfig) -> AugmentedDiscriminator:
    torch.manual_seed(0)
    inner = ImageDiscriminator(ImageShape(3, 16, 16), width=4, depth=2, norm="none", normal_init=False)
    return AugmentedDiscriminator(inner, everything(config.augment), config)


# Resampling


def test_moves_by_pixels_flips_and_quarter_turns_are_exact() -> None:
    images = pictures()[:1, :, :12, :12]
    shift, flip, turn = torch.eye(3).double(), torch.eye(3).double(), torch.eye(3).double()
    shift[0, 2] = 2
    flip[0, 0] = -1
    turn[:2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    moved_left = moved(images, shift[None], "zeros")
    assert torch.allclose(moved_left[..., :10], images[..., 2:]) and moved_left[..., 10:].abs().max() < 1e-12
    assert torch.allclose(moved(images, flip[None], "zeros"), images.flip(-1))
    assert torch.allclose(moved(images, turn[None], "zeros"), images.rot90(1, (-2, -1)))


def test_images_of_half_precision_move_as_far_as_others() -> None:
    """A turn and a move by fractions, whose places half precision cannot hold."""
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    inverse = torch.tensor([[0.8, -0.6, 3.3], [0.6, 0.8, -2.7], [0.0, 0.0, 1.0]]).expand(2, 3, 3)
    half = moved(images.bfloat16(), inverse, "reflection")
    assert half.dtype is torch.bfloat16
    assert (half.float() - moved(images, inverse, "reflection")).abs().max() < 0.01


@pytest.mark.parametrize("kind", ["diffaugment", "ada"])
def test_autocast_leaves_augmentation_as_it_is(kind: str) -> None:
    seen, judged = list[Tensor](), critic(ImageConfig(augment=kind, augment_probability=1.0))  # type: ignore[arg-type]
    judged.critic.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images = torch.rand(4, 3, 16, 16) * 2 - 1
    for autocast in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            judged(images, {})
    assert torch.equal(*seen)


def test_moved_images_are_differentiable_twice() -> None:
    images = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    inverse = torch.tensor([[[0.8, 0.3, 0.4], [-0.3, 0.9, -0.2], [0.0, 0.0, 1.0]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: moved(x, inverse, "reflection"), images)
    assert torch.autograd.gradgradcheck(lambda x: moved(x, inverse, "reflection").square(), images)


# What the operations do


@pytest.mark.parametrize("kind", ["diffaugment", "ada"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_probability_zero_changes_nothing_and_one_changes_every_image(kind: str, channels: int) -> None:
    images, augment = pictures(channels), everything(kind)
    assert torch.allclose(augment(images, probability(0.0)), images)
    changed = augment(images, probability(1.0))
    assert changed.shape == images.shape and torch.isfinite(changed).all()
    assert (changed - images).abs().flatten(1).amax(1).min() > 0.01


def test_probability_is_the_share_of_images_that_change() -> None:
    images = pictures(count=1).expand(2000, -1, -1, -1)
    changed = AdaptiveAugmentation({"cutout": 0.5})(images, probability(0.6)) != images
    assert 0.26 < changed.flatten(1).any(1).double().mean() < 0.34


@pytest.mark.parametrize("kind", ["diffaugment", "ada"])
def test_colour_leaves_the_transparency_of_grey_images(kind: str) -> None:
    images, config = pictures(2), ImageConfig(augment=kind, augment_ops=("color",))
    augment = (DiffAugment if kind == "diffaugment" else AdaptiveAugmentation)(config.operations())
    coloured = augment(images, probability(1.0))
    assert torch.equal(coloured[:, 1], images[:, 1]) and not torch.allclose(coloured[:, 0], images[:, 0])


def test_colour_leaves_transparency_and_cutout_leaves_the_rest() -> None:
    images = pictures(4)
    coloured = DiffAugment({"color": 1.0})(images, probability(1.0))
    assert torch.equal(coloured[:, 3], images[:, 3]) and not torch.allclose(coloured[:, :3], images[:, :3])
    cut = DiffAugment({"cutout": 1.0})(images, probability(1.0))
    assert ((cut == images) | (cut == 0)).all() and 0.05 < (cut == 0).double().mean() < 0.3


def test_colour_of_ada_keeps_grey_grey_and_turns_hues_about_the_grey_axis() -> None:
    grey = pictures(1).expand(-1, 3, -1, -1)
    out = AdaptiveAugmentation({"color": 1.0})(grey, probability(1.0))
    assert torch.allclose(out[:, :1].expand_as(out), out, atol=1e-5)


def test_translation_moves_by_an_eighth_at_most_and_fills_with_zeros() -> None:
    images = torch.ones(300, 1, 16, 16, dtype=torch.float64)
    out = DiffAugment({"translation": 1.0})(images, probability(1.0))
    assert ((out == 0) | (out == 1)).all()
    assert (out[:, :, 2:-2, 2:-2] == 1).all() and (out[:, :, 0] == 0).any() and (out[:, :, :, -2:] == 0).any()


@pytest.mark.parametrize("kind", ["diffaugment", "ada"])
def test_gradient_of_a_penalty_reaches_the_unaugmented_image_and_the_weights(kind: str) -> None:
    network = critic(ImageConfig(augment=kind, augment_probability=1.0))  # type: ignore[arg-type]
    images = torch.randn(4, 3, 16, 16, requires_grad=True)
    scores = network(network.embed(Sample(images)), {}).heads[0].scores
    (slope,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    slope.square().sum().backward()
    first = network.critic.blocks[0][0].weight.grad
    assert slope.abs().sum() > 0 and first is not None and first.abs().sum() > 0


def test_only_training_augments_and_the_schedule_scales_it() -> None:
    network = critic(ImageConfig(augment="diffaugment"))
    images = torch.randn(4, 3, 16, 16)

    def scores(verdict: Verdict) -> Tensor:
        return verdict.heads[0].scores

    plain = scores(network.critic(images, {}))
    assert not torch.allclose(scores(network(images, {})), plain)
    assert torch.equal(scores(network.eval()(images, {})), plain)
    network.train().augmentation_scale = 0.0
    assert torch.allclose(scores(network(images, {})), plain)


# The controller


def test_controller_rises_where_the_critic_is_sure_falls_where_not_and_stays_within_its_bounds() -> None:
    network = critic(ImageConfig(augment="ada", ada_images=100))
    sure, unsure = (torch.ones(8), -torch.ones(8)), (torch.tensor([3.0, -3.0] * 4), torch.tensor([3.0, -3.0] * 4))
    course = []
    for scores in [sure] * 16 + [unsure] * 20:
        network.adapt(*scores)
        course.append(float(network.probability))
    assert course[2] == 0 and course[3] == pytest.approx(0.32)  # four updates of 8 images in 100
    assert course[15] == 1.0 and course[19] == pytest.approx(0.68) and course[-1] == 0.0


def test_controller_does_not_see_a_shift_of_all_scores() -> None:
    one, other = (critic(ImageConfig(augment="ada", ada_images=100)) for _ in range(2))
    real, fake = torch.randn(8) + 2, torch.randn(8) - 2
    for _ in range(4):
        one.adapt(real, fake)
        other.adapt(real + 50, fake + 50)
    assert one.probability == other.probability > 0


def test_fixed_probability_is_left_alone() -> None:
    network = critic(ImageConfig(augment="ada", augment_probability=0.3))
    for _ in range(8):
        network.adapt(torch.ones(8), -torch.ones(8))
    assert float(network.probability) == pytest.approx(0.3)


def test_augmentation_and_lecam_resume_exactly_and_p_is_logged(tmp_path: Path) -> None:
    chosen = [*TINY, "options.augment=ada", "options.ada_images=64", "options.ada_target=-0.9", "penalties.lecam.weight=0.3"]
    common: dict[str, Any] = {"overrides": chosen, "steps": 10, "progress": False, "device": "cpu"}
    advgen.train("image", out=tmp_path / "whole", **common)
    advgen.train("image", out=tmp_path / "cut", stop_after=5, **common)
    advgen.resume(tmp_path / "cut", progress=False, device="cpu")
    whole, cut = (checkpoint.load(tmp_path / name / "checkpoints", 10)[0] for name in ("whole", "cut"))
    assert all(
        torch.equal(value, cut[part][name]) for part in ("discriminator", "generator") for name, value in whole[part].items()
    )
    assert torch.equal(whole["state"]["lecam"], cut["state"]["lecam"]) and float(whole["state"]["lecam"][2]) == 10
    assert float(whole["discriminator"]["probability"]) == 1.0  # 8 updates of 8 images in 64
    assert '"discriminator/augmentation": 1.0' in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1]


def contract() -> list[Any]:
    spec, found = advgen_register(), []
    spec = replace(spec, presets={"default": spec.presets["default"]})  # r3 has augmentations of its own
    for name in ("diffaugment", "ada"):
        options = [*TINY[:2], f"options.augment={name}", "options.augment_probability=0.8"]
        checks = [check for check in conformance_checks(spec, overrides=options) if str(check).startswith(CHECKED)]
        found += [pytest.param(check, id=f"{name}-{check}") for check in checks]
    return found


@pytest.mark.parametrize("check", contract())
def test_augmented_discriminator_keeps_the_contract(check: Check) -> None:
    check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"augment": "ada", "augment_ops": ("translation",)},
            r"'translation' is no operation of augment=ada; known: blit, geo",
        ),
        ({"augment": "diffaugment", "augment_ops": ("color:two",)}, r"expected name or name:factor"),
        ({"augment_ops": ("color",)}, r"choose options.augment first"),
    ],
)
def test_unknown_operations_are_refused_with_the_known_ones(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageConfig(**options)
