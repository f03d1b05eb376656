"""Monte-Carlo action values: all prefixes completed side by side, against a plain loop over positions and rollouts.

    python benchmarks/rollouts.py --batch 64 --rollouts 16 --length 20 --vocabulary 5000

Both complete every prefix of the same samples with the same networks. The plain loop is what published implementations do, with
care: for each position and rollout it reads the prefix in one call of ``nn.LSTM``, goes on token by token with a softmax and
``torch.multinomial``, and asks the discriminator once. Timed in alternating pairs; printed: seconds of both, what the questions
to the discriminator take alone, the median ratio, and how far the mean values lie apart, over their standard error.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from clock import timed
from text_speed import plain_lstm
from torch import Tensor

from advgen.config.load import load_config
from advgen.contracts import Batch, Discriminator, Generator, Sample
from advgen.engine import make_player
from advgen.losses import LOSSES
from advgen.players import Chunk, Objective, Players
from advgen.registry import find_plugin
from advgen.updates.crediting import credited_cost, opinion_of
from advgen.world import World, pick_device
from advgen_text.config import TextConfig
from advgen_text.making import make_critic, make_generator


def game(options: argparse.Namespace, device: torch.device) -> tuple[Players, Objective]:
    """The networks of the preset seqgan, untrained, and what they play for."""
    overrides = [f"estimator.rollouts={options.rollouts}", f"estimator.rollout_rows={options.rows}", "loss=nonsaturating"]
    config = load_config(find_plugin("text"), preset="seqgan", overrides=overrides).config
    chosen = TextConfig(generator_embedding=32, generator_hidden=32, critic=options.critic, critic_filters=options.filters)
    facts = {"length": options.length, "classes": []}
    torch.manual_seed(0)
    generator = make_generator(chosen, facts, options.vocabulary).to(device)
    critic = make_critic(chosen, facts, options.vocabulary).to(device)
    players = Players(
        make_player("generator", generator, config.generator, device),
        make_player("discriminator", critic, config.discriminator, device),
        None,
        None,
        World(0, 1, device),
    )
    return players, Objective(config, LOSSES[config.loss], {}, lambda path, progress: 1.0)


@torch.no_grad()
def plain(generator: Generator, critic: Discriminator, fake: Sample, rollouts: int) -> Tensor:
    """Costs (B, L), position after position, rollout after rollout."""
    critic.eval()
    values, length = torch.zeros(fake.values.shape, device=fake.values.device), fake.values.shape[1]
    for place in range(length):
        count = rollouts if place < length - 1 else 1
        for _ in range(count):
            values[:, place] += judged(critic, plain_lstm(generator, fake.values[:, : place + 1])) / count
    return values


def judged(critic: Discriminator, sentences: Tensor) -> Tensor:
    """The cost (B,) of whole sentences."""
    mask = sentences != 0
    (head,) = critic(critic.embed(Sample(sentences, mask=mask)), {}, mask).heads
    cost = torch.nn.functional.softplus(-head.scores)
    return cost if head.mask is None else (cost * head.mask).sum(1) / head.mask.sum(1)


@torch.no_grad()
def judging_alone(critic: Discriminator, fake: Sample, rollouts: int) -> Tensor:
    """What the plain loop asks of the discriminator, without writing anything."""
    for _ in range((fake.values.shape[1] - 1) * rollouts + 1):
        cost = judged(critic, fake.values)
    return cost


def main() -> None:
    """Time both in pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 64), ("rollouts", 16), ("length", 20), ("vocabulary", 5000), ("rows", 32768), ("pairs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--critic", choices=("cnn", "recurrent"), default="cnn")
    parser.add_argument("--filters", type=float, default=1.0, help="share of the published number of filters of cnn")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = pick_device(options.device)
    players, objective = game(options, device)
    generator, critic = players.generates, players.judges
    # Whole samples: nothing ends early, as in the published protocol.
    generator.never[:, 2] = -1e9
    fake = generator(torch.rand(options.batch, options.length, device=device), {})
    zeros = torch.zeros(options.batch, device=device)

    def more_noise(turn: int, samples: Tensor, count: int) -> Tensor:
        return torch.rand(len(samples), count, options.length, device=device)

    chunk = Chunk(Batch(fake.values, fake.mask), zeros, zeros, lambda shape: zeros, more_noise=more_noise)

    def ours() -> Tensor:
        return credited_cost(players, objective, chunk, fake, opinion_of(players, objective, chunk, fake), 0.0)

    def theirs() -> Tensor:
        return plain(generator, critic, fake, options.rollouts)

    ours(), theirs()
    pairs = [(timed(ours, device), timed(theirs, device)) for _ in range(options.pairs)]
    ratios = [other[0] / own[0] for own, other in pairs]
    difference = torch.stack([other[1] - own[1] for own, other in pairs]).mean(0)
    error = difference.std() / difference.numel() ** 0.5
    row = {
        "device": str(device),
        "batched_seconds": round(statistics.median(own[0] for own, _ in pairs), 4),
        "plain_seconds": round(statistics.median(other[0] for _, other in pairs), 4),
        "judging_seconds": round(timed(lambda: judging_alone(critic, fake, options.rollouts), device)[0], 4),
        "ratio": round(statistics.median(ratios), 2),
        "difference_over_error": round(float(difference.mean() / error.clamp(min=1e-12)), 2),
    }
    print(json.dumps(row | {name: value for name, value in vars(options).items() if name != "device"}))


if __name__ == "__main__":
    main()
