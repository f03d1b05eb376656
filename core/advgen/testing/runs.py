"""Checks of short runs, sampling, files and the judge."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from advgen.cache import cache_folder
from advgen.contracts import Batch
from advgen.drawing import draw_samples, refresh_statistics
from advgen.loggers import try_loggers
from advgen.metrics.judging import see
from advgen.rehearsal import rehearse
from advgen.runs import checkpoint
from advgen.setup import Setup, modality_class
from advgen.state import pack, unpack
from advgen.testing.subject import CPU, NUM_SAMPLES, Subject, same, scratch, take_steps, tensors

STEPS = 2


def trains_with(subject: Subject, loss: str) -> None:
    """A few steps under one loss move both players and leave finite numbers."""
    _trains(subject, f"loss='{loss}'", f"of loss {loss}")


def own_losses_and_penalties_train(subject: Subject) -> None:
    """A few steps under each loss and each penalty that the plugin brings move both players and leave finite numbers."""
    for loss in subject.spec.losses:
        _trains(subject, f"loss='{loss}'", f"of loss {loss}")
    for penalty in subject.spec.penalties:
        _trains(subject, f"penalties.{penalty}.weight=1.0", f"with penalty {penalty}")


def calls_keep_the_contract(subject: Subject) -> None:
    """Everything that a step calls returns what its contract says, in each mode that a preset's estimator asks for."""
    usual = subject.config.estimator.name
    estimators = {"relaxed": "straight_through", "log_prob": "score_function"}
    for name in dict.fromkeys((usual, *(estimators[mode] for mode in subject.modes() if mode in estimators))):
        setup = subject.setup(*([f"estimator={{name='{name}'}}"] if name != usual else []))
        rehearse(setup.players, setup.objective, setup.corpus.splits["train"])


def _trains(subject: Subject, override: str, what: str) -> None:
    setup = subject.setup(override)
    before = {part: {name: value.clone() for name, value in values.items()} for part, values in pack(setup.players).items()}
    take_steps(setup, 0, STEPS)
    after = pack(setup.players)
    for player in ("generator", "discriminator"):
        moved = any(not torch.equal(before[player][name], value) for name, value in after[player].items())
        subject.expect(moved, f"the {player} did not move in {STEPS} steps {what}", "weights that change")
        bad = [name for name, v in after[player].items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
        subject.expect(not bad, f"{player}.{', '.join(bad)} is not finite after {STEPS} steps {what}", "finite numbers")


def resumes_exactly(subject: Subject) -> None:
    """A run that is saved and loaded at step 2 has at step 3 the weights of the run that went on."""
    whole = subject.setup()
    take_steps(whole, 0, 2)
    again = subject.setup()
    with scratch() as folder:
        checkpoint.save(folder, 2, pack(whole.players), {})
        unpack(again.players, checkpoint.load(folder, 2)[0])
    take_steps(whole, 2, 1)
    take_steps(again, 2, 1)
    different = _differences(whole, again)
    subject.expect(
        not different,
        f"after a resume at step 2, step 3 differs in {', '.join(different[:3])}",
        "all state in the networks' state_dict, and no randomness but torch's",
    )


def _differences(one: Setup, other: Setup) -> list[str]:
    parts = pack(one.players), pack(other.players)
    return [
        f"{part}.{name}"
        for part, values in parts[0].items()
        for name, value in values.items()
        if not torch.equal(value.nan_to_num(), parts[1][part][name].nan_to_num())  # norms not yet known are NaN
    ]


def samples_do_not_depend_on_the_count(subject: Subject) -> None:
    """Sample i is the same whatever ``-n``, and another seed gives others."""
    few, many, other = (_draw(subject, count, seed) for count, seed in ((3, 0), (70, 0), (3, 1)))
    for (what, one), (_, more) in zip(tensors(few), tensors(many), strict=True):
        subject.expect(same(one, more[:3]), f"{what} of the first 3 samples changes with -n", "samples by seed and place alone")
    subject.expect(not torch.equal(few.values, other.values), "two seeds give the same samples", "different ones")


def _draw(subject: Subject, count: int, seed: int) -> Batch:
    network = subject.networks()[0]
    refresh_statistics(network, subject.modality, CPU.device)
    return draw_samples(network, subject.modality, count, seed=seed, device=CPU.device)


def files_are_written(subject: Subject) -> None:
    """``write`` makes the files it returns, in every format, and adds to them from ``start`` on; ``overview``, ``table``
    and ``comparison`` make at least one."""
    with scratch() as folder:
        batch = _draw(subject, 5, 0)
        _written(subject, batch, folder)
        overview = subject.modality.overview(batch, folder / "overview")
        _exist(subject, overview, folder, "overview")
        astray = [path.name for path in overview if not path.name.startswith("overview")]
        subject.expect(not astray, f"overview made {', '.join(astray)}", "names that begin with the stem's, here overview")
        _exist(subject, subject.modality.table(batch, 3, folder / "table", blank=1), folder, "table")
        _exist(subject, subject.modality.comparison(batch, subject.real(5), folder / "beside"), folder, "comparison")
    for name in subject.modality.formats:
        with scratch() as folder:
            modality = modality_class(subject.record)(subject.modality.config, subject.modality.facts)
            modality.file_format = name
            _exist(subject, modality.write(batch, folder), folder, f"write in the format {name}")


def _written(subject: Subject, batch: Batch, folder: Path) -> None:
    """Three samples, then two more beside them."""
    first = subject.modality.write(batch.slice(0, 3), folder)
    _exist(subject, first, folder, "write")
    sizes = {path: path.stat().st_size for path in first}
    second = subject.modality.write(batch.slice(3, 5), folder, start=3)
    _exist(subject, second, folder, "write(start=3)")
    lost = [path.name for path, size in sizes.items() if not path.is_file() or path.stat().st_size < size]
    subject.expect(not lost, f"write(start=3) spoilt {', '.join(lost)}", "samples 0 to 2 left as they were")
    grown = [path for path in second if path not in sizes or path.stat().st_size > sizes[path]]
    subject.expect(bool(grown), "write(start=3) added nothing", "files or rows for samples 3 and 4")


def _exist(subject: Subject, files: list[Path], folder: Path, who: str) -> None:
    subject.expect(isinstance(files, list) and len(files) > 0, f"{who} returned {files!r}", "a list of the files it made")
    for path in files:
        made = path.is_file() and path.stat().st_size > 0 and folder in path.parents
        subject.expect(made, f"{who} returned {path}, which is missing, empty or elsewhere", f"files in {folder}")


def loggers_take_a_row(subject: Subject) -> None:
    """The plugin's loggers are made with a folder, take a row of figures, and close."""
    with scratch() as folder:
        try_loggers(subject.record, folder, {"generator/loss": 0.5, "discriminator/loss": 0.5})


def judge_gives_features(subject: Subject) -> None:
    """The judge has a name, finite features (N, F) that repeat, and labels (N,) or none."""
    judge, batch = subject.modality.judge(subject.corpus, cache_folder()), subject.real()
    subject.expect(isinstance(judge.name, str) and bool(judge.name), f"the judge's name is {judge.name!r}", "a text")
    see(judge, batch)  # which refuses what is no tensor, or of another shape
    with torch.no_grad():
        one, other, labels = judge.features(batch), judge.features(batch), judge.classify(batch)
    shape = tuple(one.shape)
    subject.expect(len(shape) == 2 and shape[0] == NUM_SAMPLES, f"features are {shape}", f"({NUM_SAMPLES}, features)")
    subject.expect(bool(torch.isfinite(one).all()), "features of real samples are not finite", "finite numbers")
    subject.expect(torch.equal(one, other), "the judge's features differ between two calls", "evaluation mode")
    if labels is not None:
        fine = labels.dtype is torch.int64 and tuple(labels.shape) == (NUM_SAMPLES,)
        subject.expect(fine, f"classify returned {labels.dtype} {tuple(labels.shape)}", f"int64 ({NUM_SAMPLES},) or None")


def metrics_are_numbers(subject: Subject) -> None:
    """The modality's own metrics are names with finite numbers, for real and for untrained samples."""
    held_out = subject.real(32, "test")
    for who, batch in (("real", subject.real(32)), ("untrained", _draw(subject, 32, 0))):
        metrics = subject.modality.metrics(batch, held_out)
        for name, value in metrics.items():
            fine = isinstance(value, int | float) and math.isfinite(value)
            subject.expect(fine, f"metric {name} of {who} samples is {value!r}", "a finite number")
