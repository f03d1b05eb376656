"""What each player of each adversarial loss pays, elementwise: pure functions of logits. The table of them: ``losses``.

Legend: B batch, positions: whatever a discriminator scores one by one (patches, frames, tokens). Costs are in nats
where a loss is a logarithm of a probability. Every cost is to be minimised by the player it is named for.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from advgen.errors import ContractError


def _same_shape(real: Tensor, fake: Tensor) -> None:
    if real.shape != fake.shape:
        raise ContractError(
            f"real logits of shape {tuple(real.shape)} meet fake logits of shape {tuple(fake.shape)}; "
            "expected the same (B, *positions): the discriminator must score as many positions of both"
        )


def below_one(logits: Tensor) -> Tensor:
    """How far a score falls short of the margin 1, at least 0."""
    return F.relu(1 - logits)


def above_minus_one(logits: Tensor) -> Tensor:
    """How far a score exceeds the margin -1, at least 0."""
    return F.relu(1 + logits)


def not_real(logits: Tensor) -> Tensor:
    """-log D of a logit, in nats: what it costs not to be taken for real."""
    return F.softplus(-logits)


def from_one(logits: Tensor) -> Tensor:
    """Half the squared distance of a score from 1."""
    return 0.5 * (logits - 1).square()


def from_zero(logits: Tensor) -> Tensor:
    """Half the squared distance of a score from 0."""
    return 0.5 * logits.square()


def logistic_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Cross-entropy of telling real from fake: -log D(real) - log(1 - D(fake)), D the sigmoid of the logit.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape.

    Returns:
        Cost per score, same shape, in nats, at least 0; 2 log 2 where both logits are 0.

    Source: Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661
    """
    _same_shape(real, fake)
    return not_real(real) + F.softplus(fake)


def minimax_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """log(1 - D(fake)): the zero-sum game, whose gradient vanishes where D is sure of a fake.

    Args:
        real: logits of real samples, shape (B, *positions); not used.
        fake: logits of generated samples, same shape.

    Returns:
        Cost per score, same shape, in nats, at most 0; -log 2 at logit 0.

    Source: Goodfellow et al. 2014, equation 1, https://arxiv.org/abs/1406.2661
    """
    _same_shape(real, fake)
    return -F.softplus(fake)


def nonsaturating_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """-log D(fake): keeps a gradient of about 1 where D is sure of a fake.

    Args:
        real: logits of real samples, shape (B, *positions); not used.
        fake: logits of generated samples, same shape.

    Returns:
        Cost per score, same shape, in nats, at least 0; log 2 at logit 0.

    Source: Goodfellow et al. 2014, section 3, https://arxiv.org/abs/1406.2661
    """
    _same_shape(real, fake)
    return not_real(fake)


def least_squares_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance of real scores from 1 and of fake scores from 0.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, at least 0; 1/2 where both scores are 0.

    Source: Mao et al. 2017 (LSGAN, a=0, b=c=1), https://arxiv.org/abs/1611.04076
    """
    _same_shape(real, fake)
    return from_one(real) + from_zero(fake)


def least_squares_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Half the squared distance of fake scores from 1.

    Args:
        real: scores of real samples, shape (B, *positions); not used.
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, at least 0; 1/2 at score 0.

    Source: Mao et al. 2017 (LSGAN, c=1), https://arxiv.org/abs/1611.04076
    """
    _same_shape(real, fake)
    return from_one(fake)


def hinge_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """How far real scores fall short of 1 and fake scores exceed -1.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, at least 0; 0 beyond the margins, 2 where both scores are 0.

    Source: Lim and Ye 2017 (Geometric GAN), https://arxiv.org/abs/1705.02894
    """
    _same_shape(real, fake)
    return below_one(real) + above_minus_one(fake)


def wasserstein_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Fake score minus real score; needs a discriminator held Lipschitz by a penalty.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, unbounded; 0 where the scores are equal.

    Source: Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875
    """
    _same_shape(real, fake)
    return fake - real


def negative_score_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Minus the fake score: the generator of the hinge and the Wasserstein losses.

    Args:
        real: scores of real samples, shape (B, *positions); not used.
        fake: scores of generated samples, same shape.

    Returns:
        Cost per score, same shape, unbounded; 0 at score 0.

    Source: Lim and Ye 2017, https://arxiv.org/abs/1705.02894; Arjovsky et al. 2017, https://arxiv.org/abs/1701.07875
    """
    _same_shape(real, fake)
    return -fake


def relativistic_discriminator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Penalise each fake that outscores the real sample it is paired with.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape; fake[i] is paired with real[i].

    Returns:
        Cost per score, same shape, in nats, at least 0; log 2 where a pair is tied.

    Source: Huang et al. 2024 (R3GAN), https://arxiv.org/abs/2501.05441
    """
    _same_shape(real, fake)
    return F.softplus(fake - real)


def relativistic_generator(*, real: Tensor, fake: Tensor) -> Tensor:
    """Penalise each fake that is outscored by the real sample it is paired with.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape; fake[i] is paired with real[i].

    Returns:
        Cost per score, same shape, in nats, at least 0; log 2 where a pair is tied.

    Source: Huang et al. 2024 (R3GAN), https://arxiv.org/abs/2501.05441
    """
    _same_shape(real, fake)
    return F.softplus(real - fake)


def _centred(real: Tensor, fake: Tensor, real_mean: Tensor | None, fake_mean: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each side's logits minus the opponent's mean over batch and positions."""
    _same_shape(real, fake)
    real_mean = real.mean() if real_mean is None else real_mean
    fake_mean = fake.mean() if fake_mean is None else fake_mean
    return real - fake_mean, fake - real_mean


def relativistic_average_discriminator(
    *, real: Tensor, fake: Tensor, real_mean: Tensor | None = None, fake_mean: Tensor | None = None
) -> Tensor:
    """Tell real scores from the average fake and fake scores from the average real.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape.
        real_mean: scalar mean of all real logits; that of ``real`` if left out.
        fake_mean: scalar mean of all fake logits; that of ``fake`` if left out.

    Returns:
        Cost per score, same shape, in nats, at least 0; 2 log 2 where all logits are equal.

    Source: Jolicoeur-Martineau 2018 (RaSGAN), https://arxiv.org/abs/1807.00734
    """
    real, fake = _centred(real, fake, real_mean, fake_mean)
    return not_real(real) + F.softplus(fake)


def relativistic_average_generator(
    *, real: Tensor, fake: Tensor, real_mean: Tensor | None = None, fake_mean: Tensor | None = None
) -> Tensor:
    """The relativistic average discriminator's cost with real and fake exchanged.

    Args:
        real: logits of real samples, shape (B, *positions).
        fake: logits of generated samples, same shape.
        real_mean: scalar mean of all real logits; that of ``real`` if left out.
        fake_mean: scalar mean of all fake logits; that of ``fake`` if left out.

    Returns:
        Cost per score, same shape, in nats, at least 0; 2 log 2 where all logits are equal.

    Source: Jolicoeur-Martineau 2018 (RaSGAN), https://arxiv.org/abs/1807.00734
    """
    real, fake = _centred(real, fake, real_mean, fake_mean)
    return F.softplus(real) + not_real(fake)


def relativistic_hinge_discriminator(
    *, real: Tensor, fake: Tensor, real_mean: Tensor | None = None, fake_mean: Tensor | None = None
) -> Tensor:
    """Hinge cost of real scores against the average fake and of fake scores against the average real.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.
        real_mean: scalar mean of all real scores; that of ``real`` if left out.
        fake_mean: scalar mean of all fake scores; that of ``fake`` if left out.

    Returns:
        Cost per score, same shape, at least 0; 2 where all scores are equal.

    Source: Jolicoeur-Martineau 2018 (RaHingeGAN), https://arxiv.org/abs/1807.00734
    """
    real, fake = _centred(real, fake, real_mean, fake_mean)
    return below_one(real) + above_minus_one(fake)


def relativistic_hinge_generator(
    *, real: Tensor, fake: Tensor, real_mean: Tensor | None = None, fake_mean: Tensor | None = None
) -> Tensor:
    """The relativistic hinge discriminator's cost with real and fake exchanged.

    Args:
        real: scores of real samples, shape (B, *positions).
        fake: scores of generated samples, same shape.
        real_mean: scalar mean of all real scores; that of ``real`` if left out.
        fake_mean: scalar mean of all fake scores; that of ``fake`` if left out.

    Returns:
        Cost per score, same shape, at least 0; 2 where all scores are equal.

    Source: Jolicoeur-Martineau 2018 (RaHingeGAN), https://arxiv.org/abs/1807.00734
    """
    real, fake = _centred(real, fake, real_mean, fake_mean)
    return above_minus_one(real) + below_one(fake)
