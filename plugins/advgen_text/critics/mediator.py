"""A language model in the discriminator's place. Legend: B batch, L tokens, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen import ConfigError, Discriminator, Head, Sample, Verdict

from ..generators import Writer


class Mediator(Discriminator):
    """tokens (B, L) -> the log-probability (B, L) of each, given those before it, and of every token in its place (B, L, V).

    With the loss ``cooperative`` it learns the mixture of data and samples by likelihood.

    Source: Lu et al. 2018 (CoT), https://arxiv.org/abs/1804.03782

    Args:
        model: the language model, any generator of the plugin.
    """

    has_slope = False

    def __init__(self, model: Writer) -> None:
        super().__init__()
        self.model = model

    def embed(self, sample: Sample) -> Tensor:
        """The token numbers as floats (B, L); a language model gives no gradient to what it reads."""
        if sample.relaxed is not None:
            raise ConfigError(
                "options.critic=mediator reads tokens, but estimator straight_through sends mixtures of them; use "
                "estimator.name=expectation or score_function"
            )
        return sample.values.to(self.model.bias.dtype)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """One head of log-probabilities (B, L) in nats, with all alternatives."""
        tokens = seen.long()
        every = F.log_softmax(self.model.score(tokens, condition), dim=-1)
        own = every.gather(2, tokens.unsqueeze(2)).squeeze(2)
        return Verdict((Head(own, mask, alternatives=every),))

    @torch.no_grad()
    def take(self, generator: Writer) -> None:
        """Start as the generator, where it is of the same kind and size."""
        theirs, own = generator.state_dict(), self.model.state_dict()
        if {name: value.shape for name, value in theirs.items()} == {name: value.shape for name, value in own.items()}:
            self.model.load_state_dict(theirs)
