"""The recurrent generator. Legend: B batch, L tokens, E embedding, H state."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Sizes, Writer

State = tuple[Tensor, Tensor]
_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class LstmWriter(Writer):
    """One LSTM layer; the output layer shares the token embeddings.

    Args:
        sizes: vocabulary, length, classes, dropout of inputs and outputs.
        embedding: width of token embeddings.
        hidden: width of the recurrent state.
    """

    def __init__(self, sizes: Sizes, *, embedding: int, hidden: int) -> None:
        super().__init__(sizes)
        self.tokens = nn.Embedding(sizes.vocabulary, embedding)
        self.labels = nn.Embedding(sizes.num_classes, embedding) if sizes.num_classes else None
        self.recurrent = nn.LSTM(embedding, hidden, batch_first=True)
        self.project = nn.Linear(hidden, embedding)
        self.bias = nn.Parameter(torch.zeros(sizes.vocabulary))
        nn.init.normal_(self.tokens.weight, std=embedding**-0.5)

    def start(self, num_samples: int) -> State:
        """Zeros."""
        zeros = self.bias.new_zeros(num_samples, self.recurrent.hidden_size)
        return zeros, zeros

    def step(self, inputs: Tensor, state: State, place: int) -> tuple[Tensor, State]:
        """One step of the same LSTM that reads whole sentences in ``read``."""
        hidden, memory = torch.lstm_cell(inputs, state, *(self.recurrent.get_parameter(name) for name in _WEIGHTS))
        return hidden, (hidden, memory)

    def read(self, inputs: Tensor, dropout: float) -> Tensor:
        """All places in one call."""
        states: Tensor = self.recurrent(F.dropout(inputs, dropout))[0]
        return states

    def keep(self, state: State, rows: Tensor) -> State:
        """Hidden state and memory of some rows."""
        return state[0][rows], state[1][rows]

    def features(self, states: Tensor) -> Tensor:
        """(..., H) -> (..., E)."""
        projected: Tensor = self.project(states)
        return projected
