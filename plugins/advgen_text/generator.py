"""The generator: an LSTM that writes a token at a time.

Legend: B batch, L tokens, V vocabulary, E embedding, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Generator, GenError, Mode, Sample, gumbel, straight_through

from .tokenizer import BOS, EOS, PAD, UNKNOWN

# Finite, so that probability zero times its logarithm is zero and not NaN.
NEVER = -1e9


class TextGenerator(Generator):
    """noise (B, L) or (B, L, V) in [0, 1) -> tokens (B, L) int64, <pad> after <eos>.

    Args:
        vocabulary: number of tokens, special ones included.
        length: most tokens a sample.
        embedding: width of token embeddings; the output layer shares them.
        hidden: width of the recurrent state.
        num_classes: 0 for unconditional.
        dropout: share of inputs and outputs dropped in likelihood training.
    """

    never: Tensor

    def __init__(
        self, vocabulary: int, length: int, *, embedding: int, hidden: int, num_classes: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.vocabulary, self.length, self.dropout = vocabulary, length, dropout
        self.tokens = nn.Embedding(vocabulary, embedding)
        self.labels = nn.Embedding(num_classes, embedding) if num_classes else None
        self.recurrent = nn.LSTM(embedding, hidden, batch_first=True)
        self.project = nn.Linear(hidden, embedding)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        never = torch.zeros(2, vocabulary)
        never[:, [PAD, BOS]] = NEVER
        never[1, UNKNOWN] = NEVER
        self.register_buffer("never", never, persistent=False)
        nn.init.normal_(self.tokens.weight, std=embedding**-0.5)

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw samples; row i depends on ``noise[i]`` and ``condition[i]`` alone.

        Args:
            noise: uniforms in [0, 1): (B, L), or (B, L, V) for ``mode="relaxed"``.
            condition: ``label`` (B,) int64, or nothing.
            mode: "relaxed" adds one-hot tokens with a soft gradient, "log_prob" the log-probability of each draw.
            temperature: of the softmax; above 1 flattens.
        """
        self._check(noise, mode)
        if mode == "relaxed":
            return self._relaxed(noise, condition, temperature)
        with torch.no_grad():
            values = self._draw(noise, condition, temperature)
        mask = content_mask(values)
        if mode == "values":
            return Sample(values, mask=mask)
        log_prob, entropy = self._judge_draws(values, condition, mask, temperature)
        return Sample(values, log_prob=log_prob, entropy=entropy, mask=mask)

    def log_probs(self, tokens: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Teacher-forced log-probabilities (B, L, V) of the token at each place, given those before it.

        Args:
            tokens: (B, L) int64; may hold <unk>, which data has and sampling never draws.
            condition: as in ``forward``.
        """
        return F.log_softmax(self._logits(self._read(tokens, condition, 0.0), 1.0, False), dim=-1)

    def token_costs(self, tokens: Tensor, condition: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Negative log-likelihood (B, L) in nats of each token under ``mask`` (B, L) bool; 0 elsewhere."""
        take, place = _content(mask)
        states = self._read(tokens[:, : longest(mask)], condition, self.dropout if self.training else 0.0)
        states = F.dropout(take(states), self.dropout, self.training)
        costs = F.cross_entropy(self._logits(states, 1.0, False), take(tokens), reduction="none")
        return place(costs)

    def _judge_draws(
        self, values: Tensor, condition: Mapping[str, Tensor], mask: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy (B, L) of draws, with their graphs."""
        take, place = _content(mask)
        states = self._read(values[:, : longest(mask)], condition, 0.0)
        rows = F.log_softmax(self._logits(take(states), temperature, True), dim=-1)
        log_prob = rows.gather(1, take(values).unsqueeze(1)).squeeze(1)
        return place(log_prob), place(-(rows.exp() * rows).sum(1))

    def _check(self, noise: Tensor, mode: Mode) -> None:
        expected = (self.length, self.vocabulary) if mode == "relaxed" else (self.length,)
        if tuple(noise.shape[1:]) != expected:
            raise GenError(
                f"text generator got noise of shape {tuple(noise.shape)} for mode {mode!r}, expected (B, {expected})"
            )

    def _label(self, condition: Mapping[str, Tensor], num_samples: int) -> Tensor:
        if self.labels is None or "label" not in condition:
            return self.bias.new_zeros(num_samples, self.tokens.embedding_dim)
        labels: Tensor = self.labels(condition["label"])
        return labels

    def _read(self, tokens: Tensor, condition: Mapping[str, Tensor], dropout: float) -> Tensor:
        """Teacher-forced states (B, L, H): at each place, what was read before it."""
        before = F.pad(tokens[:, :-1], (1, 0), value=BOS)
        inputs = self.tokens(before) + self._label(condition, tokens.shape[0]).unsqueeze(1)
        states: Tensor = self.recurrent(F.dropout(inputs, dropout))[0]
        return states

    def _logits(self, states: Tensor, temperature: float, drawn: bool) -> Tensor:
        """Logits (..., V); tokens that cannot come have NEVER added. ``drawn`` forbids <unk> as sampling does."""
        states, bias = self.project(states), self.bias + self.never[int(drawn)]
        if temperature != 1.0:
            states, bias = states / temperature, bias / temperature
        logits = F.linear(states, self.tokens.weight, bias)
        # A half-precision sum over a large vocabulary loses small probabilities.
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def _step(self, inputs: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step of the same LSTM that reads whole sentences in ``_read``."""
        cell = self.recurrent
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        hidden, memory = torch.lstm_cell(inputs, state, *(cell.get_parameter(name) for name in names))
        return hidden, memory

    def _start(self, num_samples: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        zeros = self.bias.new_zeros(num_samples, self.recurrent.hidden_size)
        return (zeros, zeros), self.tokens.weight[BOS].expand(num_samples, -1)

    def _draw(self, noise: Tensor, condition: Mapping[str, Tensor], temperature: float) -> Tensor:
        state, inputs = self._start(noise.shape[0])
        label = self._label(condition, noise.shape[0])
        values = torch.full(noise.shape, PAD, dtype=torch.int64, device=noise.device)
        rows = torch.arange(noise.shape[0], device=noise.device)
        going = torch.ones_like(rows, dtype=torch.bool)
        for place in range(self.length):
            state = self._step(inputs + label, state)
            token = inverse_draw(self._logits(state[0], temperature, True), noise[rows, place])
            values[rows, place] = torch.where(going, token, PAD)
            going = going & (token != EOS)
            # Asking a GPU which have ended costs more than the rows it saves.
            if not values.is_cuda and not going.all():
                rows, token, label, state = rows[going], token[going], label[going], (state[0][going], state[1][going])
                going = going[going]
                if not len(rows):
                    break
            inputs = self.tokens(token)
        return values

    def _relaxed(self, noise: Tensor, condition: Mapping[str, Tensor], temperature: float) -> Sample:
        state, inputs = self._start(noise.shape[0])
        label = self._label(condition, noise.shape[0])
        ended = torch.zeros(noise.shape[0], dtype=torch.bool, device=noise.device)
        padding = F.one_hot(torch.tensor(PAD, device=noise.device), self.vocabulary).to(self.bias.dtype)
        rows, values = [], []
        for place in range(self.length):
            state = self._step(inputs + label, state)
            logits = self._logits(state[0], 1.0, True)
            drawn = logits + gumbel(noise[:, place].to(logits.dtype))
            row = straight_through(drawn, drawn.argmax(1), temperature)
            row = torch.where(ended.unsqueeze(1), padding, row)
            token = row.detach().argmax(1)
            inputs = row @ self.tokens.weight
            ended = ended | (token == EOS)
            rows.append(row)
            values.append(token)
        tokens = torch.stack(values, dim=1)
        return Sample(tokens, relaxed=torch.stack(rows, dim=1), mask=content_mask(tokens))


def content_mask(tokens: Tensor) -> Tensor:
    """(B, L) bool: True up to and including <eos>."""
    return tokens != PAD


def longest(mask: Tensor) -> int:
    """Places up to the end of the longest sample, at least 1: none behind need be computed.

    Asking a GPU would wait for it, so there it is all of them.
    """
    return mask.shape[1] if mask.is_cuda else max(1, int(mask.sum(1).max()))


def _content(mask: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """How to take the places that count out of (B, L, ...) as rows, and to put values (N,) back with 0 elsewhere.

    The output layer over a large vocabulary is most of the cost, and half of a batch may be padding. On a GPU counting
    the places would wait for the device, so there every place is a row.
    """
    if mask.is_cuda:
        return lambda x: x.flatten(0, 1), lambda values: values.view(mask.shape).masked_fill(~mask, 0)
    return lambda x: x[mask[:, : x.shape[1]]], lambda values: values.new_zeros(mask.shape).masked_scatter(mask, values)


def inverse_draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token (B,) whose stretch of the cumulative distribution holds ``uniform`` (B,) in [0, 1)."""
    cumulative = F.softmax(logits, dim=-1).cumsum(dim=-1)
    point = uniform.to(cumulative.dtype).unsqueeze(1) * cumulative[:, -1:]
    # Rounding may put the point on the last edge; the last token with any probability is then meant.
    last = (cumulative < cumulative[:, -1:]).sum(1)
    return torch.minimum(torch.searchsorted(cumulative, point, right=True).squeeze(1), last)
