"""From a configuration and a corpus to players, objective and data: everything a training loop needs."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from advgen.blame import kind_of
from advgen.border import refusal, require_methods, require_signatures
from advgen.config.load import options_of
from advgen.config.model import PlayerConfig, RunConfig
from advgen.contracts import Batch, Corpus, DataRequest, Discriminator, Generator, Modality, Mode, Source
from advgen.controllers import CONTROLLERS
from advgen.data.datasets import is_address, locate, names_set, nearest_set
from advgen.data.labels import held_out_notes, listed
from advgen.data.resident import keep_on_device
from advgen.engine import corrected, make_player
from advgen.errors import ConfigError, ContractError, DataError
from advgen.estimators import get_estimator
from advgen.faults import batch_fault
from advgen.files import user_path
from advgen.losses import Loss, get_loss
from advgen.metrics.report import better_direction
from advgen.penalties import get_penalty, plays
from advgen.players import Chunk, Draw, Objective, Players
from advgen.randomness import keyed_generator, repeat_exactly, sample_indices, seed_networks
from advgen.recording import make_recorder
from advgen.registry import PluginRecord, resolve
from advgen.rehearsal import rehearse
from advgen.schedules import make_scale
from advgen.tables import losses_of, penalties_of
from advgen.transfer import to_device
from advgen.updates.judging import mixes_samples
from advgen.world import World

NOISE_ROWS = 512
"""Rows of further noise under one key; another number is other noise."""
FIRST_ROWS = 3
"""Number of rows of each split to check when data are read."""
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


@dataclass
class Setup:
    """A run that is ready to train or to be restored into."""

    config: RunConfig
    record: PluginRecord
    modality: Modality[Any]
    corpus: Corpus
    players: Players
    objective: Objective
    draw: Draw
    world: World
    notes: tuple[str, ...] = ()


def modality_class(record: PluginRecord) -> type[Modality[Any]]:
    """The plugin's modality, checked.

    Raises:
        ContractError: if the string names something else, or a method is missing or has other parameters.
    """
    found = resolve(_spec(record).modality)
    if not (isinstance(found, type) and issubclass(found, Modality)):
        what = f"{_spec(record).modality!r} is {kind_of(found)}"
        raise ContractError(f"plugin {record.name!r}: {what}, expected a sub-class of advgen.Modality")
    require_signatures(found)
    # One with a __new__ of its own may make an object of another class, but is asked to read itself.
    if found.__new__ is Modality.__new__ or "read" in found.__abstractmethods__:
        require_methods(found)
    return found


def read_corpus(record: PluginRecord, config: RunConfig, new: bool = False) -> tuple[Modality[Any], Corpus]:
    """Read the data that the configuration names, an archive by way of the cache, and build its modality.

    Args:
        new: whether the run is only being started, so that other data can still be named.

    Raises:
        DataError: where the path does not exist, or the plugin refuses what is there.
    """
    data, options, kind = config.data, options_of(record, config), modality_class(record)
    request = DataRequest(None, data.max_bad, data.validation_share, data.test_share, config.train.seed)
    if data.path and is_address(record, data.path):
        corpus = read_checked(kind, options, dataclasses.replace(request, address=data.path))
        return kind(options, corpus.facts), corpus
    given = user_path(data.path) if data.path else None
    if given is not None and not given.exists() and not names_set(record, str(data.path)):
        meant = nearest_set(record, given) if new else ""
        raise DataError(f"data path {given} does not exist; {meant}{_way_out(record, new)}")
    path = locate(record, str(data.path)) if given is not None else None
    archived = path != given
    try:
        corpus = read_checked(kind, options, dataclasses.replace(request, path=path))
    except DataError as error:
        if not archived:
            raise
        raise DataError(f"{given}, unpacked: {error}") from error
    return kind(options, corpus.facts), corpus


def read_checked(kind: type[Modality[Any]], options: Any, request: DataRequest) -> Corpus:
    """Read data and check the first rows of every split.

    Raises:
        ContractError: if a source does not return a batch of the requested rows.
    """
    corpus = kind.read(options, request)
    for source in corpus.splits.values():
        indices = torch.arange(min(FIRST_ROWS, len(source)))
        batch = source.batch(indices, keyed_generator(request.seed, "first rows")) if len(indices) else None
        if batch is not None and (fault := batch_fault(batch, len(indices))):
            raise refusal(source.batch, f"returned {fault}", type(source), "batch")
    return corpus


def start_anew(record: PluginRecord, data: str | None, run: str) -> str:
    """The command that takes a run's weights and configuration on, to other data or for None to its own."""
    plugin = f" --plugin {record.path}" if record.path is not None and record.sha256 else ""
    return f"gen train{plugin} --config {Path(run) / 'config.toml'}{f' --data {data}' if data else ''} --from {run}"


def _way_out(record: PluginRecord, new: bool) -> str:
    if new:
        sets = f", or a named set: {', '.join(sorted(_spec(record).datasets))}" if _spec(record).datasets else ""
        return f"--data takes a file, a folder or an archive{sets}"
    anew = start_anew(record, "OTHER_DATA", "RUN")
    return f"the run was trained on what was there: put it back at that path, or start anew with: {anew}"


def build(
    record: PluginRecord,
    config: RunConfig,
    world: World,
    new: bool = False,
    before: Callable[[Modality[Any], Corpus], None] | None = None,
) -> Setup:
    """Read data, make networks, optimizers and objective; refuse a setup that cannot work before the first step.

    Args:
        new: True if the run is new, False if it is resumed.
        before: called after data are read, before memory is taken for networks.
    """
    if config.train.deterministic and world.device.type == "cuda":
        repeat_exactly()
    objective = make_objective(record, config)
    modality, corpus = read_corpus(record, config, new)
    if before is not None:
        before(modality, corpus)
    config, notes = settle(config, modality)
    if config.stop.metric is not None and config.stop.better is None:
        better_direction(config.stop.metric, modality)  # which refuses a metric that has none
    objective = dataclasses.replace(objective, config=config)
    check_fits(config, corpus, world)
    players = make_players(modality, config, world)
    rehearse(players, objective, corpus.splits["train"])
    players.recorder = make_recorder(players, config)
    source, kept = keep_on_device(corpus.splits["train"], world.device, config.data.device_share)
    draw = make_draw(modality, source, config, players)
    few = held_out_notes(len(corpus.splits.get("test", ())))
    return Setup(config, record, modality, corpus, players, objective, draw, world, (*corpus.notes, *few, *notes, *kept))


def settle(config: RunConfig, modality: Modality[Any]) -> tuple[RunConfig, tuple[str, ...]]:
    """Put the modality's numbers where the configuration says ``auto``; a line about each.

    Raises:
        ConfigError: where the modality has no rule for a penalty.
    """
    found, notes = dict(config.penalties), list[str]()
    for name, penalty in config.penalties.items():
        if penalty.weight == "auto":
            weight = modality.automatic_weight(name, config.train.batch_size)
            found[name] = penalty.model_copy(update={"weight": weight})
            notes.append(f"penalties.{name}.weight: auto is {weight:.4g} here, with batches of {config.train.batch_size}")
    return config.model_copy(update={"penalties": found}), tuple(notes)


def make_objective(record: PluginRecord, config: RunConfig) -> Objective:
    """Find loss, penalties and schedules by name, in the core and in the plugin."""
    losses, known = losses_of(record), penalties_of(record)
    penalties = {name: get_penalty(name, known) for name in config.penalties if name not in CONTROLLERS}
    get_estimator(config.estimator.name)
    loss = get_loss(config.loss, losses)
    _check_estimator(config, loss, losses)
    if loss.couples_batch and config.train.accumulate > 1:
        raise ConfigError(f"loss {loss.name} needs the whole batch at once and cannot accumulate; set train.accumulate=1")
    coupled = [name for name, penalty in penalties.items() if penalty.couples_batch and config.penalties[name].amount > 0]
    if coupled and config.train.accumulate > 1:
        raise ConfigError(f"penalty {coupled[0]} needs the whole batch at once and cannot accumulate; set train.accumulate=1")
    return Objective(config, loss, penalties, make_scale(config))


def _check_estimator(config: RunConfig, loss: Loss, losses: Mapping[str, Loss]) -> None:
    """Refuse what an estimator cannot make of a loss, of micro-batches or of further costs."""
    estimator, further = config.estimator, sorted(set(config.auxiliary) - {"likelihood"})
    if estimator.name == "expectation" and (loss.pairs or loss.couples_batch):
        raise ConfigError(
            f"estimator expectation weighs each token by itself, but loss {loss.name} compares it with real ones; take a loss "
            "that does neither, such as nonsaturating"
        )
    if estimator.name == "ppo" and further:
        raise ConfigError(f"estimator ppo knows no auxiliary.{further[0]}, only likelihood: its samples carry no gradient")
    if estimator.name not in ("score_function", "ppo") or estimator.rewards != "importance":
        return
    if not loss.density_ratio:
        known = ", ".join(name for name, each in losses.items() if each.density_ratio)
        raise ConfigError(
            f"estimator.rewards=importance takes D's logit for a density ratio, which that of loss {loss.name} is not; "
            f"use one of {known}"
        )
    if config.train.accumulate > 1:
        raise ConfigError("estimator.rewards=importance needs the whole batch at once; set train.accumulate=1")


def make_players(modality: Modality[Any], config: RunConfig, world: World) -> Players:
    """Networks from keyed initial states, alike on every rank, with optimizers and average."""
    dtype = DTYPES.get(config.train.precision, torch.float32)
    seed_networks(config.train.seed, "initial", "generator")
    generator = modality.generator()
    seed_networks(config.train.seed, "initial", "discriminator")
    discriminator = modality.discriminator()
    for network in (generator, discriminator):
        place(network, config, world.device, dtype)
    _check_networks(generator, discriminator)
    _check_coupling((generator, discriminator), config, world)
    if "path_length" in config.penalties and type(generator).path_lengths is Generator.path_lengths:
        generator.path_lengths(torch.empty(0), {})  # which says what is missing, before the first step
    _check_hooks(generator, config)
    _check_slope(discriminator, config)
    average = copy.deepcopy(generator).requires_grad_(False) if config.average.enabled else None
    holds = config.estimator.name == "ppo" and config.estimator.reference_weight > 0
    reference = copy.deepcopy(generator).requires_grad_(False) if holds else None
    half = config.train.precision
    autocast = half == "bfloat16" or (half == "auto" and world.device.type == "cuda" and torch.cuda.is_bf16_supported())
    return Players(
        make_player("generator", generator, _settings(config, "generator"), world.device),
        make_player("discriminator", discriminator, _settings(config, "discriminator"), world.device),
        average,
        modality,
        world,
        dtype,
        autocast,
        mixes_samples(discriminator) or not config.discriminator.one_pass,
        reference=reference,
    )


def place(network: nn.Module, config: RunConfig, device: torch.device, dtype: torch.dtype) -> None:
    """Move a network to the device, in the order of memory that the configuration names."""
    network.to(device, dtype)
    if config.train.channels_last:  # of weights alone: what a convolution makes of them lies as they do
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch leaves it out


def _settings(config: RunConfig, player: str) -> PlayerConfig:
    """A player's optimizer settings, corrected where a penalty takes updates of its own."""
    settings: PlayerConfig = getattr(config, player)
    if player == "discriminator" and "lecam" in config.penalties and config.penalties["lecam"].own_step:
        raise ConfigError("penalties.lecam.own_step: it is a part of the loss's update, at no further cost; leave own_step out")
    own = {n: p.interval for n, p in config.penalties.items() if p.own_step and p.amount > 0 and plays(n) == player}
    if not own:
        return settings
    if len(set(own.values())) > 1:
        given = ", ".join(f"penalties.{name}.interval={interval}" for name, interval in own.items())
        raise ConfigError(f"penalties with own_step share one update of the {player}, so they need one interval; got {given}")
    return corrected(settings, next(iter(own.values())))


def make_draw(modality: Modality[Any], source: Source, config: RunConfig, players: Players) -> Draw:
    """Batches keyed by stream and update: drawn for the global batch, then cut by rank and micro-batch."""
    train, world, mode = config.train, players.world, get_estimator(config.estimator.name).mode
    share = train.batch_size // (world.size * train.accumulate)
    # A model without conditions has none to mistake, though its data may have labels for the judge.
    mistakes = config.discriminator.mismatch > 0 and bool(modality.condition(1, torch.Generator()))

    def draw(stream: str, update: int) -> list[Chunk]:
        wanted: Mode = mode if stream == "generator" else "values"
        indices = sample_indices(train.seed, stream, update * train.batch_size, train.batch_size, len(source))
        batch = source.batch(indices, keyed_generator(train.seed, "crop", stream, update))
        rng = keyed_generator(train.seed, "noise", stream, update)
        noise = modality.noise(train.batch_size, rng, mode=wanted)
        mixing = torch.rand(train.batch_size, generator=rng)
        starts = [(part * world.size + world.rank) * share for part in range(train.accumulate)]
        cuts = [slice(start, start + share) for start in starts]

        def uniform(cut: slice, shape: tuple[int, ...]) -> torch.Tensor:
            rng = keyed_generator(train.seed, "uniform", stream, update)
            return to_device(torch.rand(train.batch_size, *shape, generator=rng, dtype=players.dtype)[cut], world.device)

        def more_noise(cut: slice, turn: int, samples: torch.Tensor, count: int) -> torch.Tensor:
            drawn = _noise_in_blocks(modality, (train.seed, "rollouts", stream, update, turn), samples + cut.start, count)
            return to_device(drawn, world.device, players.dtype if drawn.is_floating_point() else drawn.dtype)

        others = batch.rolled() if mistakes and stream == "discriminator" else None
        random = (noise, mixing, uniform, more_noise)
        return [_chunk(modality, batch, others, cut, random, players) for cut in cuts]

    return draw


def _noise_in_blocks(modality: Modality[Any], key: tuple[Any, ...], samples: torch.Tensor, count: int) -> torch.Tensor:
    """Noise (K, count, ...) of samples (K,) of the global batch, in ascending order.

    Drawn for blocks of so many samples as have ``NOISE_ROWS`` rows, each under a key of its own: neither who asks for which of
    them nor how many are asked for at once changes what they get, and no more is held than was asked for and a block.
    """
    size = max(1, NOISE_ROWS // count)
    blocks, found = samples.div(size, rounding_mode="floor"), list[torch.Tensor]()
    for block in blocks.unique().tolist():
        drawn = modality.noise(size * count, keyed_generator(*key, block)).unflatten(0, (size, count))
        found.append(drawn[samples[blocks == block] - block * size])
    return torch.cat(found)


def _chunk(
    modality: Modality[Any], batch: Batch, others: Batch | None, cut: slice, random: tuple[Any, Any, Any, Any], players: Players
) -> Chunk:
    """One rank's share of a global batch and of its random numbers, on the device."""
    (noise, mixing, uniform, more_noise), device, dtype = random, players.world.device, players.dtype
    real = modality.prepare(batch.slice(cut.start, cut.stop).to(device))
    mismatched = None if others is None else modality.prepare(others.slice(cut.start, cut.stop).to(device)).condition
    if real.values.is_floating_point() and real.values.dtype is not dtype:
        real = Batch(real.values.to(dtype), real.mask, real.condition)
    kind = dtype if noise.is_floating_point() else noise.dtype
    own_noise, own_mixing = to_device(noise[cut], device, kind), to_device(mixing[cut], device, dtype)
    bound = functools.partial(uniform, cut), functools.partial(more_noise, cut)
    return Chunk(real, own_noise, own_mixing, bound[0], cut.start, mismatched, bound[1])


def check_fits(config: RunConfig, corpus: Corpus, world: World) -> None:
    """Refuse a batch that cannot be cut evenly or a corpus that is smaller than a batch."""
    train = config.train
    parts, held = world.size * train.accumulate, len(corpus.splits["train"])
    split = f"{world.size} ranks x {train.accumulate} micro-batches"
    largest = held // parts * parts
    if held < train.batch_size:
        way = f"use --set train.batch_size={largest}, the largest that fits"
        if not largest:
            way = f"bring more data, as no batch of {split} fits" if parts > 1 else "bring more data"
        left_out = f"; left out: {listed(corpus.bad, mark='; ')}" if corpus.bad else ""
        raise DataError(f"{held} training samples are fewer than a batch of {train.batch_size}; {way}{left_out}")
    if train.batch_size % parts:
        nearest = max(train.batch_size // parts * parts, parts)
        way = f"nearest: {nearest}" if nearest <= held else f"bring more data: {held} training samples are fewer"
        raise ConfigError(f"train.batch_size={train.batch_size} is not a multiple of {split}; {way}")


def _check_networks(generator: Generator, discriminator: Discriminator) -> None:
    """Refuse initial parameters that cannot be trained."""
    networks: tuple[nn.Module, ...] = (generator, discriminator)
    for network in networks:
        for name, parameter in network.named_parameters():
            if isinstance(parameter, UninitializedParameter):
                fault = f"has the parameter {name} without a shape, expected one; give all sizes in place of a Lazy layer"
                raise refusal(type(network), fault)
            if not torch.isfinite(parameter).all():
                raise refusal(type(network), f"starts with the parameter {name} that is not finite, expected finite numbers")


def _check_slope(discriminator: Discriminator, config: RunConfig) -> None:
    """Refuse penalties of a discriminator that has no gradient to differentiate, before the first step."""
    wanted = [name for name, penalty in config.penalties.items() if name not in CONTROLLERS and penalty.amount > 0]
    if wanted and not discriminator.has_slope and any(phase.kind != "likelihood" for phase in config.phases):
        raise ConfigError(
            f"penalties.{wanted[0]} needs a gradient at what {type(discriminator).__name__} sees, which has none: take "
            "penalties out with --set penalties=none, or take another discriminator"
        )


def _check_hooks(generator: Generator, config: RunConfig) -> None:
    """Let a generator that lacks what the estimator asks of it say so before the first step."""
    estimator, nothing = config.estimator, torch.empty(0)
    rolls_out = estimator.name in ("score_function", "ppo") and estimator.rewards == "rollout"
    if rolls_out and type(generator).continue_from is Generator.continue_from:
        generator.continue_from(nothing, nothing, {})
    if get_estimator(estimator.name).scores_again and type(generator).score is Generator.score:
        generator.score(nothing, {})


def _check_coupling(networks: tuple[Generator, Discriminator], config: RunConfig, world: World) -> None:
    """Refuse layers that couple samples across a cut of the global batch, as their statistics would be of a part of it."""
    parts = world.size * config.train.accumulate
    share, group = config.train.batch_size // parts, networks[1].batch_group
    if share % group:
        raise ConfigError(
            f"the discriminator judges groups of {group} samples together, but each of {parts} parts of a batch of "
            f"{config.train.batch_size} holds {share}; set train.batch_size={max(share // group, 1) * group * parts}"
        )
    shared = [name for name, penalty in config.penalties.items() if penalty.share < 1 and (group > 1 or name in CONTROLLERS)]
    if shared:
        why = "has no share" if shared[0] in CONTROLLERS else f"would cut through the groups of {group} samples that D compares"
        raise ConfigError(f"penalties.{shared[0]}.share: this penalty {why}; leave share out, or use interval")
    for player, network in zip(("generator", "discriminator"), networks, strict=True):
        coupled = any(isinstance(layer, torch.nn.modules.batchnorm._BatchNorm) for layer in network.modules())
        if coupled and parts > 1:
            raise ConfigError(
                f"the {player} has BatchNorm, which needs the whole batch, but the batch is cut in {parts}; "
                "use one process with train.accumulate=1, or networks without BatchNorm"
            )


def _spec(record: PluginRecord) -> Any:
    return record.spec
