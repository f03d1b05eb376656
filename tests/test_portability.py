"""Nothing needs Unix: parts that a system lacks, calls that Windows refuses, devices that are refused by name."""

from __future__ import annotations

import ast
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import platformdirs
import pytest
import torch
from filelock import FileLock

import advgen
from advgen import interrupts
from advgen.cache import cache_folder
from advgen.data import archives
from advgen.data.manifest import read_manifest
from advgen.errors import CheckpointError, ConfigError, DataError, GenError
from advgen.export.folder import data_name
from advgen.files import file_name, keep_file, replace_file, suits_windows, user_path
from advgen.runs import RunFolder, checkpoint
from advgen.training import Trainer
from advgen.wanted import _by_class
from advgen.world import pick_device
from advgen.written import Written

sys.path.insert(0, str(Path(__file__).parent))
from conftest import environment, tiny

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for folder in ("core", "plugins", "examples") for path in (ROOT / folder).rglob("*.py"))
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")


# A whole life without Unix


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the outcome of each plugin's run in a process without Unix."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, str(ROOT / "tests" / "without_unix.py"), str(folder)]
    ended = subprocess.run(command, env=environment(ROOT), capture_output=True, encoding="utf-8", timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "not kept" not in ended.stderr, ended.stderr
    return {life["plugin"]: life for life in map(json.loads, ended.stdout.splitlines())}


@ON_LINUX
@pytest.mark.parametrize("plugin", ["image", "audio", "text"])
def test_a_run_lives_its_whole_life_without_unix_and_under_the_rules_of_windows(plugin: str, lives: dict[str, Any]) -> None:
    life = lives[plugin]
    assert "error" not in life, life["error"]
    assert life["step"] == 4 and life["distance"] >= 0 and life["again"][0] == 1
    # The newest is kept, and the best until the next is saved; nothing is left of the others, nor of locks.
    assert {"step-00000004"} <= set(life["checkpoints"]) <= {"step-00000002", "step-00000004"} and life["left"] == []
    assert (life["files"], life["removed"]) == ((1, 0) if plugin == "text" else (2, 1))
    cached = {"image": {".npy", ".json"}, "audio": {".pcm", ".json"}, "text": {".tokens", "archives"}}
    assert cached[plugin] | {".safetensors"} <= set(life["cache"])


REFUSED = {
    "import fcntl": "no module named",
    "os.rename(opened.name, root + '/free')": "has the file open",
    "os.replace(other, opened.name)": "has the file open",
    "os.replace(other, mapped.filename)": "has the file open",
    "os.remove(mapped.filename)": "has the file open",
    "os.rename(root + '/folder', root + '/moved')": "has the file open",
    "os.rename(other, root + '/there')": "the file exists",
    "open(root + '/aux.txt', 'w')": "not valid",
    "os.mkdir(root + '/end.')": "not valid",
    "os.open(root + '/folder', os.O_RDONLY)": "cannot be opened",
    "os.fsync(opened.fileno())": "not open for writing",
}


@ON_LINUX
def test_the_stand_in_for_windows_refuses_what_windows_refuses(tmp_path: Path) -> None:
    for name in ("other", "there", "open", "mapped"):
        (tmp_path / name).write_bytes(b"1234")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_bytes(b"1234")
    code = f"""
import os, numpy, without_unix
without_unix.take_away()
root = {str(tmp_path)!r}
without_unix.Rules(root)
other, opened, mapped = root + '/other', open(root + '/open'), numpy.memmap(root + '/mapped', mode='r')
inner = open(root + '/folder/inner')
for line in {list(REFUSED)!r}:
    try:
        exec(line)
        print('allowed')
    except (OSError, ImportError) as error:
        print(error)
os.replace(other, root + '/there')
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment(ROOT, ROOT / "tests"), capture_output=True, encoding="utf-8"
    )
    said = ended.stdout.splitlines()
    assert ended.returncode == 0 and len(said) == len(REFUSED), ended.stderr
    for (line, expected), answer in zip(REFUSED.items(), said, strict=True):
        assert expected in answer, f"{line}: {answer}"


# What stands in the code

UNIX_MODULES = {"fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog", "posix", "readline", "curses"}
WINDOWS_MODULES = {"msvcrt", "winreg", "winsound", "_winapi", "nt"}
UNIX_NAMES = {
    "os": {"fork", "forkpty", "getuid", "geteuid", "getgid", "getegid", "posix_fallocate", "posix_fadvise", "mkfifo", "mknod"}
    | {"sched_getaffinity", "statvfs", "uname", "killpg", "getpgid", "setsid", "nice", "fchmod", "fchown", "chown", "wait"}
    | {"O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_SYNC", "pread", "pwrite", "sync", "getloadavg", "sysconf"},
    "time": {"tzset", "clock_gettime"},
    "signal": {"alarm", "pause", "setitimer", "pthread_sigmask", "sigwait"},
}
PORTABLE_SIGNALS = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
UNIX_PLACES = ("/tmp", "/dev/", "/proc/", "/var/", "/etc/", "~/")
RENAMERS = {"core/advgen/files.py", "core/advgen/runs/checkpoint.py"}
"""Modules that may rename by themselves: the one for all others, and one whose renames may fail."""
LIMITERS = {"core/advgen/unpickling.py"}
"""Modules that limit their own resources if the system can, and go on if it cannot."""


def faults(source: str, name: str = "") -> Iterator[str]:
    """List everything in a module that another system lacks or does differently, each with its line."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    guarded = {ast.unparse(node) for node in calls if node.func.id == "hasattr"}
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in named:
                if module.split(".")[0] in (UNIX_MODULES | WINDOWS_MODULES) - ({"resource"} if name in LIMITERS else set()):
                    yield f"line {node.lineno} imports {module}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = node.value.id
            lacking = node.attr in UNIX_NAMES.get(owner, ()) and f"hasattr({owner}, '{node.attr}')" not in guarded
            signals = owner == "signal" and node.attr.startswith("SIG") and node.attr not in PORTABLE_SIGNALS
            if lacking or signals:
                yield f"line {node.lineno} uses {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            if node.value.startswith(UNIX_PLACES) and not (name in LIMITERS and node.value == "/proc/self/statm"):
                yield f"line {node.lineno} names {node.value}"
        elif isinstance(node, ast.Call):
            yield from (f"line {node.lineno} {fault}" for fault in _faults_of_call(node, name))


def _function(node: ast.Call) -> str:
    """Return the called name, such as ``os.replace``; ``.replace`` for a method of an expression."""
    if isinstance(node.func, ast.Attribute):
        deep = isinstance(node.func.value, ast.Attribute | ast.Name)
        return f"{ast.unparse(node.func.value) if deep else ''}.{node.func.attr}"
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _faults_of_call(node: ast.Call, name: str) -> Iterator[str]:
    function, given = _function(node), {keyword.arg for keyword in node.keywords}
    called = function.rpartition(".")[2]
    if "preexec_fn" in given:
        yield "gives preexec_fn"
    if called in ("run", "Popen", "check_output") and {"text", "universal_newlines"} & given and "encoding" not in given:
        yield "reads a process without encoding"
    if called == "expanduser" and function != "os.path.expanduser":
        yield "calls expanduser, which fails without a home folder; take advgen.user_path"
    if function == "sorted" and "key" not in given and _paths(node.args[0]):
        yield "sorts paths, whose order differs on Windows; take advgen.sorted_paths"
    moves = function in ("os.replace", "os.rename") or (called in ("replace", "rename") and len(node.args) == 1 and not given)
    if moves and "." in function and name not in RENAMERS:
        yield "renames by itself; take advgen.replace_file"
    if missing := _needed(node, called, function) - given:
        yield f"calls {called} without {' and '.join(sorted(missing))}"


def _paths(node: ast.expr) -> bool:
    """Return whether an expression lists all or some of the paths in a folder."""
    if isinstance(node, ast.GeneratorExp | ast.ListComp | ast.SetComp):
        return isinstance(node.elt, ast.Name) and _paths(node.generators[0].iter)
    return isinstance(node, ast.Call) and _function(node).rpartition(".")[2] in ("glob", "rglob", "iterdir")


def _needed(node: ast.Call, called: str, function: str) -> set[str]:
    """Return the arguments that a call must pass to read or write text alike on every system."""
    method = function != called
    if called == "read_text" and method and not node.args:
        return {"encoding"}
    if called == "write_text" and method and len(node.args) < 2:
        return {"encoding", "newline"}
    modes = _mode(node) if called == "open" else None
    if modes is None or any("b" in mode for mode in modes):
        return set()
    return {"encoding", "newline"} if any(set(mode) & set("wax+") for mode in modes) else {"encoding"}


def _mode(node: ast.Call) -> set[str] | None:
    """Return the modes that a call of open may have; None if it does not open a path."""
    builtin = isinstance(node.func, ast.Name)
    places = [node.args[1]] if builtin and len(node.args) > 1 else [] if builtin else node.args[:1]
    places += [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
    words = {part.value for place in places for part in ast.walk(place) if isinstance(part, ast.Constant)}
    modes = {word for word in words if isinstance(word, str) and set(word) <= set("rwaxbt+")}
    return modes or (None if places else {"r"})


PLANTED = [
    "import fcntl",
    "def lock():\n    from resource import getrusage",
    "import msvcrt",
    "os.fork()",
    "os.open(path, os.O_DIRECTORY)",
    "os.posix_fallocate(1, 0, 2)",
    "signal.signal(signal.SIGHUP, stop)",
    "place = '/tmp/scratch'",
    "subprocess.run(command, preexec_fn=limit)",
    "subprocess.run(command, text=True)",
    "Path(given).expanduser()",
    "os.replace(one, other)",
    "path.rename(other)",
    "path.replace(other)",
    "path.write_text('x')",
    "path.write_text('x', encoding='utf-8')",
    "path.read_text()",
    "open(path)",
    "open(path, 'w', encoding='utf-8')",
    "path.open('a' if more else 'w', encoding='utf-8')",
    "path.open()",
    "sorted(folder.rglob('*'))",
    "sorted(path for path in folder.iterdir() if path.is_file())",
]
SOUND = [
    "import os\nif hasattr(os, 'posix_fallocate'):\n    os.posix_fallocate(1, 0, 2)",
    "getattr(signal, 'SIGHUP', None)",
    "signal.signal(signal.SIGTERM, stop)",
    "'''Below /tmp.'''",
    "text.replace('a', 'b')",
    "dataclasses.replace(record, name='x')",
    "replace_file(one, other)",
    "path.write_text('x', encoding='utf-8', newline='\\n')",
    "path.read_text(encoding='utf-8')",
    "open(path, 'rb')",
    "path.open('wb')",
    "Image.open(file)",
    "sorted(path.name for path in folder.iterdir())",
    "sorted(folder.glob('*'), key=len)",
    "path.open('w', encoding='utf-8', newline='')",
    "subprocess.run(command, text=True, encoding='utf-8')",
]


@pytest.mark.parametrize("source", PLANTED)
def test_a_planted_fault_is_found(source: str) -> None:
    assert list(faults(source))


@pytest.mark.parametrize("source", SOUND)
def test_portable_code_is_no_fault(source: str) -> None:
    assert not list(faults(source))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_uses_what_another_system_lacks(path: Path) -> None:
    assert list(faults(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())) == []


# Devices


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mps", "device 'mps' is Apple's GPU, which is not supported: it lacks double precision"),
        ("mps:0", "device 'mps:0' is Apple's GPU, which is not supported"),
        ("xpu", "device 'xpu' is not supported, though torch knows it; expected one of auto, cpu, cuda"),
        ("hpu", "device 'hpu' is not supported"),
        ("meta", "device 'meta' is not supported"),
        ("vulkan:1", "device 'vulkan:1' is not supported"),
        ("mkldnn", "device 'mkldnn' is not supported"),
        ("cudaa", "device 'cudaa' is unknown; did you mean 'cuda'? known: auto, cpu, cuda"),
        ("CPU", "device 'CPU' is unknown"),
        ("0", "device '0' is unknown"),
        ("", "device '' is unknown"),
        ("cuda:x", "device 'cuda:x' is not a device; expected cuda, or cuda:N such as cuda:0"),
        ("cuda:-1", "device 'cuda:-1' is not a device"),
    ],
)
def test_a_device_that_is_not_supported_is_refused_by_name(name: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        pick_device(name)
    assert said in str(refusal.value) and str(refusal.value).endswith("; use --device cpu")


def test_auto_is_never_apple_s_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu") == pick_device("cpu:0")


def test_a_cuda_gpu_that_is_not_there_is_named_with_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"device 'cuda:7': this GPU does not exist here; found 2 GPUs, cuda:0 to cuda:1"):
        pick_device("cuda:7")
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(ConfigError, match=r"device 'cuda:3': this GPU does not exist here"):
        pick_device("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"device 'cuda:7': torch finds no CUDA GPU or no driver for it here"):
        pick_device("cuda:7")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(ConfigError, match=r"device 'cuda': this torch was built without CUDA"):
        pick_device("cuda")


def test_every_command_refuses_a_device_in_one_line(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from advgen.cli import main

    train = ["train", "--plugin", "text", "--steps", "1", "--out", str(tmp_path / "new")]
    for command in (train, ["resume", str(run)], ["sample", str(run)], ["evaluate", str(run)]):
        with pytest.raises(SystemExit) as stop:
            main([*command, "--device", "mps"])
        assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: device 'mps' is Apple's GPU"), command
    assert not (tmp_path / "new").exists()


# The cache folder


def test_the_cache_is_in_xdg_cache_home_on_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "usual"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "advgen"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/mine")
    assert cache_folder() == Path.home() / "mine" / "advgen"
    for unset in (None, ""):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False) if unset is None else monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert cache_folder() == tmp_path / "usual"


@pytest.mark.skipif(sys.platform != "linux", reason="the place on Linux")
def test_the_cache_is_below_the_home_folder_on_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "advgen"


@pytest.mark.parametrize("chosen", [None, "~/mine"])
def test_a_home_folder_that_is_not_known_is_told_with_the_way_out(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", str)  # as it does if nothing is known
    monkeypatch.delenv("XDG_CACHE_HOME") if chosen is None else monkeypatch.setenv("XDG_CACHE_HOME", chosen)
    with pytest.raises(ConfigError, match=r"no home folder is known.*set XDG_CACHE_HOME"):
        cache_folder()


def test_a_home_of_nobody_in_a_path_is_no_crash() -> None:
    assert user_path("~nobody-of-that-name/data") == Path("~nobody-of-that-name/data")
    with pytest.raises(DataError, match=r"data path .*~nobody-of-that-name/data does not exist"):
        advgen.train("text", data="~nobody-of-that-name/data", steps=1, device="cpu", progress=False)


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with caplog.at_level(logging.WARNING, "advgen"):
        keep_file(tmp_path / "file" / "judge", b"weights", "weights of the judge")
    assert f"weights of the judge are not kept in {tmp_path / 'file'}: " in caplog.text
    keep_file(tmp_path / "new" / "judge", b"weights", "weights")
    assert (tmp_path / "new" / "judge").read_bytes() == b"weights" and len(list((tmp_path / "new").iterdir())) == 1


# Locks

HOLD = """
import sys
if {without}:
    import without_unix
    without_unix.take_away()
from advgen.runs import RunFolder
from advgen.errors import CheckpointError
try:
    with RunFolder(sys.argv[1]).locked():
        print("held", flush=True)
        if sys.argv[2] == "stay":
            sys.stdin.read()
except CheckpointError as error:
    print(error, flush=True)
"""


def holder(folder: Path, way: str, without: bool) -> subprocess.Popen[str]:
    """Start a process that holds a run's lock: ``stay`` until it is killed, or ``try`` once."""
    command = [sys.executable, "-W", "ignore", "-c", HOLD.format(without=without), str(folder), way]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(ROOT, ROOT / "tests"), encoding="utf-8", **pipes)  # type: ignore[call-overload]


@pytest.mark.parametrize("without", [False, True], ids=["locks of the system", "without fcntl"])
def test_a_second_writer_is_refused_with_the_owner_s_number_until_the_owner_is_killed(tmp_path: Path, without: bool) -> None:
    owner = holder(tmp_path, "stay", without)
    try:
        assert owner.stdout is not None and owner.stdout.readline() == "held\n"
        refused = holder(tmp_path, "try", without).communicate(timeout=60)[0]
        assert refused == f"{tmp_path} is in use by process {owner.pid}; wait for it to end\n"
    finally:
        owner.kill()
        owner.communicate(timeout=60)
    assert (tmp_path / ".owner").read_text(encoding="utf-8") == f"{owner.pid}\n"  # it had no time to tidy up
    assert holder(tmp_path, "try", without).communicate(timeout=60)[0] == "held\n"
    assert not (tmp_path / ".owner").exists()


def test_two_threads_of_one_process_do_not_hold_a_run_together(tmp_path: Path) -> None:
    said = list[str]()

    def hold() -> None:
        try:
            with RunFolder(tmp_path).locked():
                said.append("held")
        except CheckpointError as error:
            said.append(str(error))

    for expected in (f"{tmp_path} is in use by process {os.getpid()}; wait for it to end", "held"):
        with RunFolder(tmp_path).locked() if expected != "held" else threading.Lock():
            thread = threading.Thread(target=hold)
            thread.start()
            thread.join()
        assert said.pop() == expected


def test_a_full_disk_does_not_break_taking_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".owner").write_text("1\n", encoding="utf-8")  # of an owner that was killed

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(CheckpointError, match="in use by process unknown"),
        RunFolder(tmp_path).locked(),
    ):
        pass


def test_a_folder_that_cannot_be_locked_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    with pytest.raises(CheckpointError, match=r"\.lock cannot be locked \(No locks available\); .*a disk that allows locks"):
        RunFolder(tmp_path).locked().__enter__()


def test_the_lock_of_an_earlier_version_with_a_number_in_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("12345", encoding="utf-8")
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".owner").read_text(encoding="utf-8") == f"{os.getpid()}\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a short run that stopped at step 1 of a longer plan."""
    overrides = tiny("text", "phases=[{kind='adversarial'}]", "train.sample_every=100000")
    out = tmp_path_factory.mktemp("portable") / "run"
    return advgen.train("text", out=out, overrides=overrides, steps=9, stop_after=1, device="cpu", progress=False).folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of that run."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_readers_take_no_lock(run: Path) -> None:
    for name in (".lock", ".owner"):
        (run / name).unlink(missing_ok=True)
    with RunFolder(run).locked():  # nor do they wait for one
        before = {path.name for path in run.iterdir()}
        assert len(advgen.load_generator(run, device="cpu").draw(2)) == 2
    assert {path.name for path in run.iterdir()} <= before


# Signals


def test_the_signals_that_end_a_run_are_those_that_the_system_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {signal.SIGINT, signal.SIGTERM} <= set(interrupts.saving_signals())
    monkeypatch.delattr(signal, "SIGTERM")
    assert signal.SIGINT in interrupts.saving_signals() and signal.Signals.SIGTERM not in interrupts.saving_signals()


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs a signal that is free")
def test_ctrl_break_saves_and_ends_a_run_with_75(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    step = Trainer._step

    def press(trainer: Trainer) -> dict[str, torch.Tensor]:
        signal.raise_signal(signal.SIGUSR1)
        return step(trainer)

    monkeypatch.setattr(Trainer, "_step", press)
    before = signal.getsignal(signal.SIGUSR1)
    result = advgen.resume(run, device="cpu", progress=False)
    assert (result.step, result.exit_code) == (2, 75) and checkpoint.steps(run / "checkpoints")[-1] == 2
    assert signal.getsignal(signal.SIGUSR1) == before


# Names and files


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("circle", "circle"),
        ("c++ (new)", "c++ (new)"),
        ("größe 日本", "größe 日本"),
        ("a/b\\c:d", "a_b_c_d"),
        ('<"what?*|>', "__what____"),
        ("..", "__"),
        (".hidden", "_hidden"),
        ("end. ", "end__"),
        ("", "_"),
        ("con", "_con"),
        ("Aux.png", "_Aux.png"),
        ("COM1", "_COM1"),
        ("console", "console"),
        ("tab\tnew\nline", "tab_new_line"),
    ],
)
def test_a_text_becomes_a_name_that_every_system_takes(text: str, name: str) -> None:
    assert file_name(text) == name and suits_windows(name) and file_name(name) == name


def test_a_long_text_becomes_a_name_of_whole_characters() -> None:
    assert file_name("é" * 300) == "é" * 60 and len(file_name("日" * 300).encode()) == 120


def test_folders_of_classes_stay_apart_on_systems_that_ignore_case() -> None:
    facts = {"classes": ["nul", "Apple", "apple", "a/b"]}
    run = SimpleNamespace(modality=SimpleNamespace(facts=facts))

    class Space:
        def place(self, seed: int, label: int) -> int:
            return label

        def render(self, label: int) -> advgen.Batch:
            return advgen.Batch(torch.full((1, 1), float(label)))

    drawn = _by_class(run, Space(), [5])  # type: ignore[arg-type]
    assert drawn.names == [("0-_nul", 5), ("1-Apple", 5), ("2-apple", 5), ("3-a_b", 5)]


def test_a_file_that_somebody_reads_is_replaced_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, left = os.replace, [2]

    def busy(*paths: Path) -> None:
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "a process has the file open")
        replace(*paths)

    monkeypatch.setattr("advgen.files.os.replace", busy)
    for name in ("new", "old"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    replace_file(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text(encoding="utf-8") == "new" and left == [0]
    monkeypatch.setattr("advgen.files.PATIENCE_SECONDS", 0.0)
    left[0] = 9
    with pytest.raises(PermissionError):
        replace_file(tmp_path / "old", tmp_path / "new")


@pytest.mark.parametrize("name", ["aux.png", "a/b:c.png", "end./x.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_with_a_name_that_windows_reads_otherwise_is_refused_there(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"x")
    archive = tmp_path / f"data.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as whole:
            whole.write(tmp_path / "x", name)
    else:
        with tarfile.open(archive, "w") as whole:
            whole.add(tmp_path / "x", name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(archives, "STRICT_NAMES", True)
    with pytest.raises(DataError, match=r"has a name that Windows does not take"):
        archives.unpacked(archive)
    monkeypatch.setattr(archives, "STRICT_NAMES", False)
    assert archives.unpacked(archive).read_bytes() == b"x"


def test_a_name_that_comes_twice_in_an_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with tarfile.open(tmp_path / "data.tar", "w") as whole:
        for _ in range(2):
            whole.add(__file__, "a/x.png")
    with pytest.raises(DataError, match=r"'a/x\.png' comes twice"):
        archives.unpacked(tmp_path / "data.tar")


def test_a_list_from_windows_is_read_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.png").write_bytes(b"")
    (tmp_path / "list.csv").write_bytes(b"path,label\r\none\\a.png,x\r\none/a.png,y\r\n")
    rows = list(read_manifest(tmp_path / "list.csv", lambda name, reason: pytest.fail(f"{name} {reason}")))
    assert [(row.path, row.label) for row in rows] == [(tmp_path / "one" / "a.png", label) for label in "xy"]


def test_an_export_names_no_folders_of_the_system_that_trained(run: Path) -> None:
    loaded = advgen.load_generator(run, device="cpu")
    for path, name in (
        ("/home/me/captions.txt", "captions.txt"),
        ("C:\\Users\\me\\captions.txt", "captions.txt"),
        ("coco", "coco"),
    ):
        data = loaded.config.data.model_copy(update={"path": path})
        loaded.config = loaded.config.model_copy(update={"data": data})
        assert data_name(loaded) == name


def test_records_name_files_with_forward_slashes_and_lead_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"")
    written = Written(tmp_path)
    written.write([tmp_path / "a" / "x"])
    assert written.names() == ["a/x"] and b"\r" not in written.record.read_bytes()
    digest = "0" * 64
    written.record.write_bytes(f"{digest}  ../x\n{digest}  {tmp_path / 'x'}\n{digest}  a/../../x\n{digest}  \n".encode())
    assert written.names() == []


def test_files_of_a_run_end_their_lines_alike_on_every_system(run: Path) -> None:
    advgen.resume(run, stop_after=2, device="cpu", progress=False)
    for name in (
        "metrics.jsonl",
        "log.txt",
        "run.json",
        "config.toml",
        "facts.json",
        "checkpoints/step-00000002/manifest.json",
    ):
        content = (run / name).read_bytes()
        assert b"\n" in content and b"\r" not in content, name


@ON_LINUX
def test_loaded_weights_keep_no_file_of_the_checkpoint_mapped(run: Path) -> None:
    parts, _ = checkpoint.load(run / "checkpoints", 1)
    assert parts["generator"] and str(run) not in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_letters_that_a_terminal_lacks_are_escaped(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "größe 日本").mkdir()
    (tmp_path / "größe 日本" / "run.json").write_text("{", encoding="utf-8")
    for more in ([], ["--json"]):
        command = [sys.executable, "-m", "advgen", "runs", "list", str(tmp_path), *more]
        ended = subprocess.run(command, env={**environment(ROOT), "PYTHONIOENCODING": encoding}, capture_output=True)
        assert ended.returncode == 0, ended.stderr
        said = ended.stdout.decode(encoding)
        shown = json.loads(said)[0]["name"] if more else said
        assert ("größe 日本" if more or encoding == "utf-8" else r"\u65e5\u672c") in shown, said


def test_a_refusal_is_a_gen_error_with_an_exit_code() -> None:
    with pytest.raises(GenError) as refusal:
        pick_device("mps")
    assert refusal.value.exit_code == 2
