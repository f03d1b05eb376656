"""Speed of sampling and of BLEU in the text plugin, beside plain loops in the same run; rollouts have rollouts.py.

    python benchmarks/text_speed.py sampling
    python benchmarks/text_speed.py sampling --generator transformer --batch 4096 --device cuda
    python benchmarks/text_speed.py bleu --text coco/train.txt --references coco/test.txt

Sampling: tokens a second of whole samples of --length tokens, untrained networks of the sizes of the presets captions and gpt.
The plain loops are what one writes by hand or takes from the shelf: for the LSTM a loop over ``nn.LSTM`` with a softmax and
``torch.multinomial``; for the transformer ``generate`` of the package transformers with its own cache and the same weights.
They take turns with ours, --rounds times; printed are medians of both and the median ratio with its 95 % bootstrap interval,
on a CPU of the processor's time.

BLEU: seconds for BLEU-2 to 5 of --count lines of --text against as many of --references, and Self-BLEU-2 to 5 of the former.
The plain loop counts the n-grams of all references anew for each line, as NLTK does; it is timed on --lines lines.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import step as pairs_of_steps
import torch
from clock import timed
from torch import Tensor, nn

from advgen.world import pick_device
from advgen_text.backbone import library
from advgen_text.bleu import bleu, self_bleu
from advgen_text.config import TextConfig
from advgen_text.generators import LstmWriter, TransformerWriter, Writer
from advgen_text.making import make_generator
from advgen_text.tokenizer import BOS, EOS

CONFIGS = {
    "lstm": TextConfig(generator_embedding=128, generator_hidden=256),
    "transformer": TextConfig(generator="transformer", generator_hidden=128),
}


@torch.no_grad()
def plain_lstm(writer: LstmWriter, prefix: Tensor) -> Tensor:
    """Sentences (B, L) that go on from a prefix (B, P), a token after another; the prefix is read in one call."""
    table, columns = writer.tokens.weight, [prefix]
    output, state = writer.recurrent(writer.tokens(nn.functional.pad(prefix, (1, 0), value=BOS)))
    for place in range(prefix.shape[1], writer.length):
        logits = nn.functional.linear(writer.project(output[:, -1]), table, writer.bias + writer.never[1])
        columns.append(torch.multinomial(logits.softmax(-1), 1))
        if place < writer.length - 1:
            output, state = writer.recurrent(writer.tokens(columns[-1]), state)
    return torch.cat(columns, 1)


def plain_transformer(writer: TransformerWriter) -> nn.Module:
    """The model of the package transformers with the writer's weights."""
    transformers = library()
    config = writer.body.config
    config.vocab_size, config.use_cache = writer.vocabulary, True
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    body = {name: value for name, value in writer.body.state_dict().items() if "wte" not in name}
    model.base_model.load_state_dict(body, strict=False)
    model.set_input_embeddings(writer.tokens)
    model.tie_weights()
    return model.to(writer.bias.device).eval()


def of_sampling(options: argparse.Namespace) -> list[dict[str, object]]:
    """A row for each generator and batch."""
    device, rows = pick_device(options.device), []
    for name in options.generator or CONFIGS:
        torch.manual_seed(0)
        writer = make_generator(CONFIGS[name], {"length": options.length, "classes": []}, options.vocabulary).to(device).eval()
        writer.never[:, EOS] = -1e9  # whole samples on both sides
        theirs = plain_sampler(writer, options.length)
        for batch in options.batch or [16, 256, 2048]:
            rows.append({"generator": name, "batch": batch, "device": str(device)} | compared(writer, theirs, batch, options))
            print(json.dumps(rows[-1]), flush=True)
    return rows


def plain_sampler(writer: Writer, length: int) -> Callable[[int], Tensor]:
    """How one samples so many by hand."""
    if isinstance(writer, LstmWriter):
        nothing = torch.empty(0, dtype=torch.int64, device=writer.bias.device)
        return lambda count: plain_lstm(writer, nothing.expand(count, 0))
    assert isinstance(writer, TransformerWriter)
    model, device = plain_transformer(writer), writer.bias.device

    def sample(count: int) -> Tensor:
        start = torch.full((count, 1), BOS, device=device)
        settings = {"do_sample": True, "top_k": 0, "max_new_tokens": length - 1, "pad_token_id": 0, "eos_token_id": None}
        made: Tensor = model.generate(start, attention_mask=torch.ones_like(start), **settings)
        return made

    return sample


@torch.no_grad()
def compared(writer: Writer, theirs: Callable[[int], Tensor], batch: int, options: argparse.Namespace) -> dict[str, object]:
    """Tokens a second of both, and the ratio."""
    device, tokens = writer.bias.device, batch * options.length
    noise = torch.rand(batch, options.length, device=device)

    def pair() -> tuple[float, float]:
        return timed(lambda: writer.draw(noise, {}), device)[0], timed(lambda: theirs(batch), device)[0]

    pairs = [pair() for _ in range(options.rounds + 1)][1:]
    ratios = [plain / own for own, plain in pairs]
    return {
        "tokens_per_second": round(tokens / statistics.median(own for own, _ in pairs)),
        "plain_tokens_per_second": round(tokens / statistics.median(plain for _, plain in pairs)),
        "ratio": round(statistics.median(ratios), 3),
        "interval_95": [round(edge, 3) for edge in pairs_of_steps.interval(ratios)],
    }


def plain_bleu(line: Sequence[str], references: Sequence[Sequence[str]], most: int) -> list[float]:
    """Clipped precisions of orders 1 to ``most``, counting every reference anew."""
    found = []
    for order in range(1, most + 1):
        own = Counter(zip(*(line[i:] for i in range(order)), strict=False))
        best: Counter[tuple[str, ...]] = Counter()
        for other in references:
            counts = Counter(zip(*(other[i:] for i in range(order)), strict=False))
            for gram in own:
                best[gram] = max(best[gram], counts[gram])
        found.append(sum(min(count, best[gram]) for gram, count in own.items()) / max(1, own.total()))
    return found


def of_bleu(options: argparse.Namespace) -> dict[str, object]:
    """Seconds of both, and how many times as long the plain loop would take for all lines."""
    lines, references = (
        [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()][: options.count]
        for path in (options.text, options.references)
    )

    def plain() -> None:
        for line in lines[: options.lines]:
            for order in range(2, 6):
                plain_bleu(line, references, order)

    works = (lambda: bleu(lines, references), lambda: self_bleu(lines), plain)
    against, among, by_hand = (timed(work, torch.device("cpu"))[0] for work in works)
    a_line = by_hand / len(lines[: options.lines])
    row = {"lines": len(lines), "references": len(references), "bleu_seconds": round(against, 2)}
    row |= {"self_bleu_seconds": round(among, 2), "plain_seconds_a_line": round(a_line, 3)}
    row["ratio"] = round(a_line * len(lines) / against)
    print(json.dumps(row))
    return row


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sampling", "bleu"])
    parser.add_argument("--generator", action="append", choices=list(CONFIGS), help="again for more; default: all")
    parser.add_argument("--batch", type=int, action="append", help="samples at a time; default: 16, 256 and 2,048")
    for name, default in (("length", 32), ("vocabulary", 5000), ("rounds", 10), ("count", 10_000), ("lines", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--text", type=Path, help="file of samples, a line each")
    parser.add_argument("--references", type=Path, help="file of real lines")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(given)
    for name in ("text", "references"):
        file = getattr(options, name)
        if options.what == "bleu" and (file is None or not file.is_file()):
            parser.error(f"--{name} {file}: expected a text file with a line a sample")
    return options


def main(given: list[str] | None = None) -> None:
    """Measure what was asked for."""
    options = parse(given)
    if options.what == "bleu":
        of_bleu(options)
    else:
        of_sampling(options)


if __name__ == "__main__":
    main()
