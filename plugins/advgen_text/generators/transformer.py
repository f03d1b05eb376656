"""The causal transformer as generator, with a decode loop over keys and values of its own.

Legend: B batch, L tokens, E width, A heads, D width of a head.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..backbone import Body, cache_argument, load_pretrained, make_body
from ..tokenizer import BOS, EOS, SPECIALS
from .base import Sizes, Writer
from .drawing import keeps_shapes


class KeyValues:
    """Keys and values of all layers: what the transformer asks for as its cache.

    Without gradients they stand in tensors of full length (B, A, L, D) that are made once and written in place, so shapes
    never change and nothing is copied. Under gradients the graph needs each step's own, so they are joined.
    """

    def __init__(self, length: int) -> None:
        self.length, self.place = length, 0
        self.grows = torch.is_grad_enabled()
        self._layers: list[tuple[Tensor, Tensor]] = []

    def update(self, keys: Tensor, values: Tensor, layer: int, *args: object, **more: object) -> tuple[Tensor, Tensor]:
        """Take one place's (B, A, 1, D) of a layer; all that the layer has so far."""
        is_new = layer == len(self._layers)
        if self.grows:
            new = (keys, values)
            if not is_new:
                new = tuple(torch.cat(pair, dim=2) for pair in zip(self._layers[layer], new, strict=True))  # type: ignore[assignment]
                self._layers[layer] = new
        elif is_new:
            # Zeros: a masked place's value is multiplied by 0, which must not meet what is no number.
            new = tuple(x.new_zeros(*x.shape[:2], self.length, x.shape[3]) for x in (keys, values))  # type: ignore[assignment]
        if is_new:
            self._layers.append(new)
        held = self._layers[layer]
        if not self.grows:
            held[0][:, :, self.place] = keys[:, :, 0]
            held[1][:, :, self.place] = values[:, :, 0]
        return held

    def mask(self, device: torch.device) -> Tensor:
        """(1, 1, 1, K) bool: which of the places that ``update`` returns are there."""
        if self.grows:
            return torch.ones(1, 1, 1, self.place + 1, dtype=torch.bool, device=device)
        return (torch.arange(self.length, device=device) <= self.place).view(1, 1, 1, -1)

    def kept(self, rows: Tensor) -> KeyValues:
        """Those of some rows of the batch."""
        other = KeyValues(self.length)
        other.place, other.grows = self.place, self.grows
        other._layers = [(keys[rows], values[rows]) for keys, values in self._layers]
        return other


class TransformerWriter(Writer):
    """A GPT-2 or Llama; a class is a learned vector on every input.

    Args:
        sizes: vocabulary, length, classes, dropout.
        body: its kind and sizes.
        untied: whether the output layer has a table of its own, as some pretrained models.

    Source: Radford et al. 2019 (GPT-2); Touvron et al. 2023 (Llama), https://arxiv.org/abs/2302.13971
    """

    # Dropping rows copies their keys and values.
    compact_below = 0.5

    def __init__(self, sizes: Sizes, body: Body, *, untied: bool = False) -> None:
        super().__init__(sizes)
        self.tokens = nn.Embedding(sizes.vocabulary, body.width)
        self.labels = nn.Embedding(sizes.num_classes, body.width) if sizes.num_classes else None
        self.body = make_body(body, dropout=sizes.dropout, attention="sdpa")
        self._cache = cache_argument(self.body)
        self.output = nn.Linear(body.width, sizes.vocabulary, bias=False) if untied else None
        self.bias = nn.Parameter(torch.zeros(sizes.vocabulary))
        for table in (self.tokens, self.labels, self.output):
            if table is not None:
                nn.init.normal_(table.weight, std=0.02)

    @torch.no_grad()
    def take_pretrained(self, folder: Path, end: int) -> None:
        """Start from a local folder's weights; the four special tokens stand before its own, and start as its token ``end``."""
        inputs, outputs = load_pretrained(folder, self.body)
        first = len(SPECIALS)
        pairs = [(self.tokens.weight, inputs)] + ([] if self.output is None else [(self.output.weight, outputs)])
        for table, given in pairs:
            shared = min(len(table) - first, len(given))
            table[first : first + shared] = given[:shared]
            table[[BOS, EOS]] = given[end]

    @property
    def output_table(self) -> Tensor:
        """Shared with the inputs, unless ``untied``."""
        return self.tokens.weight if self.output is None else self.output.weight

    def start(self, num_samples: int) -> KeyValues:
        """No keys and no values."""
        return KeyValues(self.length)

    def step(self, inputs: Tensor, state: KeyValues, place: int) -> tuple[Tensor, KeyValues]:
        """One place, against the keys and values of those before it."""
        self._set_dropout(0.0)
        state.place = place
        where = torch.full((1, 1), place, device=inputs.device)
        found = self.body(
            inputs_embeds=inputs.unsqueeze(1),
            attention_mask=state.mask(inputs.device),
            position_ids=where,
            use_cache=True,
            **{self._cache: state},
        )
        return found.last_hidden_state[:, 0], state

    def read(self, inputs: Tensor, dropout: float) -> Tensor:
        """All places in one pass; padding stands behind, where causal attention does not look."""
        self._set_dropout(dropout)
        length, device = inputs.shape[1], inputs.device
        where = torch.arange(length, device=device).unsqueeze(0)
        # Without a mask the package asks whether the places are of one sentence, for which a GPU would wait.
        causal = None
        if keeps_shapes(inputs):
            causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
        found = self.body(inputs_embeds=inputs, position_ids=where, attention_mask=causal, use_cache=False)
        states: Tensor = found.last_hidden_state
        return states

    def keep(self, state: KeyValues, rows: Tensor) -> KeyValues:
        """Keys and values of some rows."""
        return state.kept(rows)

    def features(self, states: Tensor) -> Tensor:
        """The states themselves, which the last norm has scaled."""
        return states

    def _set_dropout(self, dropout: float) -> None:
        """Its layers drop in likelihood training alone: samples and rewards are of the whole network."""
        if self.body.training != (dropout > 0):
            self.body.train(dropout > 0)
