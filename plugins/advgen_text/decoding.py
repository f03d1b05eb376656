"""How ``gen sample`` picks tokens: temperature, top-k, top-p, watermark, beam search, prompts.

Legend: B batch, K beams, L tokens, P tokens of a prompt, V vocabulary.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from advgen import ConfigError, DataError, GenError, Sample, listed

from .config import TextSampling
from .generators import Choose, Writer, inverse_draw
from .generators.base import drawn_mask
from .generators.drawing import NEVER
from .reading import is_whole, small_text
from .tokenizer import BOS, EOS, PAD, Tokenizer
from .watermark import Watermark

MOST_PROMPT_BYTES = 64 * 2**20


def chooser(options: TextSampling) -> Choose:
    """Draws under the options, a row at a time: first the watermark, then temperature, top-k, top-p."""
    mark = watermark_of(options)

    def choose(logits: Tensor, before: Tensor, uniform: Tensor) -> Tensor:
        if mark is not None:
            logits = mark.favour(logits, before)
        logits = logits / options.temperature
        if options.top_k is not None:
            logits = keep_top_k(logits, options.top_k)
        if options.top_p is not None:
            logits = keep_top_p(logits, options.top_p)
        return inverse_draw(logits, uniform)

    return choose


def watermark_of(options: TextSampling) -> Watermark | None:
    """The watermark that the options ask for."""
    if options.watermark is None:
        return None
    return Watermark(options.watermark, options.watermark_share, options.watermark_strength)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (B, V) of the k largest, NEVER elsewhere; ties at the edge stay."""
    edge = logits.topk(min(k, logits.shape[1]), dim=1).values[:, -1:]
    return torch.where(logits < edge, NEVER, logits)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (B, V) of the fewest tokens that hold probability p together, NEVER elsewhere; at least the likeliest.

    Source: Holtzman et al. 2020, https://arxiv.org/abs/1904.09751
    """
    values, order = logits.sort(dim=1, descending=True)
    held = values.softmax(1).cumsum(1)
    before = F.pad(held[:, :-1], (1, 0))
    return torch.where(before < p, values, NEVER).gather(1, order.argsort(1))


@dataclass
class _Beams:
    """K sentences of each of B rows: tokens (B, K, L), the sum of log-probabilities (B, K), and which have ended."""

    tokens: Tensor
    total: Tensor
    ended: Tensor


@torch.no_grad()
def beam_search(writer: Writer, condition: Mapping[str, Tensor], num_rows: int, num_beams: int) -> tuple[Tensor, Tensor]:
    """The K likeliest sentences that a search with K beams finds, best first.

    Args:
        condition: as for the generator, (B, ...).

    Returns:
        Tokens (B, K, L) and log-probabilities (B, K) in nats of what was not given; -inf where there are fewer than K.
    """
    device, every = writer.bias.device, num_rows * num_beams
    condition = {name: value.repeat_interleave(num_beams, 0) for name, value in condition.items()}
    label, state, prompt = writer.label(condition, every), writer.start(every), condition.get("prompt")
    token = torch.full((every,), BOS, device=device)
    total = torch.full((num_rows, num_beams), -torch.inf, device=device, dtype=torch.float64)
    total[:, 0] = 0  # all beams start alike; one of them counts
    empty = torch.full((num_rows, num_beams, writer.length), PAD, device=device)
    beams = _Beams(empty, total, torch.zeros_like(total, dtype=torch.bool))
    for place in range(writer.length):
        states, state = writer.step(writer.tokens(token) + label, state, place)
        rows = F.log_softmax(writer.logits(states, 1.0, True).double(), dim=1).view(num_rows, num_beams, -1)
        given = None if prompt is None or place >= prompt.shape[1] else prompt[:, place].view(num_rows, num_beams)
        origin = _advance(beams, _settled(rows, beams.ended, given), place)
        state, token = writer.keep(state, origin), beams.tokens[..., place].flatten()
        if beams.ended.all():
            break
    return beams.tokens, beams.total


def _settled(rows: Tensor, ended: Tensor, given: Tensor | None) -> Tensor:
    """Log-probabilities (B, K, V) with the prompt's tokens for certain, and <pad> for certain after the end."""
    if given is not None:
        certain = F.one_hot(given, rows.shape[2]).bool()
        rows = torch.where((given != PAD).unsqueeze(2), torch.where(certain, 0.0, -torch.inf), rows)
    padding = torch.full_like(rows[0, 0], -torch.inf)
    padding[PAD] = 0
    return torch.where(ended.unsqueeze(2), padding, rows)


def _advance(beams: _Beams, rows: Tensor, place: int) -> Tensor:
    """Take the K best continuations of each row; returns which of all B * K beams each came from."""
    num_rows, num_beams, vocabulary = rows.shape
    beams.total, best = (beams.total.unsqueeze(2) + rows).flatten(1).topk(num_beams, dim=1)
    parent, token = best // vocabulary, best % vocabulary
    beams.tokens = beams.tokens.gather(1, parent.unsqueeze(2).expand_as(beams.tokens))
    beams.tokens[..., place] = token
    beams.ended = beams.ended.gather(1, parent) | (token == EOS)
    return (parent + torch.arange(num_rows, device=rows.device).unsqueeze(1) * num_beams).flatten()


@dataclass(frozen=True)
class Prompts:
    """How samples start.

    Args:
        tokens: (N, P) int64, <pad> behind.
        unknown: of each what its unknown tokens stand for, as it was typed.
    """

    tokens: Tensor
    unknown: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, kw_only=True)
class Continued(Sample):
    """A sample that knows what it continues: its prompt (B, P), and the number of that (B,)."""

    prompt: Tensor
    prompt_number: Tensor


def read_prompts(options: TextSampling, tokenizer: Tokenizer, length: int) -> Prompts | None:
    """All prompts; None without any. Words that the run does not know are warned of.

    Raises:
        DataError: where the file cannot be read or is empty.
        ConfigError: where a prompt leaves no room in the context of ``length`` tokens, is all unknown words or not UTF-8.
    """
    if options.prompts is not None:
        lines = _lines(Path(options.prompts))
    elif options.prompt is not None:
        lines = [options.prompt]
    else:
        return None
    for number, line in enumerate(lines, 1):
        if not is_whole(line):
            raise ConfigError(f"prompt {number} ({line!r}) is not UTF-8; write it in UTF-8")
    rows = [row[:-1] for row in tokenizer.rows(lines, 2**31)]  # without <eos>
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1):
        shown = line if len(line) <= 40 else line[:40] + "..."
        if len(row) >= length:
            raise ConfigError(f"prompt {number} ({shown!r}) has {len(row)} tokens; this run writes {length}, expected fewer")
        if tokenizer.knows_nothing_of(row):
            raise ConfigError(f"prompt {number} ({shown!r}) holds only words that this run has never seen; choose others")
    unknown, width = [tokenizer.unknown_parts(line) for line in lines], max(1, *map(len, rows))
    _warn_of(dict.fromkeys(part for parts in unknown for part in parts))
    return Prompts(torch.tensor([[*row, *[PAD] * (width - len(row))] for row in rows], dtype=torch.int64), unknown)


def _warn_of(unknown: Mapping[str, None]) -> None:
    """Say which words no sample can be a continuation of."""
    if unknown:
        logging.getLogger("advgen").warning(
            "warning: this run does not know %s of the prompts and reads each as one and the same unknown word; write other "
            "words, or train with a larger options.vocabulary_size",
            listed(map(repr, unknown)),
        )


def _lines(file: Path) -> list[str]:
    try:
        text = small_text(file, MOST_PROMPT_BYTES, "utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].split(b"\n")
        where = f"line {len(before)} is not UTF-8 at byte {len(before[-1]) + 1} of the line"
        raise DataError(f"--prompts {file} {where}; convert the file to UTF-8") from error
    except OSError as error:
        raise DataError(f"--prompts {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"--prompts {file} cannot be read: {error}; expected one prompt per line") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"--prompts {file} holds no prompt; expected one on each line")
    return lines


@dataclass
class Decoding:
    """What one ``gen sample`` asks for.

    Args:
        num_samples: how many will be looked at; blocks are drawn whole.
    """

    options: TextSampling
    prompts: Prompts | None
    num_samples: int = 0
    _times: Counter[tuple[float, ...]] = field(default_factory=Counter, init=False)

    def check(self, num_conditions: int) -> None:
        """Refuse more samples than beams find for so many different prompts and classes at most.

        Raises:
            ConfigError: with the numbers.
        """
        most = (self.options.beam or self.num_samples) * num_conditions
        if self.num_samples > most:
            raise self._too_few(f"find {most} samples")

    def _too_few(self, found: str) -> ConfigError:
        return ConfigError(f"-n {self.num_samples}: {self.options.beam} beams {found}; give --beam more, or -n less")

    def draw(self, network: object, noise: Tensor, condition: Mapping[str, Tensor], start: int) -> Sample:
        """Samples ``start`` and on: sample i has prompt i, from the first on again. Blocks come in order, from 0 on."""
        if not isinstance(network, Writer):
            raise GenError(f"sampling options need a generator of the text plugin, got {type(network).__name__}")
        if self.prompts is None:
            return self._drawn(network, noise, condition, start)
        numbers = torch.arange(start, start + len(noise)) % len(self.prompts)
        own = {"prompt": self.prompts.tokens[numbers].to(noise.device)}
        sample = self._drawn(network, noise, {**condition, **own}, start)
        return Continued(**vars(sample), **own, prompt_number=numbers.to(noise.device))

    def _drawn(self, network: Writer, noise: Tensor, condition: Mapping[str, Tensor], start: int) -> Sample:
        if self.options.beam is not None:
            return self._best(network, condition, len(noise), start)
        values = network.draw(noise, condition, choose=chooser(self.options))
        return Sample(values, mask=drawn_mask(values, condition))

    def _ranks(self, asked: Tensor, start: int) -> Tensor:
        """How often what each row (B, C) asks for was asked before, by all samples from 0 on.

        Raises:
            ConfigError: where that is as often as there are beams.
        """
        if start == 0:
            self._times.clear()
        ranks = []
        for number, row in enumerate(map(tuple, asked.tolist()), start):
            if number < self.num_samples and self._times[row] >= (self.options.beam or 1):
                raise self._too_few(f"find {self.options.beam} samples of one prompt and class, sample {number} asks for more")
            ranks.append(self._times[row])
            self._times[row] += 1
        return torch.tensor(ranks)

    def _best(self, network: Writer, condition: Mapping[str, Tensor], count: int, start: int) -> Sample:
        """Best first for each prompt and class: of a row's beams the one of its rank; its log-probability is (B, 1)."""
        num_beams, device = self.options.beam or 1, network.bias.device
        asked = torch.cat([value.view(count, -1).cpu() for value in condition.values()] or [torch.zeros(count, 1)], dim=1)
        rank = self._ranks(asked, start)
        # Rows that ask for the same are searched once.
        different, which = asked.unique(dim=0, return_inverse=True)
        first = torch.stack([(which == number).nonzero()[0, 0] for number in range(len(different))]).to(device)
        tokens, total = beam_search(network, {n: v[first] for n, v in condition.items()}, len(first), num_beams)
        rows, rank = which.to(device), (rank % num_beams).to(device)
        values, log_prob = tokens[rows, rank], total[rows, rank]
        return Sample(values, log_prob=log_prob.unsqueeze(1), mask=drawn_mask(values, condition))
