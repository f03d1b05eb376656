"""Augmentation inside the discriminator: real and generated images alike, differentiable twice, on their own device."""

from __future__ import annotations

from advgen import Discriminator
from advgen_image.augmentation.ada import AdaptiveAugmentation
from advgen_image.augmentation.augmented import AugmentedDiscriminator
from advgen_image.augmentation.diffaugment import DiffAugment
from advgen_image.config import ImageConfig


def augmented(critic: Discriminator, config: ImageConfig) -> Discriminator:
    """The critic behind the augmentation that ``options.augment`` names; itself without one."""
    if config.augment == "none":
        return critic
    operations = config.operations()
    augment = DiffAugment(operations) if config.augment == "diffaugment" else AdaptiveAugmentation(operations)
    return AugmentedDiscriminator(critic, augment, config)
