"""Checks of both networks: shapes, independence of rows, gradients of first and second order."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from advgen.config.model import RunConfig
from advgen.contracts import Batch, Discriminator, Generator, Mode, Sample, Verdict, check_verdict
from advgen.randomness import seed_networks
from advgen.reduction import reduce_verdict
from advgen.testing.subject import NUM_SAMPLES, Subject, generate, judge, same, tensors


def noise_comes_from_its_generator(subject: Subject) -> None:
    """Noise is (B, ...) on the CPU and drawn from the given generator alone."""
    for mode in subject.modes():
        torch.manual_seed(1)
        one = subject.noise(mode=mode)
        torch.manual_seed(2)
        other, third = subject.noise(mode=mode), subject.noise(key=1, mode=mode)
        shape = tuple(one.shape)
        subject.expect(len(shape) > 1 and shape[0] == NUM_SAMPLES, f"noise has shape {shape}", f"({NUM_SAMPLES}, ...)")
        subject.expect(torch.equal(one, other), "noise depends on the global random state", "draws from the generator given")
        subject.expect(not torch.equal(one, third), "noise is the same for two generators", "draws from the generator given")


def generator_returns_samples(subject: Subject) -> None:
    """A Sample of finite values, as many as noise has rows, that postprocess turns into what real data look like."""
    generator, real = subject.networks()[0], subject.real()
    subject.expect(isinstance(generator, Generator), f"generator() is {type(generator).__name__}", "an advgen.Generator")
    for mode, preset in subject.modes().items():
        sample = generate(generator, subject.noise(mode=mode), real.condition, mode)
        subject.expect(isinstance(sample, Sample), f"the generator returned {type(sample).__name__}", "an advgen.Sample")
        for what, tensor in tensors(sample):
            shape = tuple(tensor.shape)
            subject.expect(len(shape) > 0 and shape[0] == NUM_SAMPLES, f"sample.{what} is {shape}", f"({NUM_SAMPLES}, ...)")
            subject.expect(bool(torch.isfinite(tensor).all()), f"sample.{what} is not finite", "finite numbers")
        _check_mode(subject, sample, mode, preset)
    fake = subject.modality.postprocess(generate(generator, subject.noise(), real.condition), real.condition)
    subject.expect(isinstance(fake, Batch), f"postprocess returned {type(fake).__name__}", "an advgen.Batch")
    shapes = tuple(fake.values.shape[1:]), tuple(real.values.shape[1:])
    subject.expect(shapes[0] == shapes[1], f"generated samples are {shapes[0]}, prepared real ones {shapes[1]}", "one shape")


def _check_mode(subject: Subject, sample: Sample, mode: Mode, preset: str) -> None:
    """The further fields that an estimator reads."""
    why = f"for mode {mode!r}, which preset {preset} uses"
    if mode == "relaxed":
        relaxed = sample.relaxed
        hot = relaxed is not None and bool(((relaxed == 0) | (relaxed == 1)).all()) and bool((relaxed.sum(-1) == 1).all())
        subject.expect(hot, "sample.relaxed is missing or not one-hot", f"one-hot (B, L, V) {why}")
    elif mode == "log_prob":
        log_prob, entropy = sample.log_prob, sample.entropy
        given = log_prob is not None and entropy is not None and log_prob.shape == entropy.shape == sample.values.shape[:2]
        subject.expect(given, "sample.log_prob or sample.entropy is missing or misshapen", f"(B, L) each {why}")
        assert log_prob is not None and entropy is not None  # just checked
        fine = bool((log_prob <= 1e-6).all()) and bool((entropy >= -1e-6).all())
        subject.expect(fine, "log-probabilities above 0 or entropies below 0", f"logarithms of probabilities {why}")


def generated_rows_are_independent(subject: Subject) -> None:
    """In evaluation mode row i depends on noise[i] and its condition, and on nothing else in the batch."""
    generator, condition = subject.networks()[0].eval(), subject.real().condition
    noise, other = subject.noise(), subject.noise(key=1)
    with torch.no_grad():
        whole = generate(generator, noise, condition).values
        mixed = generate(generator, torch.cat([noise[:1], other[1:]]), condition).values
        changed = generate(generator, torch.cat([other[:1], noise[1:]]), condition).values
    subject.expect(
        same(whole[0], mixed[0]), "row 0 changes with the noise of other rows", "rows that depend on their own noise"
    )
    subject.expect(same(whole[1:], changed[1:]), "other rows change with noise[0]", "rows that depend on their own noise")
    subject.expect(
        not torch.equal(whole, generate(generator, other, condition).values), "all noise gives one sample", "variety"
    )


def latents_make_the_samples(subject: Subject) -> None:
    """In evaluation mode ``render`` makes of ``latent`` what ``forward`` makes of the noise, and its mean has its shape."""
    generator, condition = subject.networks()[0].eval(), subject.real().condition
    noise = subject.noise()
    with torch.no_grad():
        latent = generator.latent(noise, condition)
        mean = generator.mean_latent(latent, condition)
        whole = generate(generator, noise, condition).values
        seed_networks(0, "testing", "call")
        if generator.truncation != 1.0:
            latent = torch.lerp(mean, latent, generator.truncation)
        rendered = generator.render(latent, condition).values
    subject.expect(same(whole, rendered), "render(latent(noise)) is not forward(noise)", "two halves of one generator")
    shapes = tuple(latent.shape), tuple(mean.shape)
    subject.expect(shapes[0] == shapes[1], f"latents are {shapes[0]}, their mean {shapes[1]}", "one shape")


def verdicts_keep_the_contract(subject: Subject) -> None:
    """Raw scores (B, *positions) under boolean masks and positive weights, alike for real and generated samples."""
    generator, discriminator = subject.networks()
    real = subject.real()
    subject.expect(
        isinstance(discriminator, Discriminator),
        f"discriminator() is {type(discriminator).__name__}",
        "an advgen.Discriminator",
    )
    with torch.no_grad():
        fake = generate(generator, subject.noise(), real.condition)
        verdicts = [_judged(subject, discriminator, sample, real) for sample in (_sample(real), fake)]
    counts = [len(verdict.heads) for verdict in verdicts]
    subject.expect(counts[0] == counts[1], f"{counts[0]} heads for real, {counts[1]} for generated samples", "as many")
    for index, (one, other) in enumerate(zip(verdicts[0].heads, verdicts[1].heads, strict=True)):
        shapes = tuple(one.scores.shape), tuple(other.scores.shape)
        subject.expect(shapes[0] == shapes[1], f"head {index} scores real {shapes[0]} and generated {shapes[1]}", "one shape")
        weights = one.weight, other.weight
        fine = weights[0] == weights[1] and math.isfinite(weights[0]) and weights[0] > 0
        subject.expect(fine, f"head {index} weighs {weights[0]} for real and {weights[1]} for generated", "one positive weight")


def _sample(real: Batch) -> Sample:
    return Sample(real.values, mask=real.mask)


def _judged(subject: Subject, discriminator: Any, sample: Sample, real: Batch) -> Verdict:
    seen = discriminator.embed(sample)
    subject.expect(seen.is_floating_point(), f"embed returned {seen.dtype}", "floats that penalties can differentiate")
    subject.expect(len(seen) == NUM_SAMPLES, f"embed returned {len(seen)} rows", f"{NUM_SAMPLES}, one a sample")
    who = f"plugin {subject.name!r}: discriminator {type(discriminator).__name__}"
    verdict = check_verdict(judge(discriminator, seen, real.condition, sample.mask), NUM_SAMPLES, who)
    for index, head in enumerate(verdict.heads):
        subject.expect(head.scores.is_floating_point(), f"scores of head {index} are {head.scores.dtype}", "raw float logits")
        subject.expect(bool(torch.isfinite(_kept(head)).all()), f"scores of head {index} are not finite", "finite numbers")
        boolean = head.mask is None or head.mask.dtype is torch.bool
        subject.expect(boolean, f"the mask of head {index} is not boolean", "torch.bool, True where a score counts")
    return verdict


def _kept(head: Any) -> Tensor:
    scores: Tensor = head.scores if head.mask is None else head.scores[head.mask]
    return scores


def judged_rows_are_independent(subject: Subject) -> None:
    """Where penalties are on, the score of row i depends on sample i alone, or on its ``batch_group``."""
    if not _penalised(subject):
        return
    discriminator, real = subject.networks()[1], subject.real()
    with torch.no_grad():
        seen = discriminator.embed(_sample(real))
        kept = discriminator.batch_group
        other = torch.cat([seen[:kept], seen[kept:].flip(0) + 0.5])
        scores = [reduce_verdict(judge(discriminator, each, real.condition, real.mask))[0] for each in (seen, other)]
    subject.expect(
        same(*scores),
        f"the score of sample 0 moves from {float(scores[0]):.4g} to {float(scores[1]):.4g} with the rest of the batch",
        "no BatchNorm and no other mixing of samples in a discriminator under penalties",
    )


def gradient_reaches_the_generator(subject: Subject) -> None:
    """What the discriminator says moves the generator, through ``embed`` or through the draws' log-probabilities."""
    estimators = {mode: preset for mode, preset in subject.modes().items() if mode != "values" or preset != "every preset"}
    for mode in estimators:
        generator, discriminator = subject.networks()
        real = subject.real()
        sample = generate(generator, subject.noise(mode=mode), real.condition, mode)
        if mode == "log_prob":
            assert sample.log_prob is not None  # generator_returns_samples says so better
            goal = sample.log_prob.sum()
        else:
            goal = reduce_verdict(judge(discriminator, discriminator.embed(sample), real.condition, sample.mask)).sum()
        _gradient_arrives(subject, goal, generator, f"the score reaches no generator parameter in mode {mode!r}")


def _gradient_arrives(subject: Subject, goal: Tensor, network: Any, came: str) -> None:
    """The gradient of ``goal`` is finite and not zero for some parameter."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found: tuple[Tensor | None, ...] = ()
    if goal.requires_grad:
        found = torch.autograd.grad(goal, parameters, allow_unused=True)
    gradients = [gradient for gradient in found if gradient is not None]
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    subject.expect(
        any(bool(gradient.any()) for gradient in gradients), came, "a gradient: no detach, rounding or indexing between"
    )
    subject.expect(finite, f"{type(network).__name__} gets a gradient that is not finite", "finite numbers")


def penalties_can_be_differentiated(subject: Subject) -> None:
    """Where penalties are on, the squared input gradient has a finite gradient, also at an input of zeros."""
    if not _penalised(subject):
        return
    discriminator, real = subject.networks()[1], subject.real()
    content = discriminator.embed(_sample(real)).detach()
    for what, values in (("real samples", content), ("an input of zeros", torch.zeros_like(content))):
        seen = values.requires_grad_()
        scores = reduce_verdict(judge(discriminator, seen, real.condition, real.mask)).sum()
        subject.expect(scores.requires_grad, "scores do not depend on what embed returned", "no detach or no_grad")
        (slope,) = torch.autograd.grad(scores, seen, create_graph=True, allow_unused=True)
        subject.expect(slope is not None and slope.requires_grad, f"no double backward at {what}", "second derivatives")
        _second_order(subject, slope.square().sum(), discriminator, what)


def _second_order(subject: Subject, penalty: Tensor, discriminator: Any, what: str) -> None:
    parameters = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(penalty, parameters, allow_unused=True)
    kept = [gradient for gradient in gradients if gradient is not None]
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in [penalty, *kept])
    subject.expect(finite, f"the penalty at {what} is not finite", "an epsilon inside every root and power")
    subject.expect(bool(kept), f"the penalty at {what} reaches no discriminator parameter", "second derivatives")


def likelihood_is_a_cost_per_position(subject: Subject) -> None:
    """Where a preset uses the likelihood, it is (B, *positions) nats with a gradient for the generator."""
    using = [name for name in (None, *subject.spec.presets) if _uses_likelihood(subject.configured(preset=name))]
    if not using:
        return
    if using[0] is not None:
        subject = replace(subject, preset=using[0])
    generator, real = subject.networks()[0], subject.real()
    nats = subject.modality.likelihood(generator, real)
    shape = tuple(nats.shape)
    subject.expect(len(shape) > 0 and shape[0] == NUM_SAMPLES, f"likelihood() is {shape}", f"({NUM_SAMPLES}, *positions)")
    fits = real.mask is None or nats.shape == real.mask.shape
    subject.expect(fits, f"likelihood() is {shape}", "the shape of the batch's mask")
    _gradient_arrives(subject, nats.sum(), generator, "likelihood() reaches no generator parameter")


def _uses_likelihood(config: RunConfig) -> bool:
    return "likelihood" in config.auxiliary or "likelihood" in {phase.kind for phase in config.phases}


def _penalised(subject: Subject) -> bool:
    return any(penalty.amount > 0 for penalty in subject.config.penalties.values())
