"""The causal transformer as critic, which may start as a copy of the generator. Legend: B batch, L tokens, E width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Head, Verdict

from ..backbone import Body, make_body
from ..generators.drawing import longest
from ..generators.transformer import TransformerWriter
from .base import Reader, Sight, visible


class TransformerCritic(Reader):
    """embeddings (B, L, E), each of norm 1 -> a logit a token (B, L), and one a sentence (B,) at its last token.

    Attention is written out (no fused kernel), so that it has a second derivative for penalties on every device.

    Source: initialised from the generator that likelihood trained, with a logit a token: Caccia et al. 2020 (Language GANs
    Falling Short), https://arxiv.org/abs/1811.02549
    """

    scale: Tensor

    def __init__(self, sight: Sight, body: Body) -> None:
        super().__init__(sight)
        self.body = make_body(body, dropout=0.0, attention="eager")
        self.token_score, self.sentence_score = nn.Linear(body.width, 1), nn.Linear(body.width, 1)
        # What unit-norm embeddings are multiplied with: the norm that a table of this width starts with.
        self.register_buffer("scale", torch.tensor(0.02 * body.width**0.5))
        nn.init.normal_(self.tokens.weight, std=0.02)

    @torch.no_grad()
    def take(self, generator: TransformerWriter) -> None:
        """Start as the generator: its body, its embeddings (their norms made equal, to the mean of them) and its classes."""
        self.body.load_state_dict(generator.body.state_dict())
        self.tokens.weight.copy_(generator.tokens.weight)
        self.scale.copy_(generator.tokens.weight.norm(dim=1).mean())
        if self.labels is not None and generator.labels is not None:
            self.labels.weight.copy_(generator.labels.weight)

    def inputs(self, seen: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """(B, L, E) of the norm that the generator's embeddings have, with the class added."""
        inputs = seen * self.scale
        if self.labels is not None and "label" in condition:
            inputs = inputs + self.labels(condition["label"]).unsqueeze(1)
        return inputs

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Two heads of equal weight: logits (B, L) under ``mask``, and (B,)."""
        text = visible(mask, condition, seen)
        width = longest(text)
        states = self._states(self.inputs(seen[:, :width], condition))
        by_token = F.pad(self.token_score(states).squeeze(2), (0, seen.shape[1] - width))
        places = torch.arange(width, device=seen.device)
        last = (text[:, :width] * places).amax(1)
        whole = self.sentence_score(states[torch.arange(len(states), device=seen.device), last]).squeeze(1)
        return Verdict((Head(by_token, mask, 0.5), Head(whole, None, 0.5)))

    def _states(self, inputs: Tensor) -> Tensor:
        """(B, L, E); a mask that is given, as the one that is left out is made for fused kernels."""
        length = inputs.shape[1]
        allowed = torch.full((length, length), torch.finfo(inputs.dtype).min, device=inputs.device, dtype=inputs.dtype).triu(1)
        where = torch.arange(length, device=inputs.device).unsqueeze(0)
        found = self.body(inputs_embeds=inputs, attention_mask=allowed[None, None], position_ids=where, use_cache=False)
        states: Tensor = found.last_hidden_state
        return states
