"""How a run ended is remembered, and told to whoever uses a run that diverged."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import advgen
from advgen.cli import main
from advgen.errors import CheckpointError, DivergedError
from advgen.runs import RunFolder, describe_run, warning_of_divergence
from advgen.training import Trainer

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

Command = Callable[..., tuple[int, str, str]]
PLAN = ("phases=[{kind='adversarial'}]", "train.sample_every=100000", "train.keep=9")


def diverge(trainer: Trainer) -> None:
    raise DivergedError("discriminator: loss is not finite")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was saved at steps 0 and 2 and diverged at step 3."""
    where = {"out": tmp_path / "run", "overrides": tiny("text", *PLAN), "device": "cpu", "progress": False}
    folder = advgen.train("text", steps=9, stop_after=2, **where).folder
    monkeypatch.setattr(Trainer, "_step", lambda self: {})
    monkeypatch.setattr(Trainer, "_log", lambda self, logs: diverge(self))
    with pytest.raises(DivergedError):
        advgen.resume(folder, device="cpu", progress=False)
    monkeypatch.undo()
    return folder


@pytest.fixture
def gen(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments), *(["--device", "cpu"] if arguments[0] != "runs" else [])])
        return int(ended.value.code or 0), *capsys.readouterr()

    yield call


def best(run: Path) -> None:
    (run / "best.json").write_text(json.dumps({"step": 2, "metric": "frechet_distance", "value": 3.25}))


def test_a_diverged_run_says_so_where_it_is_sampled_evaluated_resumed_and_shown(run: Path, gen: Command) -> None:
    told = f"warning: {run} diverged at step 3, so its newest weights may be useless; "
    for command in (("sample", run, "-n", 2), ("evaluate", run, "-n", 8)):
        code, _, said = gen(*command)
        assert code == 0 and f"{told}--step 2 takes the checkpoint before that\n" in said
    code, _, said = gen("runs", "show", run)
    assert (code, said) == (0, f"{told}gen sample RUN --step 2 and gen evaluate RUN --step 2 take the checkpoint before that\n")
    _, out, said = gen("runs", "list", run.parent)
    assert said == f"warning: {run} diverged; gen runs show RUN tells what to use instead\n" and "diverged at step 3" in out
    code, _, said = gen("resume", run, "--stop-after", 4)
    anew = f"gen train --config {run / 'config.toml'} --from {run}"
    assert code == 0 and f"{told}the checkpoint before that is taken anew by: {anew}" in said


def test_the_best_checkpoint_is_named_and_can_be_used(run: Path, gen: Command) -> None:
    best(run)
    code, out, said = gen("sample", run, "--json")
    assert code == 0 and json.loads(out)["step"] == 3
    assert said.endswith("--step 2 takes its best checkpoint (frechet_distance 3.25)\n")
    code, out, said = gen("sample", run, "--step", 2, "--json")
    assert (code, json.loads(out)["step"], said) == (0, 2, "")
    again = ("train", "--plugin", "text", "--steps", 1, *(word for each in tiny("text", *PLAN) for word in ("--set", each)))
    code, _, said = gen(*again, "--from", run, "--out", run.parent / "one")
    assert code == 0 and "--from-step 2 takes its best checkpoint" in said and f"--from {run} step 3: generator took" in said
    code, _, said = gen(*again, "--from", run, "--from-step", 2, "--out", run.parent / "two")
    assert code == 0 and "warning" not in said and f"--from {run} step 2: generator took" in said


def test_an_unknown_step_is_answered_with_the_saved_ones(run: Path, gen: Command) -> None:
    for command in ("sample", "evaluate"):
        code, _, said = gen(command, run, "--step", 1)
        assert (code, said) == (5, f"error: {run} has no checkpoint of step 1; saved: 0, 2, 3\n")
    code, _, said = gen("train", "--plugin", "text", "--from-step", 2)
    assert code == 2 and "--from RUN" in said


def test_a_run_without_a_useful_earlier_checkpoint_points_to_the_remedy(run: Path) -> None:
    (run / "checkpoints" / "step-00000002" / "manifest.json").unlink()
    warning = warning_of_divergence(run)
    assert warning is not None and warning.endswith(f"gen runs show {run} tells the remedy")
    assert describe_run(run)["diverged"] == {"step": 3, "why": "discriminator: loss is not finite"}


def test_a_run_that_goes_on_well_after_a_divergence_is_no_longer_warned_of(run: Path) -> None:
    advgen.resume(run, device="cpu", progress=False, stop_after=4)
    assert warning_of_divergence(run) is None and describe_run(run)["ended"].startswith("stopped after step 4")


def test_the_warning_is_logged_for_python_users(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="advgen"):
        assert advgen.load_generator(run, device="cpu", step=2).step == 2
        assert not caplog.records
        assert advgen.load_generator(run, device="cpu").step == 3
    assert "diverged at step 3" in caplog.text


@pytest.mark.parametrize(
    ("error", "ended"),
    [
        (CheckpointError("the disk is full"), "failed at step 3: the disk is full"),
        (KeyboardInterrupt(), "interrupted at step 3"),
    ],
)
def test_what_cut_a_sitting_short_is_remembered(
    run: Path, error: BaseException, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Trainer, stop_after: int | None) -> None:
        raise error

    monkeypatch.setattr(Trainer, "_loop", fail)
    with pytest.raises(type(error)):
        advgen.resume(run, device="cpu", progress=False)
    assert RunFolder(run).read_json("run.json")["ended"] == ended


def test_a_folder_that_does_not_exist_or_is_no_folder_of_runs_is_refused(run: Path, gen: Command) -> None:
    for folder, what in ((run / "absent", "does not exist"), (run / "log.txt", "is not a folder"), (run, "is a run itself")):
        code, out, said = gen("runs", "list", folder)
        assert (code, out) == (2, "") and said.startswith(f"error: {folder} {what}; ")


def test_a_folder_of_runs_taken_for_a_run_is_answered_with_the_runs_in_it(run: Path, gen: Command) -> None:
    code, _, said = gen("sample", run.parent)
    assert code == 5 and said == f"error: {run.parent} holds runs and is none itself; name one of them: {run}\n"


@pytest.mark.parametrize("command", [["runs", "show"], ["sample"], ["resume"]])
def test_a_mistyped_run_is_answered_with_the_nearest_of_runs_as_a_path(
    command: list[str], gen: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("runs/photos-r3", "runs/captions", "here"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps({"plugin": "image", "created": "2026"}))
    monkeypatch.chdir(tmp_path)
    code, _, said = gen(*command, "photo-r3")
    assert code == 5 and "did you mean 'runs/photos-r3'? known: here, runs/captions, runs/photos-r3" in said
    assert gen(*command, "runs/photo-r3")[2].count("runs/captions") == 1
    assert "did you mean 'here'?" in gen(*command, "her")[2]


def test_the_end_is_told_once_and_a_run_that_is_at_it_says_how_to_go_on(gen: Command, tmp_path: Path) -> None:
    run, sets = tmp_path / "run", [word for override in tiny("text") for word in ("--set", override)]
    _, out, said = gen("train", "--plugin", "text", "--steps", 1, *sets, "--out", run)
    assert (out + said).count("the plan is complete") == 1
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    code, out, _ = gen("resume", run)
    assert code == 0 and out.startswith(f"{run}: step 1, the plan was complete already; a new run goes on from it: gen train ")
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    words = out.split("from it: gen ")[1].replace("--steps N", "--steps 2").split()
    assert gen(*words, "--out", tmp_path / "more")[0] == 0
    assert describe_run(tmp_path / "more")["step"] == 2


def test_files_to_start_from_are_refused_where_the_plugin_takes_none(run: Path, gen: Command) -> None:
    code, _, said = gen("sample", run, "--from", run / "log.txt")
    assert code == 2 and "leave out --from" in said


def test_no_runs_in_the_default_folder_is_no_mistake(gen: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert gen("runs", "list") == (0, "no runs in runs\n", "")
    assert gen("runs", "list", "--json")[1] == "[]\n"
