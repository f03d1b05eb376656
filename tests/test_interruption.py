"""What ends a run from outside: signals, a full disk, damage on disk. What was saved stays, and a resume goes on."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import advgen
from advgen import files
from advgen.runs import checkpoint
from advgen.training import Trainer
from advgen_text import modality

sys.path.insert(0, str(Path(__file__).parent))
from conftest import environment, tiny

LONG = 100_000
SENDS_SIGNALS = pytest.mark.skipif(os.name == "nt", reason="a process on Windows gets no signals from another")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A short run that stopped at step 2 of a long plan."""
    overrides = tiny("text", "phases=[{kind='adversarial'}]", "train.sample_every=100000", "train.keep=9")
    result = advgen.train(
        "text", out=tmp_path / "run", overrides=overrides, steps=LONG, stop_after=2, device="cpu", progress=False
    )
    return result.folder


def gen(root: Path, *arguments: object, prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "advgen", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment(root), stdout=pipe, stderr=pipe, text=True, preexec_fn=prepare)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, error = process.communicate(timeout=120)
    return process.returncode, out + error


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)


def digests(folder: Path) -> dict[str, str]:
    """A hash of every file below a folder."""
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def step_of(run: Path) -> int:
    return checkpoint.steps(run / "checkpoints")[-1]


@SENDS_SIGNALS
def test_ctrl_c_and_termination_save_say_how_to_go_on_and_the_run_goes_on(run: Path, root: Path) -> None:
    steps = [step_of(run)]
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 75)):
        rows = len((run / "metrics.jsonl").read_text().splitlines())
        process = gen(root, "resume", run, "--device", "cpu")
        wait_for(lambda rows=rows: len((run / "metrics.jsonl").read_text().splitlines()) > rows + 2, process)
        process.send_signal(number)
        came, said = ended(process)
        assert came == code, said
        assert f"interrupted at step {step_of(run)}, saved; go on with: gen resume {run}" in said
        steps.append(step_of(run))
    assert steps == sorted(set(steps))
    last = steps[-1]
    assert advgen.resume(run, stop_after=last + 1, device="cpu", progress=False).step == last + 1


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="reads /proc")
def test_ctrl_c_before_the_first_step_ends_with_130_and_leaves_the_run_as_it_was(run: Path, root: Path) -> None:
    before = digests(run / "checkpoints")
    process = gen(root, "resume", run, "--device", "cpu")
    wait_for(lambda: "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(), process)  # in the middle of the imports
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code == 130, said
    assert "Traceback" not in said and all(digests(run / "checkpoints")[path] == digest for path, digest in before.items())


def test_ctrl_c_inside_code_compiled_from_a_string_ends_with_130_too(tmp_path: Path, root: Path) -> None:
    """Python remembers such a Ctrl-C and would end the process by SIGINT in place of the exit code."""
    plugin = tmp_path / "pressing.py"
    plugin.write_text("exec('import signal, time; signal.raise_signal(signal.SIGINT); time.sleep(9)')")
    assert ended(gen(root, "train", "--plugin", plugin, "--steps", 1)) == (130, "interrupted; nothing was saved\n")


@pytest.mark.parametrize("after", ["an odd error", "going on"])
def test_ctrl_c_that_an_import_swallowed_still_ends_with_130(
    after: str, run: Path, monkeypatch: pytest.MonkeyPatch, capture: Callable[..., tuple[int, str]]
) -> None:
    """torch imports numpy in C and clears what is raised there, a KeyboardInterrupt too."""
    load = advgen.api.build

    def swallow(*arguments: Any, **more: Any) -> object:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
            time.sleep(1)
        if after == "an odd error":
            raise AttributeError("module 'numpy' has no attribute 'multiply'")
        return load(*arguments, **more)

    monkeypatch.setattr("advgen.api.build", swallow)
    before = digests(run / "checkpoints")
    code, said = capture("resume", run, "--device", "cpu")
    assert code == 130 and "unexpected" not in said, said
    assert said.endswith("interrupted; nothing was saved\n") and said.count("interrupted") == 1
    assert digests(run / "checkpoints") == before


@pytest.mark.parametrize(("command", "called"), [("evaluate", "evaluation.evaluate_loaded"), ("sample", "sampling.load_run")])
def test_ctrl_c_while_evaluating_or_sampling_is_one_line_and_130(
    command: str, called: str, run: Path, monkeypatch: pytest.MonkeyPatch, capture: Callable[..., tuple[int, str]]
) -> None:

    def press(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)

    monkeypatch.setattr(f"advgen.{called}", press)
    assert capture(command, run, "--device", "cpu") == (130, "interrupted; nothing was saved\n")


def test_a_second_ctrl_c_in_training_tells_what_was_saved(
    run: Path, monkeypatch: pytest.MonkeyPatch, capture: Callable[..., tuple[int, str]]
) -> None:
    def press_twice(trainer: Trainer, stop_after: int | None) -> None:
        trainer.clock.step += 1
        trainer.save()
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.1)

    monkeypatch.setattr(Trainer, "_loop", press_twice)
    code, said = capture("resume", run, "--device", "cpu")
    assert code == 130 and said.splitlines()[-1] == f"interrupted; saved up to step 3; go on with: gen resume {run}"


def test_a_run_that_ends_before_its_first_checkpoint_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capture: Callable[..., tuple[int, str]]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    sets = [word for override in tiny("text") for word in ("--set", override)]
    command = ["train", "--plugin", "text", "--steps", 1, "--device", "cpu", *sets, "--out"]
    code, said = capture(*command, tmp_path / "new")
    assert code == 5 and "nothing was saved" in said and "gen resume" not in said and not (tmp_path / "new").exists(), said
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".gitkeep").write_text("kept")
    assert capture(*command, tmp_path / "mine")[0] == 5
    assert [path.name for path in (tmp_path / "mine").iterdir()] == [".gitkeep"]
    monkeypatch.undo()
    assert capture(*command, tmp_path / "mine")[0] == 0


def test_a_run_without_a_checkpoint_is_not_said_to_be_resumable(run: Path, capture: Callable[..., tuple[int, str]]) -> None:
    shutil.rmtree(run / "checkpoints")
    code, said = capture("train", "--plugin", "text", "--steps", 1, "--device", "cpu", "--out", run)
    assert code == 2 and "remove the folder" in said and "gen resume" not in said, said


def test_stopping_after_a_step_that_is_past_is_refused(run: Path, capture: Callable[..., tuple[int, str]]) -> None:
    code, said = capture("resume", run, "--stop-after", 1, "--device", "cpu")
    assert code == 2 and f"{run} is already at step 2; give a later step" in said, said


def test_a_damaged_run_is_listed_beside_the_others(run: Path, capture: Callable[..., tuple[int, str]]) -> None:
    for name, content in (("broken", "{"), ("lacking", "{}")):
        (run.parent / name).mkdir()
        (run.parent / name / "run.json").write_text(content)
    code, said = capture("runs", "list", run.parent)
    rows = [line.split() for line in said.splitlines()]
    assert code == 0 and [row[0] for row in rows] == ["name", "broken", "lacking", "run"] and said.count("damaged: ") == 2, said


def no_file_above(size: int) -> Callable[[], None]:
    """Files above a size fail to be written, as on a full disk."""

    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


@pytest.mark.skipif(os.name == "nt", reason="Windows limits no process's files")
def test_a_disk_that_fills_up_while_a_checkpoint_is_written_leaves_the_earlier_ones(run: Path, root: Path) -> None:
    before = digests(run / "checkpoints")
    code, said = ended(gen(root, "resume", run, "--stop-after", 4, "--device", "cpu", prepare=no_file_above(8_000)))
    assert code == 5, said
    assert "checkpoint of step 4 could not be written" in said and "earlier checkpoints are untouched" in said
    assert "gen resume" in said and digests(run / "checkpoints") == before
    assert advgen.resume(run, stop_after=4, device="cpu", progress=False).step == 4


@pytest.mark.parametrize("name", ["log.txt", "metrics.jsonl", "samples"])
def test_a_disk_that_is_full_for_small_files_is_told_and_what_was_saved_stays(
    name: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_full_disk(real: Callable[..., Any]) -> Callable[..., Any]:
        def write(*arguments: Any, **more: Any) -> Any:
            if any(isinstance(each, Path) and name in each.parts for each in arguments):
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **more)

        return write

    before = digests(run / "checkpoints")
    monkeypatch.setattr("advgen.files.append_text", on_a_full_disk(files.append_text))
    monkeypatch.setattr("advgen_text.modality.write_table", on_a_full_disk(modality.write_table))
    with pytest.raises(advgen.GenError, match=r"could not be written \(No space left.*then: gen resume") as refusal:
        advgen.resume(run, stop_after=3, device="cpu", progress=False)
    assert refusal.value.exit_code == 5 and name in str(refusal.value)
    assert {path: digest for path, digest in digests(run / "checkpoints").items() if path in before} == before


@pytest.fixture
def capture(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str]]]:
    def call(*arguments: object) -> tuple[int, str]:
        from advgen.cli import main

        capsys.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        streams = capsys.readouterr()
        return code, streams.out + streams.err

    yield call


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_a_flipped_bit_is_named_and_the_checkpoint_before_it_is_used(
    run: Path, capture: Callable[..., tuple[int, str]]
) -> None:
    newest, older = (run / "checkpoints" / f"step-{step:08d}" / "generator.safetensors" for step in (2, 0))
    damage(newest)
    code, said = capture("resume", run, "--stop-after", 1, "--device", "cpu")
    assert code == 0 and f"{newest} is damaged: its sha256 is not the manifest's; going back to step 0" in said
    assert step_of(run) == 1 and (run / "checkpoints" / "damaged-step-00000002").is_dir()
    damage(older)
    damage(run / "checkpoints" / "step-00000001" / "generator.safetensors")
    for command in (("resume", run), ("sample", run), ("evaluate", run)):
        code, said = capture(*command, "--device", "cpu")
        assert code == 5 and "no whole checkpoint" in said and str(older) in said, said


@pytest.mark.parametrize("name", ["run.json", "config.toml", "facts.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]"])
def test_a_damaged_file_of_the_run_folder_is_named(
    name: str, content: bytes, run: Path, capture: Callable[..., tuple[int, str]]
) -> None:
    (run / name).write_bytes(content)
    code, said = capture("sample", run, "--device", "cpu")
    assert code == 5 and name in said and "damaged" in said, said


def test_a_metrics_row_that_a_crash_cut_short_is_dropped(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 2, "gener')
    advgen.resume(run, stop_after=3, device="cpu", progress=False)
    assert [line[:10] for line in (run / "metrics.jsonl").read_text().splitlines()] == [
        '{"step": 1',
        '{"step": 2',
        '{"step": 3',
    ]


def test_odd_names_among_the_checkpoints_are_passed_over(run: Path, capture: Callable[..., tuple[int, str]]) -> None:
    (run / "checkpoints" / "step-old").mkdir()
    (run / "checkpoints" / "step-old" / "manifest.json").write_text("{}")
    (run / "checkpoints" / "step-00000009").mkdir()  # a copy that was cut short: no manifest
    assert capture("runs", "show", run)[0] == 0
    assert advgen.resume(run, stop_after=3, device="cpu", progress=False).step == 3


def test_an_out_folder_that_cannot_be_made_is_named(tmp_path: Path, capture: Callable[..., tuple[int, str]]) -> None:
    (tmp_path / "file").write_text("")
    code, said = capture("train", "--plugin", "text", "--steps", 1, "--out", tmp_path / "file" / "run", "--device", "cpu")
    assert code == 2 and "cannot make the run folder" in said and "choose another --out" in said
