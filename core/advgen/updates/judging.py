"""What D makes of real and of generated samples: in one pass where it judges each sample alone, and its slope there.

Legend: B samples of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from advgen.contracts import Discriminator, Sample, Verdict, check_verdict
from advgen.reduction import reduce_verdict

Pair = tuple[Tensor, Tensor]
"""What D sees of real and of generated samples, (B, ...) each."""


@dataclass(frozen=True)
class Side:
    """What D saw of real or of generated samples.

    Args:
        seen: (B, ...).
        mask: (B, *positions) bool, or None.
        verdict: what the loss has already made of it, in full precision; None where it must be made again.
        gradient: a call that takes the summed scores' gradient at ``seen``, (B, ...), with its graph, from a pass of both
            sides; None where no such pass was made.
    """

    seen: Tensor
    mask: Tensor | None
    verdict: Verdict | None = None
    gradient: Callable[[], Tensor | None] | None = None

    def forgotten(self) -> Side:
        """Without what is known of it."""
        return replace(self, verdict=None, gradient=None)


@dataclass(frozen=True)
class Judge:
    """D as a function of what it sees, with condition and mask of one side filled in; for penalties.

    What the loss already has of that very tensor is not computed again.
    """

    critic: Discriminator
    condition: Mapping[str, Tensor]
    side: Side

    def __call__(self, seen: Tensor) -> Verdict:
        if self.side.verdict is not None and seen is self.side.seen:
            return self.side.verdict
        return judge(self.critic, seen, self.condition, self.side.mask)

    def known_gradient(self, seen: Tensor) -> Tensor | None:
        """The summed scores' gradient at ``seen``, where a pass of both sides gives it."""
        if self.side.gradient is None or seen is not self.side.seen:
            return None
        return self.side.gradient()


class _Slope:
    """The gradient of summed scores at both sides' samples, (2B, ...), taken once, when it is first asked for."""

    def __init__(self, seen: Tensor, verdict: Verdict) -> None:
        self.seen, self.verdict = seen, verdict
        self.gradient: Tensor | None = None

    def __call__(self) -> Tensor | None:
        if self.gradient is None:
            with torch.enable_grad():
                scores = reduce_verdict(self.verdict).sum()
                (self.gradient,) = torch.autograd.grad(scores, self.seen, create_graph=True, allow_unused=True)
        return self.gradient

    def rows(self, start: int, stop: int) -> Callable[[], Tensor | None]:
        """A call for the gradient at some of the samples."""

        def some() -> Tensor | None:
            whole = self()
            return None if whole is None else whole[start:stop]

        return some


def judge(critic: Discriminator, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None) -> Verdict:
    """D's verdict, checked."""
    return check_verdict(critic(seen, condition, mask), seen.shape[0], f"discriminator {type(critic).__name__}")


def judge_sample(critic: Discriminator, sample: Sample, condition: Mapping[str, Tensor]) -> Verdict:
    """D's verdict on samples, by what it sees of them."""
    return judge(critic, critic.embed(sample), condition, sample.mask)


def mixes_samples(critic: nn.Module) -> bool:
    """Whether a verdict depends on more than its sample and ``batch_group``: then real and generated samples stay apart."""
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training for layer in critic.modules())


def judge_both(critic: Discriminator, real: Side, fake: Side, condition: Mapping[str, Tensor]) -> tuple[Side, Side]:
    """Both sides with their verdicts, from one pass of D over 2B samples; from two where their shapes differ."""
    if not _alike(real.seen, fake.seen) or not _alike(real.mask, fake.mask):
        return judge_apart(critic, real, fake, condition)
    size, seen = len(real.seen), torch.cat([real.seen, fake.seen])
    mask = None if real.mask is None or fake.mask is None else torch.cat([real.mask, fake.mask])
    verdict = judge(critic, seen, {name: torch.cat([value, value]) for name, value in condition.items()}, mask)
    slope = _Slope(seen, verdict) if seen.requires_grad else None
    ends = ((real, 0, size), (fake, size, 2 * size))
    one, other = (
        replace(side, verdict=verdict.slice(start, stop), gradient=None if slope is None else slope.rows(start, stop))
        for side, start, stop in ends
    )
    return one, other


def judge_apart(critic: Discriminator, real: Side, fake: Side, condition: Mapping[str, Tensor]) -> tuple[Side, Side]:
    """Both sides with their verdicts, each from a pass of its own."""
    one, other = (replace(side, verdict=judge(critic, side.seen, condition, side.mask)) for side in (real, fake))
    return one, other


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and one.dtype == other.dtype
