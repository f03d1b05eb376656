"""advgen from Python: train, resume, load a generator. The command line calls these too."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from advgen.blame import with_blame
from advgen.config.load import Resolved, load_config, options_of, to_toml
from advgen.contracts import Corpus, Modality
from advgen.data.datasets import is_address, names_set, whole_path
from advgen.errors import CheckpointError, ConfigError, GenError
from advgen.loggers import loggers_of, open_loggers
from advgen.optional_imports import import_requirements
from advgen.players import Players
from advgen.progress import Progress
from advgen.registry import PluginRecord, find_plugin
from advgen.run_summary import next_commands, summarize, summary_lines
from advgen.runs import RunFolder, checkpoint, describe_run, warning_of_divergence
from advgen.runs.checkpoint import optimizer_fault, unpack_optimizer
from advgen.runs.ending import note_end, note_failure, note_start
from advgen.runs.folder import environment, write_text, writing
from advgen.runs.plugin import find_run_plugin
from advgen.sampling import LoadedRun, load_run, refuse_imported, suits
from advgen.setup import Setup, build, start_anew
from advgen.state import require_parts, unpack
from advgen.tensor_files import Stored, TensorFile
from advgen.training import RunResult, Trainer, clock_of
from advgen.weights import reason, take_matching
from advgen.world import World, join_world


@with_blame
def train(
    plugin: str,
    *,
    data: Path | str | None = None,
    preset: str | None = None,
    config_files: Sequence[Path | str] = (),
    overrides: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    stop_after: int | None = None,
    from_run: Path | str | None = None,
    from_step: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    out: Path | str | None = None,
    max_bad: int | None = None,
    progress: bool = True,
) -> RunResult:
    """Start a run and train it.

    Args:
        plugin: a name that ``gen plugins list`` shows, or the path of a plugin file.
        data: file, folder, archive, named set or address; None means the plugin's embedded corpus.
        overrides: ``"a.b=c"`` as for ``--set``.
        options: the plugin's own options.
        steps, minutes: the plan; one of the two.
        stop_after: save and end at this step without changing the plan.
        from_run: start from another run's weights, as far as they fit.
        from_step: the checkpoint of that run; None takes its newest.
        out: the run folder; the default is a new one below ``runs/``.

    Raises:
        GenError: a refusal, with ``exit_code`` as the command's.
    """
    if steps is not None and minutes is not None:
        raise ConfigError("--steps and --minutes exclude each other: a run has one plan")
    if from_step is not None and from_run is None:
        raise ConfigError(f"--from-step {from_step} names a checkpoint of --from RUN; give that too")
    record = find_plugin(plugin)
    given = {"data.path": _place(record, data), "train.steps": steps, "train.minutes": minutes}
    given |= {"train.seed": seed, "data.max_bad": max_bad}
    given |= {f"options.{name}": value for name, value in (options or {}).items()}
    files = [Path(path) for path in config_files]
    resolved = load_config(record, preset=preset, files=files, overrides=overrides, cli=given)
    imports = import_requirements(record)
    world = join_world(device)
    show = Progress(progress and world.leads)
    clock = clock_of(resolved.config, None)
    source = RunFolder.existing(from_run) if from_run is not None else None
    setup = build(record, resolved.config, world, new=True)
    taken = [*imports, *(_warm_start(setup, source, from_step) if source is not None else [])]
    networks = _networks(setup)
    summary = summarize(setup, networks)
    folder = RunFolder(Path(out) if out is not None else new_name(record))
    new = not folder.path.exists()
    if world.leads:
        folder.create()
    with folder.discarded_where_nothing_is_saved(new) if world.leads else contextlib.nullcontext():
        if world.leads:
            describe(folder, resolved, record, setup.corpus, taken, {"networks": networks, "summary": summary})
        world.barrier()
        skipped = [f"skipped: {problem}" for problem in setup.corpus.bad]
        for line in [*summary_lines(summary, folder.path), *taken, *setup.notes, *skipped]:
            show.say(line)
        return _sit(setup, folder, clock, show, stop_after, summary)


def _place(record: PluginRecord, data: Path | str | None) -> str | None:
    """Where data are, as the run keeps it: whole, as a run may be resumed from elsewhere, unless it is a name or address."""
    place = str(data) if data is not None else None
    if place is None or names_set(record, place) or is_address(record, place):
        return place
    return whole_path(place)


@with_blame
def resume(
    run: Path | str, *, stop_after: int | None = None, device: str = "auto", plugin: str | None = None, progress: bool = True
) -> RunResult:
    """Go on with a run to its plan's end; a run that has reached it is left as it is.

    Bit-exactly on a CPU, and on a GPU with ``train.deterministic``.

    Raises:
        CheckpointError: where the run or its data is not what it was.
    """
    folder = RunFolder.existing(run)
    world, config = join_world(device), folder.config()
    show = Progress(progress and world.leads)
    record, about = find_run_plugin(folder, plugin), folder.read_json("run.json")
    refuse_imported(folder)
    imports = import_requirements(record)
    with suits(folder.path, record):
        options_of(record, config)
    saved: list[tuple[dict[str, Stored], dict[str, Any], list[str]]] = []

    def read_checkpoint(modality: Modality[Any], corpus: Corpus) -> None:
        if corpus.fingerprint != about.get("fingerprint"):
            raise CheckpointError(
                f"the data of {folder.path} has changed since it was started; "
                f"start anew with: {start_anew(record, config.data.path or 'DATA', str(folder.path))}"
            )
        with suits(folder.path, record):
            saved.append(checkpoint.load_newest(folder.checkpoints, lambda files: require_parts(modality, files)))

    setup = build(record, config, world, before=read_checkpoint)
    ((parts, manifest, problems),) = saved
    for problem in problems:
        show.say(f"warning: {problem}; going back to step {manifest['step']}")
    anew = start_anew(record, config.data.path, str(folder.path))
    if warning := warning_of_divergence(folder.path, f"{{it}} is taken anew by: {anew} --from-step {{step}}"):
        show.say(warning)
    unpack(setup.players, parts, len(config.phases))
    clock = clock_of(config, manifest)
    if stop_after is not None and clock.step > stop_after:
        raise ConfigError(f"--stop-after {stop_after}: {folder.path} is already at step {clock.step}; give a later step")
    if clock.progress >= 1.0 and about.get("ended"):
        return _finished(folder, record, clock.step)
    summary = summarize(setup, _networks(setup))
    for line in [*summary_lines(summary, folder.path, clock.step), *imports]:
        show.say(line)
    return _sit(setup, folder, clock, show, stop_after, summary)


def _finished(folder: RunFolder, record: PluginRecord, step: int) -> RunResult:
    """What there is to say of a run that is at its plan's end; nothing of it is touched."""
    reason = f"the plan was complete already; a new run goes on from it: {start_anew(record, None, str(folder.path))} --steps N"
    return RunResult(folder.path, step, reason, best=describe_run(folder.path)["best"])


@with_blame
def load_generator(run: Path | str, device: str = "auto", plugin: str | None = None, step: int | None = None) -> LoadedRun:
    """A trained generator, the newest or that of a saved ``step``; ``.draw(num, seed=0, label=None)`` returns a Batch."""
    return load_run(run, device, plugin, step)


def _sit(
    setup: Setup, folder: RunFolder, clock: Any, show: Progress, stop_after: int | None, summary: dict[str, Any]
) -> RunResult:
    if not setup.world.leads:
        return Trainer(setup, folder, clock, show, open_none()).run(stop_after)
    with folder.locked():
        folder.cut_metrics(clock.step)
        checkpoint.set_aside(folder.checkpoints, clock.step)
        loggers = open_loggers(folder.path, loggers_of(setup.record), show.say)
        note_start(folder)
        try:
            result = Trainer(setup, folder, clock, show, loggers).run(stop_after)
        except (Exception, KeyboardInterrupt) as error:
            note_failure(folder, clock.step, error)
            raise
        finally:
            loggers.close()
        note_end(folder, result.reason, as_planned=result.exit_code == 0)
    commands = next_commands(folder, setup.record, setup.modality, complete=clock.progress >= 1.0)
    return replace(result, summary=summary, next_commands=commands)


def open_none() -> Any:
    """No loggers: for ranks that do not write."""
    from advgen.loggers import Loggers

    return Loggers([])


def new_name(record: PluginRecord) -> Path:
    """A run folder below ``runs/``, named by date, time and plugin."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", record.name)
    return Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"


def describe(
    folder: RunFolder,
    resolved: Resolved,
    record: PluginRecord,
    corpus: Corpus,
    notes: Sequence[str],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write what a new run is made of; run.json, which marks the folder as a run and takes ``more``, comes last."""
    about: dict[str, Any] = {
        "plugin": record.name,
        "plugin_distribution": record.distribution,
        "plugin_version": record.version,
        "plugin_sha256": record.sha256,
        "fingerprint": corpus.fingerprint,
        "skipped": list(corpus.bad),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": resolved.sources,
    }
    if record.path is not None and record.sha256:
        with writing(folder.path / "plugin"):
            (folder.path / "plugin").mkdir(exist_ok=True)
            shutil.copy(record.path, folder.path / "plugin" / Path(record.path).name)
        about["plugin_file"] = record.path.as_posix()
    write_text(folder.path / "config.toml", to_toml(resolved.config, resolved.sources))
    folder.write_json("facts.json", dict(corpus.facts))
    folder.write_json("environment.json", environment())
    for note in (*corpus.notes, *notes):
        folder.note(note)
    folder.write_json("run.json", {**about, **(more or {})})


def _networks(setup: Setup) -> dict[str, Any]:
    """How large both players are, and what the plugin says of G."""
    players = setup.players
    sizes = {
        f"{player.name}_parameters": sum(parameter.numel() for parameter in player.network.parameters())
        for player in (players.generator, players.discriminator)
    }
    return {**sizes, **setup.modality.describe(players.generates)}


def _warm_start(setup: Setup, source: RunFolder, step: int | None) -> list[str]:
    """Put another run's weights in as far as they fit; return what was taken, a line for each player.

    Raises:
        CheckpointError: where the run cannot be read, or nothing of it fits.
    """
    players, num_taken, imported = setup.players, 0, "imported" in source.read_json("run.json")
    parts, manifest, problems = checkpoint.load_chosen(source.checkpoints, step, lambda files: _alike(players, files, imported))
    lines = [f"warning: {problem}; step {manifest['step']} is used instead" for problem in problems]
    if step is None and (warning := warning_of_divergence(source.path, "--from-step {step} takes {it}")):
        lines.append(warning)
    nothing = Stored()
    weights = {
        "generator": parts.get("average", parts.get("generator", nothing)),
        "discriminator": parts.get("discriminator", nothing),
    }
    for player in (players.generator, players.discriminator):
        taken, left = take_matching(player.network, weights[player.name])
        num_taken += len(taken)
        text = f"--from {source.path} step {manifest['step']}: {player.name} took {len(taken)} tensors, left {len(left)}"
        lines.append(text + (f" ({', '.join(left[:5])}{' ...' if len(left) > 5 else ''})" if left else ""))
        if imported and f"{player.name}_optimizer" in parts:
            fits = not left and player.settings.optimizer == getattr(source.config(), player.name).optimizer
            fits = fits and bool(parts[f"{player.name}_optimizer"])
            if fits:
                unpack_optimizer(
                    player.optimizer, parts[f"{player.name}_optimizer"], f"--from {source.path}: {player.name}_optimizer"
                )
            lines.append(
                f"--from {source.path}: {player.name}'s optimizer {'goes on' if fits else 'starts anew, it does not fit'}"
            )
    if not num_taken:
        other = source.read_json("run.json").get("plugin")
        raise CheckpointError(
            f"--from {source.path}: nothing of it, a run of plugin {other!r}, fits this run of plugin {setup.record.name!r}; "
            "name a run of the same plugin and sizes, or leave --from out"
        )
    if players.average is not None:
        players.average.load_state_dict(players.generator.network.state_dict())
    differences = _differences(setup.modality, source)
    return [*lines, *(f"--from {source.path}: {text}" for text in differences)]


def _alike(players: Players, files: Mapping[str, TensorFile], imported: bool) -> dict[str, list[str] | None]:
    """Choose the tensors of a checkpoint that have a name and shape of these players, so that no others take memory."""
    chosen = dict[str, list[str] | None]()
    generator = "average" if "average" in files else "generator"
    for part, player in ((generator, players.generator), ("discriminator", players.discriminator)):
        own = player.network.state_dict()
        found = files[part].sizes if part in files else {}
        chosen[part] = [name for name, size in found.items() if name in own and tuple(own[name].shape) == size.shape]
        moments = f"{player.name}_optimizer"
        if imported and moments in files:
            chosen[moments] = [] if optimizer_fault(player.optimizer, files[moments].sizes) else None
    return {part: names for part, names in chosen.items() if part in files}


def _differences(modality: Modality[Any], source: RunFolder) -> list[str]:
    """List differences in the data that change what loaded weights mean.

    Raises:
        CheckpointError: if the other run's facts are not those of a run of this plugin.
    """
    facts = source.read_json("facts.json")
    try:
        return list(modality.differences(facts))
    except (GenError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise CheckpointError(f"{source.path / 'facts.json'} cannot be compared with these data ({reason(error)})") from error


__all__ = ["World", "load_generator", "resume", "train"]
