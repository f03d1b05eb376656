"""The relational memory generator. Legend: B batch, L tokens, E embedding, S slots, F width of a slot."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Sizes, Writer


class RelationalMemory(nn.Module):
    """inputs (B, E), memory (B, S, F) -> memory (B, S, F): slots attend to each other and to the input, then are gated.

    With x the input as a slot, M the memory, and F = heads * head size:

        A = layer_norm(M + attention(queries of M; keys and values of [M; x]))
        C = layer_norm(A + two linear layers with ReLU between of A)
        i, f = sigmoid(U x + W tanh(M) + (0, 1)), a gate for every unit
        M' = i * tanh(C) + f * M

    Queries, keys and values come from one linear layer and are layer-normalised. The first memory is the identity matrix,
    padded or cut to (S, F), so that slots differ.

    Source: Santoro et al. 2018, https://arxiv.org/abs/1806.01822; as generator of text: Nie et al. 2019 (RelGAN),
    https://openreview.net/forum?id=rJedV3R5tm, with 1 slot, 2 heads of 256 and an embedding of 32
    """

    def __init__(self, embedding: int, *, slots: int, heads: int, head_size: int) -> None:
        super().__init__()
        width = heads * head_size
        self.slots, self.heads, self.width = slots, heads, width
        self.enter = nn.Linear(embedding, width)
        self.attend = nn.Linear(width, 3 * width)
        self.attend_norm = nn.LayerNorm(3 * width)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.input_gates = nn.Linear(width, 2 * width)
        self.memory_gates = nn.Linear(width, 2 * width)
        with torch.no_grad():
            self.memory_gates.bias.copy_(torch.cat([torch.zeros(width), torch.ones(width)]))

    def forward(self, inputs: Tensor, memory: Tensor) -> Tensor:
        """One step."""
        entered = self.enter(inputs).unsqueeze(1)
        attended = self.norms[0](memory + self._attention(memory, entered))
        candidate = self.norms[1](attended + self.mix(attended))
        gates = self.input_gates(entered) + self.memory_gates(memory.tanh())
        write, stay = gates.sigmoid().chunk(2, dim=2)
        moved: Tensor = write * candidate.tanh() + stay * memory
        return moved

    def _attention(self, memory: Tensor, entered: Tensor) -> Tensor:
        """Heads side by side, (B, S, F)."""
        together = self.attend_norm(self.attend(torch.cat([memory, entered], dim=1)))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in together.chunk(3, dim=2))
        attended = F.scaled_dot_product_attention(query[:, :, : self.slots], key, value)
        return attended.transpose(1, 2).flatten(2)


class RelationalWriter(Writer):
    """A relational memory that reads a token at a time.

    Args:
        sizes: vocabulary, length, classes, dropout of inputs and outputs.
        embedding: width of token embeddings.
        slots, heads, head_size: of the memory.
    """

    def __init__(self, sizes: Sizes, *, embedding: int, slots: int, heads: int, head_size: int) -> None:
        super().__init__(sizes)
        self.tokens = nn.Embedding(sizes.vocabulary, embedding)
        self.labels = nn.Embedding(sizes.num_classes, embedding) if sizes.num_classes else None
        self.memory = RelationalMemory(embedding, slots=slots, heads=heads, head_size=head_size)
        self.output = nn.Linear(slots * heads * head_size, sizes.vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(sizes.vocabulary))
        nn.init.normal_(self.tokens.weight, std=embedding**-0.5)

    @property
    def output_table(self) -> Tensor:
        """(V, S * F): the published output layer has weights of its own."""
        return self.output.weight

    def start(self, num_samples: int) -> Tensor:
        """(B, S, F) the identity, padded or cut."""
        memory = self.memory
        first = torch.eye(memory.slots, memory.width, dtype=self.bias.dtype, device=self.bias.device)
        return first.expand(num_samples, -1, -1)

    def step(self, inputs: Tensor, state: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """One step of the memory."""
        moved = self.memory(inputs, state)
        return moved.flatten(1), moved

    def read(self, inputs: Tensor, dropout: float) -> Tensor:
        """Place after place: a memory has no shorter way."""
        inputs, state, states = F.dropout(inputs, dropout), self.start(len(inputs)), list[Tensor]()
        for place in range(inputs.shape[1]):
            seen, state = self.step(inputs[:, place], state, place)
            states.append(seen)
        return torch.stack(states, dim=1)

    def keep(self, state: Tensor, rows: Tensor) -> Tensor:
        """The memory of some rows."""
        return state[rows]

    def features(self, states: Tensor) -> Tensor:
        """The memory itself."""
        return states
