"""The image plugin's network families: published sizes, any rectangle, contract, resampling, first and second derivatives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import advgen
from advgen import ConfigError, Sample
from advgen.testing import Check, conformance_checks
from advgen_image import advgen_register
from advgen_image.config import ImageConfig
from advgen_image.families import common, make_discriminator, make_generator
from advgen_image.families.equalized import EqualLinear, ModulatedConv
from advgen_image.families.spectral import SelfAttention
from advgen_image.families.stylegan2 import group_deviation
from advgen_image.networks import ImageShape, choose_depth

# Options that make a family a matter of seconds at 32x32.
TINY: dict[str, dict[str, Any]] = {
    "stylegan2": {"width": 4, "doublings": 1, "noise_size": 8},
    "resnet": {"width": 4, "doublings": 1, "noise_size": 8, "attention": 16},
    "r3": {"width": 4, "doublings": 1, "blocks": 1, "noise_size": 8},
}
FAMILIES = sorted(TINY)
SLOW_CHECKS = (
    "judge_gives_features",
    "unreadable_data_are_refused",
    "corpus",
    "splits",
    "files_are_written",
    "entry",
    "strings",
)


def small(family: str, **more: Any) -> ImageConfig:
    chosen = {name: value for name, value in TINY[family].items() if name != "attention"}  # not every rectangle has that side
    return ImageConfig(family=family, **(chosen | more))  # type: ignore[arg-type]


def networks(config: ImageConfig, shape: ImageShape) -> tuple[Any, Any]:
    torch.manual_seed(0)
    depth = choose_depth(shape.height, shape.width, config.depth)
    return make_generator(config, shape, depth), make_discriminator(config, shape, depth)


def size(network: torch.nn.Module) -> float:
    """Millions of parameters."""
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def overrides(family: str) -> list[str]:
    chosen = {"family": family} | TINY[family]
    return [f"options.{name}={json.dumps(value)}" for name, value in chosen.items()]


# Every family


def contract() -> list[Any]:
    spec, found = advgen_register(), []
    spec = replace(spec, presets={"default": spec.presets["default"]})  # the others set options of other families
    for family in FAMILIES:
        checks = conformance_checks(spec, overrides=overrides(family))
        kept = [check for check in checks if not str(check).startswith(SLOW_CHECKS)]
        found += [pytest.param(check, id=f"{family}-{check}") for check in kept]
    return found


@pytest.mark.parametrize("check", contract())
def test_family_keeps_the_contract_under_every_loss(check: Check) -> None:
    check()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", [(8, 24), (28, 28), (48, 16)])
@pytest.mark.parametrize(("channels", "classes"), [(1, 0), (2, 3), (3, 5), (4, 2)])
def test_any_rectangle_with_any_channels_and_classes(family: str, side: tuple[int, int], channels: int, classes: int) -> None:
    shape = ImageShape(channels, *side, classes)
    config = small(family)
    generator, discriminator = networks(config, shape)
    condition = {"label": torch.arange(4) % classes} if classes else {}
    sample = generator(torch.randn(4, config.noise_size), condition)
    assert sample.values.shape == (4, channels, *side)
    scores = discriminator(discriminator.embed(sample), condition).heads[0].scores
    assert scores.shape == (4,) and torch.isfinite(scores).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_class_reaches_both_players_and_its_absence_is_allowed(family: str) -> None:
    config = small(family)
    generator, discriminator = networks(config, ImageShape(3, 16, 16, 3))
    generator.eval(), discriminator.eval()
    noise, one, two = torch.randn(4, config.noise_size), {"label": torch.zeros(4).long()}, {"label": torch.ones(4).long()}

    def draw(condition: dict[str, torch.Tensor]) -> torch.Tensor:
        torch.manual_seed(1)
        images: torch.Tensor = generator(noise, condition).values
        return images

    assert not torch.allclose(draw(one), draw(two))
    images = draw(one)
    assert not torch.allclose(discriminator(images, one).heads[0].scores, discriminator(images, two).heads[0].scores)
    assert torch.isfinite(discriminator(draw({}), {}).heads[0].scores).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_of_a_penalty_is_right_to_second_order(family: str) -> None:
    """Against finite differences in double precision, along a random direction of all weights."""
    shape = ImageShape(1, 8, 8, 2)
    discriminator = networks(small(family), shape)[1].double().eval()
    for parameter in discriminator.parameters():  # no zeros left from the start, nor kinks at them
        parameter.data += 0.05 * torch.randn_like(parameter)
    images, condition = torch.randn(4, 1, 8, 8, dtype=torch.float64), {"label": torch.tensor([0, 1, 1, 0])}

    def penalty() -> torch.Tensor:
        seen = images.clone().requires_grad_()
        scores = discriminator(discriminator.embed(Sample(seen)), condition).heads[0].scores
        (slope,) = torch.autograd.grad(scores.sum(), seen, create_graph=True)
        return slope.square().sum()

    parameters = list(discriminator.parameters())
    slopes = torch.autograd.grad(penalty(), parameters, allow_unused=True)
    directions = [torch.randn_like(parameter) for parameter in parameters]
    expected = sum((d * s).sum() for d, s in zip(directions, slopes, strict=True) if s is not None)
    values, step = [], 1e-6
    for sign in (1, -2):
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.data += sign * step * direction
        values.append(penalty().detach())
    assert float((values[0] - values[1]) / (2 * step)) == pytest.approx(float(expected), rel=1e-4)


def test_option_of_another_family_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="group_size is an option of the family r3, not of dcgan; leave group_size out"):
        ImageConfig(family="dcgan", group_size=8)


# Resampling


def kernel() -> torch.Tensor:
    line = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    return line[:, None] * line / 16


def test_resampling_is_the_published_filter() -> None:
    images = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    weight = kernel().expand(3, 1, 3, 3)
    assert torch.allclose(common.downsample(images), F.conv2d(images, weight, stride=2, padding=1, groups=3))
    expected = F.conv_transpose2d(images, 4 * weight, stride=2, padding=1, output_padding=1, groups=3)
    assert torch.allclose(common.upsample(images), expected)


def test_downsampling_is_a_quarter_of_the_transpose_of_upsampling() -> None:
    small_images = torch.randn(1, 1, 4, 3, dtype=torch.float64)
    large_images = torch.randn(1, 1, 8, 6, dtype=torch.float64)
    forth = (common.upsample(small_images) * large_images).sum()
    back = (small_images * common.downsample(large_images)).sum()
    assert forth == pytest.approx(4 * back)


# r3

PUBLISHED = [
    # name, shape, options, generator and discriminator in millions of parameters
    ("StackedMNIST", ImageShape(3, 32, 32), {"width": 768, "doublings": 0}, 20.73, 20.68),
    ("CIFAR-10", ImageShape(3, 32, 32, 10), {"width": 768, "doublings": 0}, 20.78, 21.28),
    ("FFHQ-64", ImageShape(3, 64, 64), {"width": 384, "doublings": 1}, 22.43, 22.38),
    ("FFHQ-256", ImageShape(3, 256, 256), {"width": 96, "doublings": 3}, 23.06, 23.01),
    ("ImageNet-32", ImageShape(3, 32, 32, 1000), {"width": 1536, "doublings": 0, "group_size": 32}, 82.9, 86.6),
    ("ImageNet-64", ImageShape(3, 64, 64, 1000), {"width": 1536, "doublings": 0, "group_size": 32}, 103.6, 107.2),
]


@pytest.mark.parametrize(("name", "shape", "options", "of_generator", "of_discriminator"), PUBLISHED, ids=lambda v: str(v)[:20])
def test_r3_has_the_published_number_of_parameters(
    name: str, shape: ImageShape, options: dict[str, Any], of_generator: float, of_discriminator: float
) -> None:
    with torch.device("meta"):
        generator, discriminator = networks(ImageConfig(family="r3", noise_size=64, **options), shape)
    unit = 0.1 if of_generator > 50 else 0.01  # as many digits as were published
    assert size(generator) == pytest.approx(of_generator, abs=0.55 * unit)
    assert size(discriminator) == pytest.approx(of_discriminator, abs=0.55 * unit)


def test_r3_has_biases_in_activations_alone_and_no_normalisation() -> None:
    for network in networks(small("r3"), ImageShape(3, 32, 32, 2)):
        layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
        assert layers and all(layer.bias is None for layer in layers)
        assert not [m for m in network.modules() if "Norm" in type(m).__name__]


def test_r3_blocks_start_as_the_identity_and_keep_the_variance() -> None:
    shape = ImageShape(3, 32, 32)
    config = ImageConfig(family="r3", width=64, doublings=0, noise_size=64)
    generator, discriminator = networks(config, shape)
    blocks = [m for net in (generator, discriminator) for m in net.modules() if type(m).__name__ == "ResidualBlock"]
    hidden = torch.randn(2, 64, 4, 4)
    assert len(blocks) == 2 * 2 * 4 and all(torch.equal(block(hidden), hidden) for block in blocks)
    images = generator(torch.randn(16, 64), {}).values
    assert 0.2 < images.std() < 2
    gain = float(blocks[0].expand.weight.detach().std()) * 64**0.5
    assert gain == pytest.approx(common.RECTIFIED_GAIN * 8**-0.25, rel=0.05)


def test_r3_groups_have_the_size_asked_for_and_what_does_not_divide_is_refused() -> None:
    config = ImageConfig(family="r3", width=24, doublings=0, group_size=16)
    block = next(m for m in networks(config, ImageShape(1, 8, 8))[0].modules() if type(m).__name__ == "ResidualBlock")
    assert block.mix.groups == 3 and block.mix.weight.shape[1] == 16
    with pytest.raises(ConfigError, match=r"40 inner channels .* groups of 16; set options.width to a multiple of 8"):
        networks(ImageConfig(family="r3", width=20, doublings=0), ImageShape(1, 8, 8))


# resnet


def test_spectral_norm_holds_every_weight_of_the_discriminator_at_a_largest_singular_value_of_one() -> None:
    discriminator = networks(small("resnet", attention=8), ImageShape(3, 16, 16, 3))[1]
    layers = [m for m in discriminator.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear | torch.nn.Embedding)]
    assert len(layers) > 8
    images, label = torch.randn(4, 3, 16, 16), {"label": torch.tensor([0, 1, 2, 0])}
    for _ in range(30):
        discriminator(images, label)
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2) == pytest.approx(1.0, abs=0.02)


def test_power_iteration_follows_only_weights_that_are_being_trained() -> None:
    discriminator = networks(small("resnet"), ImageShape(1, 8, 8))[1]
    before = {name: value.clone() for name, value in discriminator.named_buffers()}
    images = torch.randn(2, 1, 8, 8, requires_grad=True)
    discriminator.requires_grad_(False)
    discriminator(images, {}).heads[0].scores.sum().backward()  # a generator's update
    discriminator.requires_grad_(True)
    with torch.no_grad():
        discriminator(images, {})
    discriminator.eval()(images, {})
    assert before and all(torch.equal(before[name], value) for name, value in discriminator.named_buffers())
    discriminator.train()(images, {})
    assert any(not torch.equal(before[name], value) for name, value in discriminator.named_buffers())


def test_spectral_norm_is_an_option_of_each_player() -> None:
    counts = {
        choice: [len([m for m in net.modules() if type(m).__name__ == "SpectralNorm"]) for net in pair]
        for choice in ("none", "discriminator", "both")
        for pair in [networks(small("resnet", spectral_norm=choice), ImageShape(1, 8, 8))]
    }
    assert counts["none"] == [0, 0] and counts["discriminator"][0] == 0
    assert counts["discriminator"][1] == counts["both"][1] > 0 and counts["both"][0] > 0


def test_self_attention_starts_as_nothing_and_then_reaches_across_the_image() -> None:
    layer = SelfAttention(8, normalized=False)
    hidden = torch.randn(1, 8, 8, 8)
    assert torch.equal(layer(hidden), hidden)
    torch.nn.init.ones_(layer.gain)
    changed = hidden.clone()
    changed[:, :, 0, 0] += 5
    assert not torch.allclose(layer(hidden)[:, :, 7, 7], layer(changed)[:, :, 7, 7])


def test_attention_at_a_side_that_no_resolution_has_is_refused_with_those_that_do() -> None:
    with pytest.raises(ConfigError, match=r"options.attention=10: .* 4, 8, 16, 32"):
        networks(small("resnet", attention=10), ImageShape(3, 32, 32))


# stylegan2


def styled(**more: Any) -> tuple[Any, Any]:
    return networks(small("stylegan2", **more), ImageShape(3, 16, 16, 3))


def test_modulated_convolution_is_a_convolution_with_each_samples_own_weights() -> None:
    layer = ModulatedConv(5, 4, 3, 6).double()
    hidden, style = torch.randn(2, 5, 8, 8).double(), torch.randn(2, 6).double()
    for index in range(2):
        weight = layer.weight * layer.scale * layer.affine(style)[index][None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        assert torch.allclose(layer(hidden, style)[index], F.conv2d(hidden[index : index + 1], weight, padding=1)[0])


def test_modulated_convolution_enlarges_as_the_published_filter_does() -> None:
    layer = ModulatedConv(2, 3, 3, 4, up=True, demodulate=False).double()
    hidden, style = torch.randn(1, 2, 5, 4).double(), torch.zeros(1, 4).double()  # a style of zeros scales by 1
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]).double()
    low_pass = (line[:, None] * line / line.sum() ** 2 * 4).expand(3, 1, 4, 4)
    wide = F.conv_transpose2d(hidden, (layer.weight * layer.scale).transpose(0, 1), stride=2)
    expected = F.conv2d(F.pad(wide, (1, 1, 1, 1)), low_pass, groups=3)
    assert layer(hidden, style).shape == (1, 3, 10, 8) and torch.allclose(layer(hidden, style), expected)


def test_equalised_weights_start_at_unit_variance_whatever_the_rate() -> None:
    layer = EqualLinear(400, 300, rate=0.01)
    hidden = torch.randn(200, 400)
    assert float(layer.weight.detach().std()) == pytest.approx(100, rel=0.02)
    assert float(layer(hidden).detach().std()) == pytest.approx(1.0, rel=0.05)


def test_truncation_zero_gives_each_class_its_mean_image_and_acts_only_in_sampling() -> None:
    generator = styled()[0]
    noise, condition = torch.randn(4, 8), {"label": torch.tensor([0, 1, 0, 1])}
    generator.truncation = 0.0
    images = generator.eval()(noise, condition).values
    assert torch.allclose(images[0], images[2], atol=1e-6) and not torch.allclose(images[0], images[1])
    generator.truncation = 1.0
    assert not torch.allclose(generator(noise, condition).values[0], images[0])


def test_settled_means_are_those_that_sampling_estimates_until_training_goes_on() -> None:
    generator = styled()[0]
    noise, condition = torch.randn(4, 8), {"label": torch.tensor([0, 1, 0, 1])}
    generator.follow(noise[::2], {"label": torch.tensor([0, 0])})  # class 1 is not followed
    generator.eval()
    latent = generator.latent(noise, condition)
    before = generator.mean_latent(latent, condition)
    generator.settle()
    assert torch.equal(generator.mean_latent(latent, condition), before) and torch.equal(generator.means[1], before[1])
    generator.train().follow(noise[1::2], {"label": torch.tensor([1, 1])})
    assert torch.allclose(generator.means[1], latent[1::2].mean(0), atol=1e-6)
    with torch.no_grad():
        generator.mapping.embedding.weight += 1
    generator.followed.zero_()
    assert not torch.allclose(generator.eval().mean_latent(latent, condition), before)


def test_style_mixing_changes_late_layers_of_the_asked_share_of_samples() -> None:
    generator = styled(style_mixing=0.5)[0]
    styles = generator.styles(torch.randn(400, 8), {"label": torch.zeros(400).long()})
    mixed = (styles[:, -1] != styles[:, 0]).any(1)
    assert 0.4 < mixed.float().mean() < 0.6
    assert styled(style_mixing=0.0)[0].styles(torch.randn(2, 8), {}).diff(dim=1).abs().max() == 0
    assert generator.eval().styles(torch.randn(2, 8), {}).diff(dim=1).abs().max() == 0


def test_path_lengths_are_the_slopes_of_a_linear_synthesis() -> None:
    """Where images are a matrix times the mean style, the slope's mean square over noise is known."""
    generator = styled(style_mixing=0.0)[0]
    matrix = torch.randn(8, 3 * 16 * 16)
    generator.synthesize = lambda styles: (styles.mean(1) @ matrix).reshape(-1, 3, 16, 16)
    noise, condition = torch.randn(3000, 8), {"label": torch.zeros(3000).long()}
    layers = len(generator.layers) + 1
    found = generator.path_lengths(noise, condition).detach().square().mean()
    assert float(found) == pytest.approx(float(matrix.square().sum()) / 256 / layers**2, rel=0.05)


def test_minibatch_deviation_sees_equal_samples_in_groups_of_consecutive_ones() -> None:
    varied = torch.randn(4, 2, 3, 3)
    hidden = torch.cat([varied[:1].expand(4, -1, -1, -1), varied])
    planes = group_deviation(hidden, 4)
    assert planes.shape == (8, 1, 3, 3) and planes[:4].max() < 1e-3
    assert torch.allclose(planes[4:], varied.std(0, correction=0).mean().expand(4, 1, 3, 3), atol=1e-4)
    assert torch.equal(group_deviation(hidden[4:], 4), planes[4:])  # so that a batch may be cut between groups


def test_a_batch_that_cuts_through_groups_is_refused_with_one_that_does_not(tmp_path: Path) -> None:
    chosen = [*overrides("stylegan2"), "train.batch_size=12", "train.accumulate=2"]
    with pytest.raises(ConfigError, match=r"the discriminator judges groups of 4 samples together.*set train.batch_size=8"):
        advgen.train("image", out=tmp_path / "run", overrides=chosen, steps=1, progress=False, device="cpu")


def test_batch_norm_is_refused_where_the_batch_is_cut(tmp_path: Path) -> None:
    chosen = ["options.generator_norm=batch", "train.batch_size=8", "train.accumulate=2"]
    with pytest.raises(ConfigError, match=r"the generator has BatchNorm.*train.accumulate=1"):
        advgen.train("image", out=tmp_path / "run", overrides=chosen, steps=1, progress=False, device="cpu")
