"""Network families: which generator and which discriminator ``options.family`` names."""

from __future__ import annotations

from advgen import Discriminator, Generator
from advgen_image.config import ImageConfig
from advgen_image.families.r3 import R3Discriminator, R3Generator
from advgen_image.families.resnet import ResnetDiscriminator, ResnetGenerator
from advgen_image.families.stylegan2 import StyleDiscriminator, StyleGenerator
from advgen_image.modulation import ModulatedGenerator
from advgen_image.networks import ImageDiscriminator, ImageGenerator, ImageShape

FAMILIES = {
    "r3": (R3Generator, R3Discriminator),
    "resnet": (ResnetGenerator, ResnetDiscriminator),
    "stylegan2": (StyleGenerator, StyleDiscriminator),
}


def make_generator(config: ImageConfig, shape: ImageShape, depth: int) -> Generator:
    """A freshly initialised generator of the configured family, for images of ``shape`` halved ``depth`` times."""
    if config.family in FAMILIES:
        return FAMILIES[config.family][0](config, shape, depth)
    kind = ModulatedGenerator if config.modulation else ImageGenerator
    return kind(
        shape,
        noise_size=config.noise_size,
        width=config.width,
        depth=depth,
        norm=config.generator_norm,
        normal_init=config.initialization == "normal",
        doublings=config.doublings,
    )


def make_discriminator(config: ImageConfig, shape: ImageShape, depth: int) -> Discriminator:
    """A freshly initialised discriminator of the configured family."""
    if config.family in FAMILIES:
        return FAMILIES[config.family][1](config, shape, depth)
    return ImageDiscriminator(
        shape,
        width=config.discriminator_width or config.width,
        depth=depth,
        norm=config.discriminator_norm,
        normal_init=config.initialization == "normal",
        doublings=config.doublings,
    )
