"""The synthetic oracle of text generators: a fixed LSTM is the language, so quality and diversity are both known exactly.

    python benchmarks/oracle.py --oracle target_params.npz --arms mle,seqgan,cot
    python benchmarks/oracle.py --small --arms mle,seqgan,seqgan-constant

The oracle is an LSTM with embedding and state of 32 over 5,000 words, all parameters N(0, 1), length 20, started with word 0.
With --oracle its published parameters are read from .npz, .safetensors or a folder of arrays (never from a pickle), and its
own NLL must be 5.750 +- 0.02, or it is refused; without it an oracle of the same shape is drawn from --oracle-seed, which is
another language: its numbers can be compared within one table alone.

Each arm is a preset of the text plugin with the networks of the published protocol (embedding and state 32), trained on 10,000
sequences. Printed for each temperature: NLL_oracle of its samples (quality), NLL_test of fresh oracle sequences under it
(diversity), both in nats a word, lower is better, and for the published oracle the best published NLL_test at that NLL_oracle.
NLL_oracle alone says nothing: a lower temperature buys it. seqgan-constant is the arm whose discriminator scores everything 0.

Sources: Yu et al. 2017, https://arxiv.org/abs/1609.05473; curves: Caccia et al. 2020, https://arxiv.org/abs/1811.02549
"""

from __future__ import annotations

import argparse
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from clock import now
from safetensors.torch import load_file
from torch import Tensor, nn

from advgen.config.load import load_config, options_of
from advgen.contracts import Discriminator, Generator, Head, Verdict
from advgen.data.memory import ArraySource
from advgen.errors import DataError, GenError
from advgen.recording import make_recorder
from advgen.registry import find_plugin
from advgen.setup import Setup, make_draw, make_objective, make_players, settle
from advgen.step import critic_step, likelihood_step, train_step
from advgen.world import World, pick_device
from advgen_text.generators import Writer
from advgen_text.modality import TextModality
from advgen_text.tokenizer import EOS, SPECIALS, UNKNOWN

WIDTH, LENGTH, PUBLISHED, TOLERANCE = 32, 20, 5.750, 0.02
NAMES = ("embedding", "wi", "ui", "bi", "wf", "uf", "bf", "wog", "uog", "bog", "wc", "uc", "bc", "wo", "bo")
FRONTIER = (
    (9.0, 7.63),
    (8.736, 7.69),
    (8.5, 7.75),
    (8.0, 7.92),
    (7.5, 8.15),
    (7.038, 8.43),
    (6.68, 8.73),
    (6.5, 8.86),
    (6.321, 8.99),
    (6.0, 9.26),
    (5.75, 9.59),
)
"""Best published (NLL_oracle, NLL_test) on the published oracle."""
NETWORKS = ["options.generator_embedding=32", "options.generator_hidden=32", "options.critic_embedding=64"]
LSTM = ["options.generator=lstm", *NETWORKS]
ARMS: dict[str, tuple[str, list[str]]] = {
    "mle": ("seqgan", [*LSTM, "phases=[{kind='likelihood'}]"]),
    "seqgan": ("seqgan", LSTM),
    "seqgan-constant": ("seqgan", LSTM),
    "maligan": ("maligan", LSTM),
    "relgan": ("relgan", NETWORKS),
    "scratchgan": ("scratchgan", ["options.critic_hidden=128", *LSTM]),
    "cot": ("cot", ["options.critic_hidden=64", *LSTM]),
    "ppo": ("seqgan", [*LSTM, "estimator={name='ppo', rewards='terminal', reference_weight=0.1, real_share=0.2}"]),
}


class Oracle(nn.Module):
    """The language: words (N, L) int64 in [0, V). Gates as published: input, forget, output, candidate."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        order = ("i", "f", "c", "og")  # as torch.lstm_cell has them
        self.embedding, self.wo, self.bo = (parameters[name] for name in ("embedding", "wo", "bo"))
        self.weights = [torch.cat([parameters[kind + gate].T for gate in order]) for kind in "wu"]
        self.bias = torch.cat([parameters["b" + gate] for gate in order])

    def to_device(self, device: torch.device) -> Oracle:
        """All of it on a device."""
        self.embedding, self.wo, self.bo, self.bias = (x.to(device) for x in (self.embedding, self.wo, self.bo, self.bias))
        self.weights = [weight.to(device) for weight in self.weights]
        return self

    def step(self, words: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Words (N,) -> log-probabilities (N, V) of the next."""
        state = torch.lstm_cell(self.embedding[words], state, *self.weights, self.bias, torch.zeros_like(self.bias))
        return (state[0] @ self.wo + self.bo).log_softmax(1), state

    def start(self, count: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Word 0 and a state of zeros."""
        zeros = self.bias.new_zeros(count, WIDTH)
        return torch.zeros(count, dtype=torch.int64, device=self.bias.device), (zeros, zeros)

    @torch.no_grad()
    def draw(self, count: int, length: int, rng: torch.Generator) -> Tensor:
        """Sequences (count, L) on the CPU."""
        found = []
        for first in range(0, count, 1000):
            words, state = self.start(min(1000, count - first))
            columns = []
            for _ in range(length):
                row, state = self.step(words, state)
                noise = torch.empty(row.shape).exponential_(generator=rng).to(row.device)
                words = (row.exp() / noise).argmax(1)  # a draw, by the race of exponentials
                columns.append(words.cpu())
            found.append(torch.stack(columns, 1))
        return torch.cat(found)

    @torch.no_grad()
    def nats(self, sequences: Tensor) -> Tensor:
        """Negative log-likelihood (N, L) of each word."""
        found = []
        for block in sequences.to(self.bias.device).split(1000):
            words, state = self.start(len(block))
            columns = []
            for place in range(block.shape[1]):
                row, state = self.step(words, state)
                words = block[:, place]
                columns.append(-row.gather(1, words.unsqueeze(1)).squeeze(1))
            found.append(torch.stack(columns, 1))
        return torch.cat(found)


def shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    """What each parameter must look like."""
    square = {name: (WIDTH,) if name[0] == "b" else (WIDTH, WIDTH) for name in NAMES}
    return square | {"embedding": (vocabulary, WIDTH), "wo": (WIDTH, vocabulary), "bo": (vocabulary,)}


def read_parameters(path: Path, vocabulary: int) -> dict[str, Tensor]:
    """The published parameters, by name or in the published order.

    Raises:
        DataError: where the file is of another kind or holds something else.
    """
    files = sorted([*path.glob("*.npz"), *path.glob("*.npy")]) if path.is_dir() else [path]
    found: dict[str, Tensor] = {}
    for file in files:
        if file.suffix == ".safetensors":
            found |= {name.lower(): value.float() for name, value in load_file(file).items()}
        elif file.suffix in (".npz", ".npy"):
            own = {name: torch.from_numpy(array.astype(np.float32)) for name, array in read_arrays(file).items()}
            found |= {file.stem.lower() if path.is_dir() else name.lower(): value for name, value in own.items()}
        else:
            raise DataError(
                f"{file} is no .npz and no .safetensors; convert a pickle once, where you trust it, with numpy.savez"
            )
    if "arr_0" in found:
        found = {name: found[f"arr_{index}"] for index, name in enumerate(NAMES) if f"arr_{index}" in found}
    spare = sorted(set(found) - set(NAMES))
    if "embedding" not in found and len(spare) == 1:
        found["embedding"] = found.pop(spare[0])
    expected = shapes(vocabulary)
    wrong = [name for name in NAMES if name not in found or tuple(found[name].shape) != expected[name]]
    if wrong:
        came = tuple(found[wrong[0]].shape) if wrong[0] in found else "nothing"
        raise DataError(f"{path}: {wrong[0]} is {came}, expected {expected[wrong[0]]}; an oracle holds {', '.join(NAMES)}")
    return found


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Named arrays of an archive, or the one of a plain array file, which is what some .npz files are.

    Raises:
        DataError: where the file is damaged or holds objects.
    """
    try:
        with file.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            return {file.stem: found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} cannot be read as arrays of numbers: {error}") from error


def check_published(nats: Tensor, length: int) -> None:
    """Refuse an oracle that is not the published one, by its mean NLL (N,) of sequences of its own.

    Raises:
        DataError: where that is further from the published number than chance allows.
    """
    own, error = float(nats.mean()), float(nats.std()) / len(nats) ** 0.5
    if length == LENGTH and abs(own - PUBLISHED) > TOLERANCE + 3 * error:
        raise DataError(
            f"--oracle: its own NLL is {own:.3f} +- {error:.3f} nats a word, "
            f"the published oracle's is {PUBLISHED:.3f} +- {TOLERANCE}; "
            "these are other parameters, or have other names: leave --oracle out for an oracle drawn from a seed"
        )


def drawn_parameters(seed: int, vocabulary: int) -> dict[str, Tensor]:
    """An oracle of the same shape."""
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes(vocabulary).items()}


class OracleText(TextModality):
    """Words of the oracle: all known beforehand, no sequence ends early."""

    def generator(self) -> Generator:
        """As the options say, with words alone."""
        return words_alone(super().generator())

    def discriminator(self) -> Discriminator:
        """As the options say."""
        made = super().discriminator()
        for network in made.modules():
            if isinstance(network, Writer):
                words_alone(network)
        return made


def words_alone(writer: Any) -> Any:
    """Never the end mark nor an unknown word."""
    writer.never[:, [EOS, UNKNOWN]] = -1e9
    return writer


class Indifferent(Discriminator):
    """Scores everything 0, whatever it has learned."""

    def __init__(self, inner: Discriminator) -> None:
        super().__init__()
        self.inner = inner

    def embed(self, sample: Any) -> Tensor:
        """As the critic does."""
        return self.inner.embed(sample)

    def forward(self, seen: Tensor, condition: Mapping[str, Tensor], mask: Tensor | None = None) -> Verdict:
        """Zeros of the critic's shape."""
        heads = self.inner(seen, condition, mask).heads
        return Verdict(tuple(Head(0.0 * head.scores, head.mask, head.weight) for head in heads))


class Deaf(OracleText):
    """For the constant-reward ablation."""

    def discriminator(self) -> Discriminator:
        """One that says nothing."""
        return Indifferent(super().discriminator())


def facts_of(options: argparse.Namespace) -> dict[str, Any]:
    """Length and tokenizer."""
    names = [*SPECIALS, *map(str, range(options.vocabulary))]
    model = tokenizers.models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=SPECIALS[UNKNOWN])
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([tokenizers.pre_tokenizers.WhitespaceSplit()])
    return {"length": options.length, "tokenizer": inner.to_str(), "classes": []}


def prepared(arm: str, train: Tensor, options: argparse.Namespace, device: torch.device) -> Setup:
    """One arm, ready to train."""
    record, (preset, more) = find_plugin("text"), ARMS[arm]
    size = [f"train.batch_size={options.batch}", f"train.seed={options.seed}", f"options.critic_filters={options.filters}"]
    config = load_config(
        record, preset=preset, overrides=[*more, *size, *options.set], cli={"train.steps": options.steps}
    ).config
    kind = Deaf if arm.endswith("-constant") else OracleText
    modality = kind(options_of(record, config), facts_of(options))
    config, _ = settle(config, modality)
    objective, players = make_objective(record, config), make_players(modality, config, World(0, 1, device))
    players.recorder = make_recorder(players, config)
    source = ArraySource(train + len(SPECIALS))
    draw = make_draw(modality, source, config, players)
    return Setup(config, record, modality, None, players, objective, draw, players.world)


@dataclass(frozen=True)
class Plan:
    """How long to train.

    Args:
        steps: counted over all phases.
        minutes: in place of steps: of processor time on a CPU, which other programs do not lengthen; on a GPU of the clock.
    """

    steps: int
    minutes: float | None
    device: torch.device

    def progress(self) -> Iterator[float]:
        """How much of the plan is done before each step, in [0, 1)."""
        if self.minutes is None:
            yield from (step / self.steps for step in range(self.steps))
            return
        start = now(self.device)
        while (done := (now(self.device) - start) / (60 * self.minutes)) < 1:
            yield done


def trained(setup: Setup, plan: Plan) -> tuple[Writer, int]:
    """The generator after the preset's phases, and after how many steps."""
    players, phases, before, steps = setup.players, setup.config.phases, None, 0
    kinds = {"likelihood": likelihood_step, "critic": critic_step, "adversarial": train_step}
    edges = np.cumsum([phase.share for phase in phases]) / sum(phase.share for phase in phases)
    for steps, done in enumerate(plan.progress(), 1):
        kind = phases[min(int(np.searchsorted(edges, done, side="right")), len(phases) - 1)].kind
        if before not in (None, kind) and (before, kind) != ("critic", "adversarial"):
            setup.modality.enter_phase(kind, players.generates, players.judges)
        kinds[kind](players, setup.objective, setup.draw, steps - 1, done)
        before = kind
    found = players.average if players.average is not None else players.generates
    assert isinstance(found, Writer)
    return found.eval(), steps


@torch.no_grad()
def measured(
    writer: Writer, oracle: Oracle, test: Tensor, temperature: float, options: argparse.Namespace
) -> tuple[float, float]:
    """(NLL_oracle, NLL_test) in nats a word."""
    device, rng = writer.bias.device, torch.Generator().manual_seed(options.seed)
    noise = torch.rand(options.samples, options.length, generator=rng)
    quality = [
        oracle.nats(writer.draw(part.to(device), {}, temperature=temperature) - len(SPECIALS)) for part in noise.split(1000)
    ]
    diversity = []
    for part in (test + len(SPECIALS)).split(500):
        tokens = part.to(device)
        rows = writer.score(tokens, {}, temperature=temperature, drawn=True).log_softmax(-1)
        diversity.append(-rows.gather(2, tokens.unsqueeze(2)).squeeze(2))
    return float(torch.cat(quality).mean()), float(torch.cat(diversity).mean())


def frontier(quality: float) -> float | None:
    """The best published NLL_test at an NLL_oracle; None outside the published range."""
    at, values = zip(*reversed(FRONTIER), strict=True)
    return None if not at[0] <= quality <= at[-1] else float(np.interp(quality, at, values))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", type=Path, help="published parameters; without it an oracle of the same shape is drawn")
    parser.add_argument("--oracle-seed", type=int, default=0)
    parser.add_argument("--arms", default="mle,seqgan,seqgan-constant,maligan,relgan,scratchgan,cot", help=", ".join(ARMS))
    parser.add_argument("--temperatures", default="1.25,1.0,0.8,0.667,0.5", help="of the softmax; published alpha is 1 / T")
    numbers = {
        "vocabulary": 5000,
        "length": LENGTH,
        "train": 10_000,
        "test": 5000,
        "samples": 9984,
        "steps": 20_000,
        "batch": 64,
    }
    for name, default in (numbers | {"seed": 0}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--minutes", type=float, help="train each arm for so long in place of --steps")
    parser.add_argument("--filters", type=float, default=1.0, help="share of the published number of filters")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="further overrides of every arm")
    parser.add_argument("--small", action="store_true", help="200 words, 2,000 sequences, 300 steps: minutes on two cores")
    options = parser.parse_args()
    if options.small:
        small = {"vocabulary": 200, "train": 2000, "test": 1000, "samples": 1000, "steps": 300, "batch": 32, "filters": 0.1}
        parser.set_defaults(**small)
        options = parser.parse_args()
    unknown = [arm for arm in options.arms.split(",") if arm not in ARMS]
    if unknown:
        parser.error(f"arm {unknown[0]!r} is unknown; known: {', '.join(ARMS)}")
    return options


def main() -> None:
    """Train every arm on the same sequences and print its curve."""
    options = parsed()
    device = pick_device(options.device)
    published = options.oracle is not None
    given = (
        read_parameters(options.oracle, options.vocabulary)
        if published
        else drawn_parameters(options.oracle_seed, options.vocabulary)
    )
    oracle = Oracle(given).to_device(device)
    rng = torch.Generator().manual_seed(options.seed)
    train, test, own = (oracle.draw(count, options.length, rng) for count in (options.train, options.test, options.samples))
    nats = oracle.nats(own).mean(1)
    if published:
        check_published(nats, options.length)
    name = "the published oracle" if published else f"an oracle drawn from seed {options.oracle_seed}, not the published one"
    print(f"{name}: own NLL {nats.mean():.4f} +- {nats.std() / len(nats) ** 0.5:.4f} (published oracle: {PUBLISHED:.3f})")
    for arm in options.arms.split(","):
        start = now(device)
        plan = Plan(options.steps, options.minutes, device)
        writer, steps = trained(prepared(arm, train, options, device), plan)
        spent = now(device) - start
        for temperature in map(float, options.temperatures.split(",")):
            quality, diversity = measured(writer, oracle, test, temperature, options)
            row: dict[str, Any] = {"arm": arm, "temperature": temperature}
            row |= {"nll_oracle": round(quality, 3), "nll_test": round(diversity, 3)}
            row |= {"steps": steps, "seconds": round(spent, 1)}
            if published:
                row["best_published_nll_test"] = frontier(quality)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    try:
        main()
    except GenError as error:
        raise SystemExit(f"oracle.py: {error}") from error
