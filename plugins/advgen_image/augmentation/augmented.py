"""A discriminator that sees augmented images, and the controller of how many. Legend: B batch.

Source: Karras et al. 2020 (ADA), https://arxiv.org/abs/2006.06676
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from advgen import Discriminator, Sample, Verdict
from advgen_image.config import ImageConfig

ADJUST_EVERY = 4


class AugmentedDiscriminator(Discriminator):
    """images (B, C, H, W), label -> the critic's verdict on augmented images; in evaluation mode on the images themselves.

    Penalties differentiate the images before augmentation. The controller's state is in buffers, so in every checkpoint.
    """

    probability: Tensor
    signs: Tensor
    seen: Tensor
    updates: Tensor

    def __init__(self, critic: Discriminator, augment: nn.Module, config: ImageConfig) -> None:
        super().__init__()
        self.critic, self.augment, self.batch_group = critic, augment, critic.batch_group
        self.adaptive = config.augment == "ada" and config.augment_probability is None
        self.target, self.images = config.ada_target, float(config.ada_images)
        fixed = 1.0 if config.augment_probability is None else config.augment_probability
        self.register_buffer("probability", torch.tensor(0.0 if self.adaptive else fixed))
        self.register_buffer("signs", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def embed(self, sample: Sample) -> Tensor:
        """What the critic sees, before augmentation."""
        return self.critic.embed(sample)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Augment, also under autocast in the images' own precision, as geometry does not bear less; then judge."""
        if self.training:
            with torch.autocast(seen.device.type, enabled=False):
                seen = self.augment(seen, self.probability * self.augmentation_scale)
        verdict: Verdict = self.critic(seen, condition, mask)
        return verdict

    @torch.no_grad()
    def adapt(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Raise the probability where D is too sure of real images, lower it otherwise; every fourth update, within [0, 1].

        Sure is a score above the middle between both sides' means: 0 where scores are balanced, as published, and right too
        for relativistic losses, which leave the scores' level free. Everything stays on the device.
        """
        if self.adaptive:
            middle = (real.mean() + fake.mean()) / 2
            self.signs += (real - middle).sign().nan_to_num().sum()  # NaN scores are from an update that is not applied
            self.seen += len(real)
            self.updates += 1
            due = self.updates % ADJUST_EVERY == 0
            step = (self.signs / self.seen - self.target).sign() * self.seen / self.images
            self.probability.copy_(torch.where(due, self.probability + step, self.probability).clamp(0.0, 1.0))
            self.signs.copy_(torch.where(due, 0.0, self.signs))
            self.seen.copy_(torch.where(due, 0.0, self.seen))
        return {"augmentation": self.probability * self.augmentation_scale}
