"""Generators and critics of the text plugin: what all of them promise, and what is each one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from advgen import ConfigError, DataError, DataRequest, GenError, Sample, gumbel
from advgen_text.config import TextConfig
from advgen_text.critics import MultiCritic, Reader, Sight, TransformerCritic
from advgen_text.critics.convolutional import RELGAN, SEQGAN, ConvolutionalCritic
from advgen_text.generators import RelationalWriter, Sizes, TransformerWriter, Writer
from advgen_text.generators.relational import RelationalMemory
from advgen_text.making import make_critic, make_generator
from advgen_text.modality import TextModality
from advgen_text.tokenizer import BOS, EOS, PAD, SPECIALS

V, L = 13, 9
GENERATORS = [("lstm", "gpt2"), ("relational", "gpt2"), ("transformer", "gpt2"), ("transformer", "llama")]
CRITICS = [("recurrent", "gpt2"), ("cnn", "gpt2"), ("multi", "gpt2"), ("transformer", "gpt2"), ("transformer", "llama")]
SMALL = {
    "generator_embedding": 8,
    "generator_hidden": 8,
    "critic_embedding": 6,
    "critic_hidden": 10,
    "critic_filters": 0.02,
    "critic_dropout": 0.0,
    "memory_head_size": 6,
    "transformer_layers": 2,
    "transformer_heads": 2,
}
every_generator = pytest.mark.parametrize(("kind", "transformer"), GENERATORS)
every_critic = pytest.mark.parametrize(("kind", "transformer"), CRITICS)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def facts(classes: int = 0) -> dict[str, Any]:
    return {"length": L, "classes": [str(number) for number in range(classes)]}


def writer(kind: str, transformer: str, *, classes: int = 0, **more: Any) -> Writer:
    torch.manual_seed(0)
    config = TextConfig(generator=kind, transformer=transformer, **(SMALL | more))  # type: ignore[arg-type]
    made = make_generator(config, facts(classes), V)
    with torch.no_grad():
        for parameter in made.parameters():  # far enough from the start that samples differ
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng(7)))
    return made


def critic(kind: str, transformer: str, *, classes: int = 0, **more: Any) -> Reader:
    torch.manual_seed(0)
    return make_critic(TextConfig(critic=kind, transformer=transformer, **(SMALL | more)), facts(classes), V)  # type: ignore[arg-type]


def noise(count: int = 6, relaxed: bool = False) -> Tensor:
    return torch.rand(count, L, V, generator=rng()) if relaxed else torch.rand(count, L, generator=rng())


def sentences(count: int = 6) -> tuple[Tensor, Tensor]:
    """Tokens of every length from 1, and their mask."""
    tokens = torch.randint(4, V, (count, L), generator=rng(1))
    mask = torch.arange(L) <= torch.arange(count).unsqueeze(1)
    ends = torch.arange(L) == torch.arange(count).unsqueeze(1)
    return torch.where(mask, torch.where(ends, EOS, tokens), PAD), mask


# Generators


@every_generator
def test_tokens_written_step_by_step_have_the_logits_of_one_pass(kind: str, transformer: str) -> None:
    generator, found = writer(kind, transformer), list[Tensor]()

    def choose(logits: Tensor, before: Tensor, uniform: Tensor) -> Tensor:
        found.append(logits)
        return 4 + (uniform * (V - 4)).long()  # no end, so that all rows stay

    values = generator.draw(noise(), {}, choose=choose)
    torch.testing.assert_close(torch.stack(found, 1), generator.score(values, {}, drawn=True), atol=1e-5, rtol=1e-5)


@every_generator
def test_dropping_sentences_that_have_ended_changes_no_other(kind: str, transformer: str) -> None:
    generator = writer(kind, transformer)
    together = generator(noise(40), {}).values
    alone = torch.cat([generator(row.unsqueeze(0), {}).values for row in noise(40)])
    assert torch.equal(together, alone)
    assert len((together == EOS).int().argmax(1).unique()) > 1


@every_generator
def test_a_padded_batch_costs_what_its_sentences_cost_one_by_one(kind: str, transformer: str) -> None:
    generator, (tokens, mask) = writer(kind, transformer), sentences()
    together = generator.token_costs(tokens, {}, mask)
    for row in range(len(tokens)):
        size = row + 1
        alone = generator.token_costs(tokens[row : row + 1, :size], {}, mask[row : row + 1, :size])
        torch.testing.assert_close(together[row : row + 1, :size], alone, atol=1e-5, rtol=1e-5)
        assert (together[row, size:] == 0).all()


@every_generator
def test_padding_gives_no_gradient(kind: str, transformer: str) -> None:
    generator, (tokens, mask) = writer(kind, transformer), sentences()
    other = torch.where(mask, tokens, 5)
    grads = []
    for given in (tokens, other):
        generator.zero_grad()
        generator.token_costs(given, {}, mask).sum().backward()
        grads.append(torch.cat([p.grad.flatten() for p in generator.parameters() if p.grad is not None]))
    torch.testing.assert_close(grads[0], grads[1])


@every_generator
def test_relaxed_tokens_are_the_gumbel_draws_and_carry_a_gradient_everywhere(kind: str, transformer: str) -> None:
    generator = writer(kind, transformer).double()
    given = noise(relaxed=True).double()
    fake = generator(given, {}, mode="relaxed", temperature=0.7)
    expected = (generator.score(fake.values, {}, drawn=True) + gumbel(given)).argmax(2)
    assert torch.equal(fake.values, torch.where(fake.mask, expected, PAD))
    assert torch.equal(F.one_hot(fake.values, V).double(), fake.relaxed.detach())
    (fake.relaxed * torch.randn(V, generator=rng()).double()).sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name


@every_generator
def test_an_early_relaxed_token_feels_what_comes_of_it_later(kind: str, transformer: str) -> None:
    generator = writer(kind, transformer).double()
    fake = generator(noise(relaxed=True).double(), {}, mode="relaxed")
    rows = fake.mask.sum(1) >= 3
    seen = list[Tensor]()
    fake.relaxed.register_hook(lambda gradient: seen.append(gradient))
    (fake.relaxed[rows, 2] * torch.randn(V, generator=rng()).double()).sum().backward(inputs=[generator.bias])
    whole = generator.bias.grad.clone()
    logits = generator.score(fake.values, {}, drawn=True) + gumbel(noise(relaxed=True).double())
    direct = torch.autograd.grad((logits[rows, 2].softmax(1) * torch.randn(V, generator=rng()).double()).sum(), generator.bias)
    assert rows.any() and not torch.allclose(whole, direct[0])


@every_generator
def test_log_probabilities_and_entropies_are_those_of_the_scores(kind: str, transformer: str) -> None:
    generator = writer(kind, transformer)
    drawn = generator(noise(), {}, mode="log_prob")
    rows = generator.score(drawn.values, {}, drawn=True).log_softmax(2)
    chosen = rows.gather(2, drawn.values.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(drawn.log_prob, chosen.masked_fill(~drawn.mask, 0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(drawn.entropy[drawn.mask], -(rows.exp() * rows).sum(2)[drawn.mask], atol=1e-5, rtol=1e-5)


@every_generator
@pytest.mark.parametrize("mode", ["values", "relaxed", "log_prob"])
def test_a_continuation_keeps_its_prefix_and_counts_only_what_was_drawn(kind: str, transformer: str, mode: Any) -> None:
    generator = writer(kind, transformer)
    prefix = torch.tensor([[5, 6, 7], [8, PAD, PAD], [9, EOS, PAD], [PAD, PAD, PAD]])
    given = noise(4, relaxed=mode == "relaxed")
    found = generator.continue_from(prefix, given, {}, mode=mode)
    assert torch.equal(found.values[:, :3][prefix != PAD], prefix[prefix != PAD])
    assert not found.mask[:, :3][prefix != PAD].any() and found.mask[0, 3] and found.mask[1, 1]
    assert (found.values[2, 2:] == PAD).all() and not found.mask[2].any()
    assert torch.equal(found.values[3], generator(given, {}, mode=mode).values[3])
    if mode == "log_prob":
        assert (found.log_prob[~found.mask] == 0).all() and (found.log_prob[found.mask] < 0).all()


@every_generator
def test_a_class_and_a_prompt_condition_the_same_model(kind: str, transformer: str) -> None:
    generator = writer(kind, transformer, classes=2)
    tokens = sentences()[0]
    one, other = (generator.score(tokens, {"label": torch.full((6,), label)}) for label in (0, 1))
    assert not torch.allclose(one, other)
    both = generator(noise(), {"label": torch.arange(6) % 2, "prompt": torch.full((6, 2), 7)})
    assert (both.values[:, :2] == 7).all()


@every_generator
def test_half_precision_writes_reads_and_learns(kind: str, transformer: str) -> None:
    generator, (tokens, mask) = writer(kind, transformer), sentences()
    with torch.autocast("cpu", torch.bfloat16):
        drawn = generator(noise(), {}, mode="log_prob")
        fake = generator(noise(relaxed=True), {}, mode="relaxed")
        cost = generator.token_costs(tokens, {}, mask)
        scores = generator.score(drawn.values, {})
    assert scores.dtype is torch.float32 and set(fake.relaxed.detach().unique().tolist()) == {0.0, 1.0}
    (drawn.log_prob.sum() + fake.relaxed[..., 4].sum() + cost.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())
    exact = generator.token_costs(tokens, {}, mask)
    torch.testing.assert_close(cost.float(), exact, atol=0.15, rtol=0.1)


@every_generator
def test_dropout_is_of_likelihood_training_alone(kind: str, transformer: str) -> None:
    generator, (tokens, mask) = writer(kind, transformer, dropout=0.5), sentences()
    assert torch.equal(generator.score(tokens, {}), generator.score(tokens, {}))
    assert not torch.equal(generator.token_costs(tokens, {}, mask), generator.token_costs(tokens, {}, mask))
    assert torch.equal(generator.score(tokens, {}), generator.eval().score(tokens, {}))
    assert torch.equal(generator.token_costs(tokens, {}, mask), generator.token_costs(tokens, {}, mask))


@every_generator
def test_prompts_that_do_not_fit_are_refused(kind: str, transformer: str) -> None:
    with pytest.raises(GenError, match="prompts of shape"):
        writer(kind, transformer).continue_from(torch.full((6, L + 1), 5), noise(), {})


def test_the_memory_is_gated_as_published() -> None:
    torch.manual_seed(0)
    memory = RelationalMemory(4, slots=3, heads=2, head_size=5)
    before, inputs = torch.randn(2, 3, 10), torch.randn(2, 4)
    with torch.no_grad():
        for gates in (memory.input_gates, memory.memory_gates):
            gates.weight.zero_()
            gates.bias.zero_()
        memory.memory_gates.bias.copy_(torch.cat([torch.full((10,), -50.0), torch.full((10,), 50.0)]))
    torch.testing.assert_close(memory(inputs, before), before)  # nothing written, all kept
    with torch.no_grad():
        memory.memory_gates.bias.neg_()
    assert memory(inputs, before).abs().max() <= 1  # all written through a tanh, nothing kept


def test_slots_start_as_rows_of_the_identity_and_attend_to_each_other() -> None:
    generator = RelationalWriter(Sizes(V, L), embedding=8, slots=2, heads=2, head_size=3)
    first = generator.start(2)
    assert torch.equal(first[0], torch.eye(6)[:2])
    moved = first.clone()
    moved[:, 1] += 1
    inputs = torch.zeros(2, 8)
    assert not torch.allclose(generator.memory(inputs, first)[:, 0], generator.memory(inputs, moved)[:, 0])


def test_keys_and_values_are_written_in_place_unless_a_gradient_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, joins = writer("transformer", "gpt2"), []
    join = torch.cat
    monkeypatch.setattr(torch, "cat", lambda *args, **names: joins.append(1) or join(*args, **names))
    generator(noise(), {})
    assert not joins
    generator(noise(relaxed=True), {}, mode="relaxed")
    assert joins


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator_hidden": 17}, "not a multiple of options.transformer_heads"),
        ({"transformer": "llama", "generator_hidden": 6}, "even width"),
    ],
)
def test_widths_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        writer("transformer", options.pop("transformer", "gpt2"), **options)


# Pretrained folders


def pretrained(folder: Path, kind: str, **more: Any) -> Any:
    import tokenizers as tk
    import transformers

    inner = tk.Tokenizer(tk.models.BPE())
    inner.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tk.decoders.ByteLevel()
    trainer = tk.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tk.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(["the dog sleeps .", "a cat sings in the garden ."], trainer)
    torch.manual_seed(3)
    size = inner.get_vocab_size()
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=40, bos_token_id=0, eos_token_id=0, **more
        )
    else:
        config = transformers.LlamaConfig(
            vocab_size=size,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=40,
            bos_token_id=0,
            eos_token_id=0,
            **more,
        )
    whole = transformers.AutoModelForCausalLM.from_config(config).eval()
    whole.save_pretrained(folder)
    inner.save(str(folder / "tokenizer.json"))
    return whole


@pytest.mark.parametrize(
    ("kind", "more"), [("gpt2", {}), ("llama", {"tie_word_embeddings": False}), ("llama", {"tie_word_embeddings": True})]
)
def test_a_pretrained_model_says_here_what_it_said_there(kind: str, more: dict[str, Any], tmp_path: Path) -> None:
    whole = pretrained(tmp_path / "model", kind, **more)
    config = TextConfig(generator="transformer", pretrained=str(tmp_path / "model"), phrases=200)
    corpus = TextModality.read(config, DataRequest(None))
    text = TextModality(config, corpus.facts)
    generator = text.generator()
    assert isinstance(generator, TransformerWriter)
    tokens = text.tokenizer.encode(["the dog sleeps in a garden."], text.length)[:, :7]
    theirs = whole(torch.cat([torch.zeros(1, 1, dtype=torch.int64), tokens[:, :-1] - len(SPECIALS)], 1)).logits
    ours = generator.score(tokens, {})[..., len(SPECIALS) :]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert text.tokenizer.decode(tokens)[0] == "the dog sleeps in a garden."[: len(text.tokenizer.decode(tokens)[0])]
    values = generator(text.noise(3, rng()), {}).values
    assert not ((values == BOS) | (values == 3)).any() and len(text.tokenizer.decode(values)) == 3


def test_a_run_from_a_pretrained_folder_is_sampled_without_it(tmp_path: Path) -> None:
    pretrained(tmp_path / "model", "gpt2")
    config = TextConfig(generator="transformer", pretrained=str(tmp_path / "model"), phrases=200)
    found = TextModality.read(config, DataRequest(None)).facts
    weights = TextModality(config, found).generator().state_dict()
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    text = TextModality(config, found)
    again = text.generator()
    again.load_state_dict(weights)
    assert again(text.noise(2, rng()), {}).values.shape == (2, text.length)


def test_folders_that_cannot_be_started_from_are_refused_by_name(tmp_path: Path) -> None:
    def refused(match: str, error: type[Exception] = DataError, **more: Any) -> None:
        config = TextConfig(generator="transformer", pretrained=str(tmp_path / "model"), phrases=200, **more)
        with pytest.raises(error, match=match):
            TextModality.read(config, DataRequest(None))

    refused("is no folder")
    pretrained(tmp_path / "model", "gpt2")
    refused("longer than the 40 places", ConfigError, max_length=64)
    (tmp_path / "model" / "tokenizer.json").unlink()
    refused(r"holds no tokenizer\.json")
    weights = next((tmp_path / "model").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    refused("pickled weights are never read")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "bert"}')
    refused("type 'bert'; known: gpt2, llama")
    with pytest.raises(ValueError, match="is for generator=transformer"):
        TextConfig(pretrained="x")


# Critics


def heads(found: Any) -> list[Tensor]:
    return [head.scores if head.mask is None else head.scores.masked_fill(~head.mask, 0) for head in found.heads]


@every_critic
def test_a_padded_batch_is_judged_as_its_sentences_one_by_one(kind: str, transformer: str) -> None:
    judge, (tokens, mask) = critic(kind, transformer), sentences()
    seen = judge.embed(Sample(tokens, mask=mask))
    together = heads(judge(seen, {}, mask))
    wider = heads(judge(F.pad(seen, (0, 0, 0, 4), value=0.3), {}, F.pad(mask, (0, 4))))
    for row in range(len(tokens)):
        alone = heads(judge(seen[row : row + 1, : row + 1], {}, mask[row : row + 1, : row + 1]))
        for whole, wide, single in zip(together, wider, alone, strict=True):
            size = single.shape[1:] if single.dim() == 1 else (slice(None), slice(row + 1))
            part = whole[row : row + 1] if single.dim() == 1 else whole[row : row + 1][size]
            torch.testing.assert_close(part, single, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(wide[row], F.pad(whole[row], (0, 4)) if whole.dim() > 1 else whole[row])


@every_critic
def test_relaxed_tokens_are_judged_as_tokens_and_send_a_gradient_back(kind: str, transformer: str) -> None:
    judge, generator = critic(kind, transformer), writer("lstm", "gpt2")
    fake = generator(noise(relaxed=True), {}, mode="relaxed")
    seen = judge.embed(fake)
    torch.testing.assert_close(seen, judge.embed(Sample(fake.values)))
    torch.testing.assert_close(seen.norm(dim=2), torch.ones(seen.shape[:2]))
    sum(scores.sum() for scores in heads(judge(seen, {}, fake.mask))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


@every_critic
def test_every_critic_has_a_second_derivative_and_one_that_is_finite_at_zero(kind: str, transformer: str) -> None:
    judge = critic(kind, transformer).double()
    tokens, mask = sentences(2)
    seen = judge.embed(Sample(tokens)).detach()[:, :3].requires_grad_()
    # Llama's norms are taken in single precision, whatever comes in: wider steps, or the check sees rounding.
    widths = {"eps": 1e-3, "atol": 1e-3} if transformer == "llama" else {}
    assert torch.autograd.gradgradcheck(lambda x: heads(judge(x, {}, mask[:, :3]))[0], seen, **widths)
    zeros = torch.zeros_like(seen).requires_grad_()
    (slope,) = torch.autograd.grad(sum(s.sum() for s in heads(judge(zeros, {}, mask[:, :3]))), zeros, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in judge.parameters())


@every_critic
def test_a_class_moves_the_verdict_and_a_prompt_is_read_but_not_scored(kind: str, transformer: str) -> None:
    judge, (tokens, mask) = critic(kind, transformer, classes=2), sentences()
    seen = judge.embed(Sample(tokens))
    one, other = (heads(judge(seen, {"label": torch.full((6,), label)}, mask)) for label in (0, 1))
    assert not torch.allclose(one[0], other[0])
    drawn = mask.clone()
    drawn[:, :2] = False
    prompts = {"prompt": tokens[:, :2], "label": torch.zeros(6, dtype=torch.int64)}
    changed = seen.clone()
    changed[3:, 0] = seen[3:, 1]
    before, after = (heads(judge(x, prompts, drawn)) for x in (seen, changed))
    assert not all(torch.allclose(x[3:], y[3:]) for x, y in zip(before, after, strict=True))


def test_the_convolutional_critics_have_the_published_filters() -> None:
    torch.manual_seed(0)
    seqgan = ConvolutionalCritic(Sight(50, 64), length=20)
    counts = {layer.kernel_size[0]: layer.out_channels for layer in seqgan.windows.filters}
    assert counts == SEQGAN and sum(counts.values()) == 1720
    relgan = MultiCritic(Sight(50, 64), length=20)
    assert {layer.kernel_size[0]: layer.out_channels for layer in relgan.windows.filters} == RELGAN
    tokens = torch.randint(4, 50, (2, 20))
    found = relgan(relgan.embed(Sample(tokens)), {}, tokens > 0)
    assert len(found.heads) == 64 and {head.scores.shape for head in found.heads} == {(2,)}
    assert sum(head.weight for head in found.heads) == pytest.approx(1)


def test_a_short_corpus_leaves_out_filters_that_never_fit() -> None:
    sizes = [layer.kernel_size[0] for layer in ConvolutionalCritic(Sight(V, 4), length=4).windows.filters]
    assert sizes == [1, 2, 3, 4]


@pytest.mark.parametrize("transformer", ["gpt2", "llama"])
def test_a_transformer_critic_starts_as_the_generator_where_the_adversarial_phase_begins(transformer: Any) -> None:
    config = TextConfig(generator="transformer", critic="transformer", transformer=transformer, phrases=200, **SMALL)
    text = TextModality(config, TextModality.read(config, DataRequest(None)).facts)
    torch.manual_seed(0)
    generator, judge = text.generator(), text.discriminator()
    assert isinstance(generator, TransformerWriter) and isinstance(judge, TransformerCritic)
    with torch.no_grad():
        generator.tokens.weight.div_(generator.tokens.weight.norm(dim=1, keepdim=True)).mul_(0.5)
    text.enter_phase("likelihood", generator, judge)
    tokens = torch.randint(4, 20, (3, 6), generator=rng())
    assert not torch.equal(judge.tokens.weight, generator.tokens.weight)
    text.enter_phase("adversarial", generator, judge)
    own = judge._states(judge.inputs(judge.embed(Sample(tokens)), {}))
    torch.testing.assert_close(own, generator.read(generator.tokens(tokens), 0.0), atol=1e-5, rtol=1e-5)


def test_without_the_package_a_transformer_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'advgen\[transformers\]'"):
        writer("transformer", "gpt2")
