"""The loop: steps, clock, checkpoints, samples, validation, and every way a run ends."""

from __future__ import annotations

import copy
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advgen import interrupts
from advgen.cache import cache_folder
from advgen.contracts import Batch
from advgen.drawing import answer, draw_samples, refresh_statistics
from advgen.engine import diverged, parameters_kept
from advgen.errors import CheckpointError, ConfigError, DivergedError
from advgen.loggers import Loggers
from advgen.overfitting import OverfittingWatch
from advgen.progress import Progress
from advgen.reading import told
from advgen.runs import RunFolder, checkpoint
from advgen.runs.folder import writing
from advgen.setup import Setup
from advgen.state import pack
from advgen.step import critic_step, likelihood_step, train_step

CLOCK_EVERY = 10
VALIDATION_SAMPLES = 1000
LONGEST_SECONDS = 1e10
PHASE = "phase"
NOT_COSTS = ("gradient_norm", "non_finite", "real_score", "fake_score")


@dataclass
class RunResult:
    """How a training call ended."""

    folder: Path
    step: int
    reason: str
    exit_code: int = 0
    samples: list[Path] = field(default_factory=list)
    best: dict[str, Any] | None = None
    summary: dict[str, Any] = field(default_factory=dict)
    next_commands: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "run": str(self.folder),
            "step": self.step,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "samples": [str(path) for path in self.samples],
            "best": self.best,
            "summary": self.summary,
            "next_commands": self.next_commands,
        }


@dataclass
class Clock:
    """How far the plan is: by steps, or by minutes read at recorded steps and kept in the checkpoint."""

    steps: int | None
    minutes: float | None
    step: int = 0
    spent_seconds: float = 0.0
    progress: float = 0.0
    resumed_at: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Training time so far, over all sittings."""
        return self.spent_seconds + time.monotonic() - self.resumed_at

    def start(self) -> None:
        """Count from now on: what was done before, such as reading data, is no training."""
        self.resumed_at = time.monotonic()

    def advance(self, agree: Any) -> None:
        """Count a step; read the time where it decides the progress."""
        self.step += 1
        if self.steps is not None:
            self.progress = self.step / self.steps
        elif self.step % CLOCK_EVERY == 0 or self.step < CLOCK_EVERY:
            assert self.minutes is not None
            self.progress = min(agree(self.seconds() / (60.0 * self.minutes)), 1.0)

    def saved(self) -> dict[str, float]:
        """What a resumed run needs."""
        return {"step": self.step, "spent_seconds": self.seconds(), "progress": self.progress}


class Trainer:
    """One sitting of one run."""

    def __init__(self, setup: Setup, folder: RunFolder, clock: Clock, progress: Progress, loggers: Loggers) -> None:
        self.setup, self.folder, self.clock, self.progress, self.loggers = setup, folder, clock, progress, loggers
        self.world, self.config = setup.world, setup.config
        self.signal: int | None = None
        self.entered: int | None = None
        self.beside: Batch | None = None
        self.watch = OverfittingWatch(setup)
        self.told = set[str]()
        self.best: dict[str, Any] | None = folder.best()
        self.logged_at, self.logged_step = time.perf_counter(), clock.step
        self.saved_step = clock.step if checkpoint.steps(folder.checkpoints) else -1

    def run(self, stop_after: int | None) -> RunResult:
        """Train to the plan's end, or to the first thing that ends the sitting."""
        self.clock.start()
        with _signals(self):
            try:
                reason, code = self._loop(stop_after)
            except DivergedError as error:
                if self.world.leads:
                    self.folder.note(f"diverged at step {self.clock.step}: {error}")
                self.save()
                raise
            finally:
                self.progress.close()
            self.save()
        samples = self.show_samples() if self.world.leads else []
        self.folder.note(f"ended at step {self.clock.step}: {reason}") if self.world.leads else None
        return RunResult(self.folder.path, self.clock.step, reason, code, samples, self.best)

    def _loop(self, stop_after: int | None) -> tuple[str, int]:
        if self.saved_step < 0:
            self.save()
            self._tell(self.watch.blindness())
        while self.clock.progress < 1.0:
            if stop_after is not None and self.clock.step >= stop_after:
                return f"stopped after step {self.clock.step} as asked; go on with: gen resume {self.folder.path}", 0
            logs = self._step()
            self.clock.advance(self.world.agree)
            if (ended := self._housekeeping(logs)) is not None:
                return ended
        return "the plan is complete", 0

    def _step(self) -> dict[str, Tensor]:
        setup, progress = self.setup, self.clock.progress
        number = self._phase(progress)
        self._enter(number)
        step = {"likelihood": likelihood_step, "critic": critic_step, "adversarial": train_step}[
            self.config.phases[number].kind
        ]
        return step(setup.players, setup.objective, setup.draw, self.clock.step, progress)

    def _phase(self, progress: float) -> int:
        """The number of the phase, from 0."""
        phases = self.config.phases
        edge, total = 0.0, sum(phase.share for phase in phases)
        for number, phase in enumerate(phases):
            edge += phase.share / total
            if progress < edge:
                return number
        return len(phases) - 1

    def _enter(self, number: int) -> None:
        """Tell the modality of a phase's first step; what was entered is a part of the checkpoint, so it is told once."""
        players, phases = self.setup.players, self.config.phases
        if self.entered is None:
            # A checkpoint of before this was kept has entered its phase already.
            start = torch.tensor(number if self.clock.step else 0)
            self.entered = int(players.state.setdefault(PHASE, start.to(self.world.device)))
        if self.entered != number:
            if (phases[self.entered].kind, phases[number].kind) != ("critic", "adversarial"):
                with parameters_kept((players.generator, players.discriminator)):
                    self.setup.modality.enter_phase(phases[number].kind, players.generates, players.judges)
            players.state[PHASE] = torch.tensor(number, device=self.world.device)
            if players.recorder is not None:
                players.recorder.forget()
            self.entered = number

    def _housekeeping(self, logs: dict[str, Tensor]) -> tuple[str, int] | None:
        train, step, enough = self.config.train, self.clock.step, self._enough()
        if step % train.log_every == 0 or self.clock.progress >= 1.0 or enough:
            self._log(logs)
        if step % train.sample_every == 0 and self.world.leads:
            self.show_samples()
        met = self._validate() if train.evaluate_every and step % train.evaluate_every == 0 else None
        if met and self.logged_step != step:
            self._log(logs)
        if step % train.checkpoint_every == 0:
            self.save()
        if self.world.any(self.signal is not None) if step % CLOCK_EVERY == 0 or self.world.size == 1 else False:
            interrupted = self.signal in (signal.SIGINT, None)
            return f"interrupted at step {step}, saved; go on with: gen resume {self.folder.path}", 130 if interrupted else 75
        return enough or met

    def _enough(self) -> tuple[str, int] | None:
        """How a run ends that has seen as many samples as it may."""
        seen, step = self.config.stop.samples, self.clock.step
        if seen is not None and step * self.config.train.batch_size * self.config.discriminator.steps >= seen:
            return f"stop.samples={seen} reached at step {step}", 0
        return None

    def _log(self, logs: dict[str, Tensor]) -> None:
        now, step = time.perf_counter(), self.clock.step
        row = self._figures(logs)
        row["samples_per_second"] = (step - self.logged_step) * self.config.train.batch_size / max(now - self.logged_at, 1e-9)
        self.logged_at, self.logged_step = now, step
        if self.world.leads:
            row |= self.watch.figures(step)
            self.folder.append_metrics({"step": step, "seconds": round(self.clock.seconds(), 3), **row})
            self.loggers.log(step, row)
            self.progress.update(step, self.clock.progress, row)
            self._tell(self.watch.warning(step, self.folder) or "")
            self._tell_refusals()
        for player in (self.setup.players.generator, self.setup.players.discriminator):
            if row.get(f"{player.name}/non_finite"):
                own = {name.partition("/")[2]: value for name, value in logs.items() if name.startswith(f"{player.name}/")}
                raise diverged(player.name, {name: value for name, value in own.items() if name not in NOT_COSTS})

    def _tell_refusals(self) -> None:
        """Say once of each kind of update why it is not recorded."""
        recorder = self.setup.players.recorder
        for name, reason in ({} if recorder is None else recorder.refusals).items():
            if name not in self.told:
                self.told.add(name)
                self._tell(f"without a CUDA graph, more slowly: {name} ({reason})")

    def _tell(self, line: str) -> None:
        """Say something, unless it is empty, and keep it in the run's log."""
        if line and self.world.leads:
            self.progress.say(line)
            self.folder.note(line)

    def _figures(self, logs: dict[str, Tensor]) -> dict[str, float]:
        """Means over ranks as numbers, read from the device at once."""
        figures = torch.stack([value.detach().to(torch.float64) for value in logs.values()])
        return dict(zip(logs, (self.world.total(figures) / self.world.size).tolist(), strict=True))

    def show_samples(self) -> list[Path]:
        """Overview pictures of the average, from fixed noise, beside held-out samples where the modality shows them."""
        from advgen.showing import held_out_like

        modality = self.setup.modality
        batch = self.sample(modality.overview_samples)
        if not modality.paired and self.beside is None:
            self.beside = held_out_like(modality, self.setup.corpus, batch)
        with writing(stem := self.folder.samples / f"step-{self.clock.step:08d}"):
            return modality.overview(batch, stem) if self.beside is None else modality.comparison(batch, self.beside, stem)

    def sample(self, count: int) -> Batch:
        """Samples of the average (of G without one), statistics refreshed on a copy."""
        network = self._shown()
        return draw_samples(network, self.setup.modality, count, seed=self.config.train.seed, device=self.world.device)

    def _shown(self) -> torch.nn.Module:
        """A copy of the average (of G without one) with fresh statistics."""
        players = self.setup.players
        network = copy.deepcopy(players.average if players.average is not None else players.generator.network)
        refresh_statistics(network, self.setup.modality, self.world.device)
        return network

    def _validate(self) -> tuple[str, int] | None:
        value = self.world.agree(self._validation_metric() if self.world.leads else 0.0)
        stop, step = self.config.stop, self.clock.step
        if stop.target is not None and not self._improves(self._metric, stop.target, value):
            return f"{self._metric} {value:.4f} reached the target {stop.target} at step {step}", 0
        return None

    def _validation_metric(self) -> float:
        from advgen.evaluation import evaluate_modality
        from advgen.metrics.real import real_samples

        setup, name = self.setup, self._metric
        split = setup.corpus.splits["validation"]
        judge = setup.modality.judge(setup.corpus, cache_folder())
        seed = self.config.train.seed
        if setup.modality.paired:  # the same seed and limit draw the same samples as below
            held_out = real_samples(setup.modality, setup.corpus, "validation", seed=seed)
            generated = answer(self._shown(), setup.modality, held_out, seed=seed, device=self.world.device)
        else:
            generated = self.sample(min(VALIDATION_SAMPLES, max(len(split), 32)))
        report = evaluate_modality(setup.modality, setup.corpus, judge, generated, split="validation", seed=seed)
        if name not in report:
            raise ConfigError(f"stop.metric {name!r} is not measured; known: {', '.join(sorted(report))}")
        value = float(report[name])
        figures = {f"validation/{key}": number for key, number in report.items() if isinstance(number, float)}
        self.folder.append_metrics({"step": self.clock.step, **figures})
        if self.best is None or self._improves(name, value, self.best["value"]):
            self.save()
            self.best = {"step": self.clock.step, "metric": name, "value": value}
            self.folder.write_json("best.json", self.best)
        self.progress.say(f"step {self.clock.step}: validation {name} {value:.4f}")
        return value

    @property
    def _metric(self) -> str:
        return self.config.stop.metric or "frechet_distance"

    def _improves(self, metric: str, value: float, other: float) -> bool:
        from advgen.metrics.report import better_direction

        better = self.config.stop.better or better_direction(metric, self.setup.modality)
        return value > other if better == "higher" else value < other

    def save(self) -> None:
        """A checkpoint of this step, once; the newest ``keep`` and the best stay."""
        if self.saved_step == self.clock.step or not self.world.leads:
            return
        checkpoint.save(self.folder.checkpoints, self.clock.step, pack(self.setup.players), {"clock": self.clock.saved()})
        spare = {self.best["step"]} if self.best else set()
        checkpoint.rotate(self.folder.checkpoints, self.config.train.keep, spare)
        self.saved_step = self.clock.step
        interrupts.saved(self.saved_step, self.folder.path)


@contextmanager
def _signals(trainer: Trainer) -> Iterator[None]:
    """End the sitting at the next step on Ctrl-C or another signal of ``interrupts.SAVING``, and at once on a second one.

    Raises:
        KeyboardInterrupt: where Ctrl-C was pressed before the first step.
    """
    if interrupts.asked():
        raise KeyboardInterrupt

    def remember(number: int, _: Any) -> None:
        if trainer.signal is not None:
            interrupts.remember_press()
            raise KeyboardInterrupt
        trainer.signal = number

    try:
        before = {number: signal.signal(number, remember) for number in interrupts.saving_signals()}
    except ValueError:  # not the main thread: signals stay the caller's
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clock_of(config: Any, manifest: dict[str, Any] | None) -> Clock:
    """The plan's clock, new or as saved.

    Raises:
        CheckpointError: if the manifest has no clock, or an invalid one.
    """
    clock = Clock(config.train.steps, config.train.minutes)
    if clock.steps is None and clock.minutes is None:
        raise ConfigError("the run has no plan; give --steps or --minutes")
    if manifest is not None:
        if fault := _clock_fault(manifest.get("clock"), manifest["step"]):
            raise CheckpointError(f"the checkpoint's manifest has {fault}; use an earlier checkpoint, or start again")
        saved = manifest["clock"]
        clock.step, clock.spent_seconds, clock.progress = saved["step"], float(saved["spent_seconds"]), float(saved["progress"])
    return clock


def _clock_fault(saved: Any, step: int) -> str:
    """Describe the fault of a saved clock; empty if it has none."""
    if not isinstance(saved, dict):
        return f"{told(saved)} as clock, expected a table"
    if missing := [name for name in ("step", "spent_seconds", "progress") if name not in saved]:
        return f"no clock.{missing[0]}"
    if type(saved["step"]) is not int or saved["step"] != step or not 0 <= step <= checkpoint.MOST_STEPS:
        return f"clock.step {told(saved['step'])}, expected {step} as the checkpoint, from 0 to {checkpoint.MOST_STEPS:.0e}"
    for name, most in (("spent_seconds", LONGEST_SECONDS), ("progress", 1.0)):
        number = saved[name]
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= most:
            return f"clock.{name} {told(number)}, expected a number from 0 to {most:g}"
    return ""
