"""What all generators of text share: the loop that writes a token at a time, and the same in one pass over given tokens.

Legend: B batch, L tokens, P tokens of a prompt, V vocabulary, E embedding, H state.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advgen import Generator, GenError, Mode, Sample, gumbel, straight_through

from ..tokenizer import BOS, EOS, PAD, UNKNOWN
from .drawing import NEVER, Choose, being_recorded, content, content_mask, keeps_shapes, longest, plain

# On a GPU, whether all sentences have ended is asked once in so many tokens: each answer waits for the device.
ASK_EVERY = 32

CACHED = 1 << 17
"""Numbers that a CPU's cache holds."""


@dataclass(frozen=True)
class Sizes:
    """What every generator of text must know.

    Args:
        vocabulary: number of tokens, special ones included.
        length: most tokens a sample.
        num_classes: 0 for unconditional.
        dropout: in likelihood training only.
    """

    vocabulary: int
    length: int
    num_classes: int = 0
    dropout: float = 0.0


@dataclass
class Rows:
    """The sentences that are still being written: their row in the batch, label, state, and token before."""

    place: Tensor
    label: Tensor
    state: Any
    token: Tensor


class Writer(Generator):
    """noise (B, L) or (B, L, V) in [0, 1) -> tokens (B, L) int64, <pad> after <eos>.

    A sub-class brings ``tokens`` (an ``nn.Embedding``), ``bias`` (V,), ``labels`` and the five methods that raise here; the
    two ways of reading, ``step`` by ``step`` and ``read`` in one pass, must agree.
    """

    tokens: nn.Embedding
    bias: nn.Parameter
    labels: nn.Embedding | None
    never: Tensor

    compact_below: float = 1.0
    """Sentences that have ended are dropped from the batch once at most this share goes on."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, self.vocabulary, self.length, self.dropout = sizes, sizes.vocabulary, sizes.length, sizes.dropout
        never = torch.zeros(2, sizes.vocabulary)
        never[:, [PAD, BOS]] = NEVER
        never[1, UNKNOWN] = NEVER
        self.register_buffer("never", never, persistent=False)

    @abstractmethod
    def start(self, num_samples: int) -> Any:
        """The state before the first token."""

    @abstractmethod
    def step(self, inputs: Tensor, state: Any, place: int) -> tuple[Tensor, Any]:
        """Inputs (B, E) at one place -> states (B, H), and the state behind it."""

    @abstractmethod
    def read(self, inputs: Tensor, dropout: float) -> Tensor:
        """Inputs (B, L, E) -> states (B, L, H), each from the inputs up to it."""

    @abstractmethod
    def keep(self, state: Any, rows: Tensor) -> Any:
        """The state of some rows, by index or by mask."""

    @abstractmethod
    def features(self, states: Tensor) -> Tensor:
        """States (..., H) -> (..., E), what the output layer multiplies with its table."""

    @property
    def output_table(self) -> Tensor:
        """The output layer's table (V, E): that of the inputs, unless a pretrained model has its own."""
        return self.tokens.weight

    # Writing

    def forward(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, mode: Mode = "values", temperature: float = 1.0
    ) -> Sample:
        """Draw samples; row i depends on ``noise[i]`` and ``condition[i]`` alone.

        Args:
            noise: uniforms in [0, 1): (B, L), or (B, L, V) for ``mode="relaxed"``.
            condition: ``label`` (B,) int64 and ``prompt`` (B, P) int64 with <pad> behind, or neither. A prompt is the start of
                each sample; the mask is False there.
            mode: "relaxed" adds one-hot tokens with a soft gradient, "log_prob" the log-probability of each draw.
            temperature: of the softmax; above 1 flattens.
        """
        self._check(noise, condition, mode)
        if mode == "relaxed":
            return self._relaxed(noise, condition, temperature)
        values = self.draw(noise, condition, temperature=temperature)
        mask = drawn_mask(values, condition)
        if mode == "values":
            return Sample(values, mask=mask)
        log_prob, entropy = self._judge_draws(values, condition, mask, temperature)
        return Sample(values, log_prob=log_prob, entropy=entropy, mask=mask)

    def continue_from(
        self,
        prefix: Tensor,
        noise: Tensor,
        condition: Mapping[str, Tensor],
        *,
        kept: Tensor | None = None,
        mode: Mode = "values",
        temperature: float = 1.0,
    ) -> Sample:
        """Complete sentences, for rollouts and prompts.

        Args:
            prefix: (B, P) int64, P up to L, <pad> behind where a row's is shorter; kept as it is. One that holds <eos> is done.
            kept: (B,) int64, how many of its tokens are kept, those of the condition's own prompt at least; None: all.
            noise: as for ``forward``; what stands at the prefix's places is not used.

        Returns:
            As ``forward``: values (B, L) with the prefix, mask True at the tokens that were drawn.
        """
        if kept is not None:
            places, given = torch.arange(prefix.shape[1], device=prefix.device), condition.get("prompt")
            kept = kept if given is None else kept.maximum((given != PAD).sum(1))
            prefix = torch.where(places < kept.unsqueeze(1), prefix, PAD)
        return self(noise, {**condition, "prompt": prefix}, mode=mode, temperature=temperature)

    @torch.no_grad()
    def draw(
        self, noise: Tensor, condition: Mapping[str, Tensor], *, temperature: float = 1.0, choose: Choose = plain
    ) -> Tensor:
        """Tokens (B, L), each picked by ``choose`` from the logits at its place."""
        num_samples, prompt = len(noise), condition.get("prompt")
        values = torch.full((num_samples, self.length), PAD, dtype=torch.int64, device=noise.device)
        every = torch.arange(num_samples, device=noise.device)
        rows = Rows(every, self.label(condition, num_samples), self.start(num_samples), torch.full_like(every, BOS))
        going = torch.ones_like(every, dtype=torch.bool)
        for place in range(self.length):
            states, rows.state = self.step(self.tokens(rows.token) + rows.label, rows.state, place)
            given = None if prompt is None or place >= prompt.shape[1] else prompt[rows.place, place]
            token = self._next(states, rows, given, noise[rows.place, place], temperature, choose)
            values[rows.place, place] = torch.where(going, token, PAD)
            going, rows.token = going & (token != EOS), token
            rows, going = self._compacted(rows, going, place)
            if not len(going):
                break
        return values

    def _next(
        self, states: Tensor, rows: Rows, given: Tensor | None, uniform: Tensor, temperature: float, choose: Choose
    ) -> Tensor:
        """The tokens (B,) at one place: those of the prompt where there are any, and drawn ones.

        The output layer is most of the work, so on a CPU only rows that draw have it; a GPU would wait to know which.
        """
        if given is not None and not keeps_shapes(given):
            free = given == PAD
            if not bool(free.all()):
                token = given.clone()
                token[free] = self._drawn((states[free], rows.token[free], uniform[free]), temperature, choose)
                return token
        token = self._drawn((states, rows.token, uniform), temperature, choose)
        return token if given is None else torch.where(given != PAD, given, token)

    def _drawn(self, rows: tuple[Tensor, Tensor, Tensor], temperature: float, choose: Choose) -> Tensor:
        """Tokens (B,) drawn for states (B, H), tokens before (B,) and uniforms (B,).

        On a CPU in blocks whose logits stay in its cache: rows of 5,000 words then take a quarter of the time.
        """
        count = len(rows[0])
        most = count if keeps_shapes(rows[0]) else max(1, CACHED // self.vocabulary)
        parts = zip(*(each.split(max(most, 1)) for each in rows), strict=True)
        found = [choose(self.logits(states, temperature, True), before, uniform) for states, before, uniform in parts]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _compacted(self, rows: Rows, going: Tensor, place: int) -> tuple[Rows, Tensor]:
        """Without the sentences that have ended, where dropping them pays."""
        if keeps_shapes(going):
            # Only an end of all is worth asking for, and a recording cannot ask.
            asks = place % ASK_EVERY == ASK_EVERY - 1 and place + 1 < self.length and not being_recorded(going)
            return rows, going[:0] if asks and not bool(going.any()) else going
        left = int(going.sum())
        if left == len(going) or left > self.compact_below * len(going):
            return rows, going
        kept = Rows(rows.place[going], rows.label[going], self.keep(rows.state, going), rows.token[going])
        return kept, going[going]

    def _relaxed(self, noise: Tensor, condition: Mapping[str, Tensor], temperature: float) -> Sample:
        label, state = self.label(condition, len(noise)), self.start(len(noise))
        inputs = self.tokens.weight[BOS].expand(len(noise), -1)
        ended = torch.zeros(len(noise), dtype=torch.bool, device=noise.device)
        rows, values = list[Tensor](), list[Tensor]()
        for place in range(self.length):
            states, state = self.step(inputs + label, state, place)
            logits = self.logits(states, 1.0, True)
            drawn = logits + gumbel(noise[:, place].to(logits.dtype))
            row = straight_through(drawn, drawn.argmax(1), temperature)
            row = self._settled(row, ended, condition, place)
            token = row.detach().argmax(1)
            inputs = row.to(self.tokens.weight.dtype) @ self.tokens.weight
            ended = ended | (token == EOS)
            rows.append(row)
            values.append(token)
        tokens = torch.stack(values, dim=1)
        return Sample(tokens, relaxed=torch.stack(rows, dim=1), mask=drawn_mask(tokens, condition))

    def _settled(self, row: Tensor, ended: Tensor, condition: Mapping[str, Tensor], place: int) -> Tensor:
        """One-hot rows (B, V) with the prompt's tokens where there are any, and <pad> after the end."""
        prompt = condition.get("prompt")
        if prompt is not None and place < prompt.shape[1]:
            given = prompt[:, place]
            row = torch.where((given != PAD).unsqueeze(1), F.one_hot(given, self.vocabulary).to(row.dtype), row)
        padding = F.one_hot(torch.full_like(ended, PAD, dtype=torch.int64), self.vocabulary).to(row.dtype)
        return torch.where(ended.unsqueeze(1), padding, row)

    # Reading

    def score(
        self, tokens: Tensor, condition: Mapping[str, Tensor], *, temperature: float = 1.0, drawn: bool = False
    ) -> Tensor:
        """Teacher-forced logits (B, L, V) of the token at each place, given those before it.

        Args:
            tokens: (B, L) int64; may hold <unk>, which data has and sampling never draws.
            condition: as in ``forward``; a prompt is part of ``tokens`` already.
            temperature: divides the logits.
            drawn: whether <unk> cannot come, as in sampling.
        """
        return self.logits(self.states(tokens, condition), temperature, drawn)

    def log_probs(self, tokens: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """Teacher-forced log-probabilities (B, L, V), as ``score`` takes them."""
        return F.log_softmax(self.score(tokens, condition), dim=-1)

    def token_costs(
        self,
        tokens: Tensor,
        condition: Mapping[str, Tensor],
        mask: Tensor,
        temperature: float = 1.0,
        *,
        drawn: bool = False,
    ) -> Tensor:
        """Nats (B, L) that each token costs under ``mask`` (B, L) bool; 0 elsewhere; ``drawn`` as in ``score``."""
        take, place = content(mask)
        dropout = self.dropout if self.training else 0.0
        states = F.dropout(take(self.states(tokens[:, : longest(mask)], condition, dropout)), dropout)
        costs = F.cross_entropy(self.logits(states, temperature, drawn), take(tokens), reduction="none")
        return place(costs)

    def _judge_draws(
        self, values: Tensor, condition: Mapping[str, Tensor], mask: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Log-probability and entropy (B, L) of draws, with their graphs."""
        take, place = content(mask)
        states = self.states(values[:, : longest(mask)], condition)
        rows = F.log_softmax(self.logits(take(states), temperature, True), dim=-1)
        log_prob = rows.gather(1, take(values).unsqueeze(1)).squeeze(1)
        return place(log_prob), place(-(rows.exp() * rows).sum(1))

    def states(self, tokens: Tensor, condition: Mapping[str, Tensor], dropout: float = 0.0) -> Tensor:
        """Teacher-forced states (B, L, H): at each place, what was read before it."""
        before = F.pad(tokens[:, :-1], (1, 0), value=BOS)
        return self.read(self.tokens(before) + self.label(condition, len(tokens)).unsqueeze(1), dropout)

    def logits(self, states: Tensor, temperature: float, drawn: bool) -> Tensor:
        """Logits (..., V); tokens that cannot come have NEVER added. ``drawn`` forbids <unk> as sampling does."""
        features, bias = self.features(states), self.bias + self.never[int(drawn)]
        if isinstance(temperature, Tensor) or temperature != 1.0:
            features, bias = features / temperature, bias / temperature
        logits = F.linear(features, self.output_table, bias)
        # A half-precision sum over a large vocabulary loses small probabilities.
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def label(self, condition: Mapping[str, Tensor], num_samples: int) -> Tensor:
        """What a class adds to every input, (B, E); zeros without."""
        if self.labels is None or "label" not in condition:
            return self.tokens.weight.new_zeros(num_samples, self.tokens.embedding_dim)
        labels: Tensor = self.labels(condition["label"])
        return labels

    def _check(self, noise: Tensor, condition: Mapping[str, Tensor], mode: Mode) -> None:
        expected = (self.length, self.vocabulary) if mode == "relaxed" else (self.length,)
        if tuple(noise.shape[1:]) != expected:
            raise GenError(
                f"text generator got noise of shape {tuple(noise.shape)} for mode {mode!r}, expected (B, {expected})"
            )
        prompt = condition.get("prompt")
        if prompt is not None and (len(prompt) != len(noise) or prompt.shape[1] > self.length):
            raise GenError(
                f"text generator got prompts of shape {tuple(prompt.shape)} for {len(noise)} samples of {self.length} tokens; "
                f"expected ({len(noise)}, at most {self.length})"
            )


def drawn_mask(values: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
    """(B, L) bool: True at the tokens that were drawn, <eos> included, not at those of a prompt."""
    mask, prompt = content_mask(values), condition.get("prompt")
    if prompt is None:
        return mask
    return mask & ~F.pad(prompt != PAD, (0, values.shape[1] - prompt.shape[1]))
