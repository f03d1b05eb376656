"""Plugins that end, hang or bend the process that imports them cost nobody but themselves."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import environment

from advgen import offers as offering
from advgen.cli import main
from advgen.config.sampling import plugins_with
from advgen.data.datasets import named_sets, readers_of
from advgen.data.survey import guess_plugin
from advgen.errors import PluginError
from advgen.global_state import kept
from advgen.importing import find_importer
from advgen.metrics.table import plugin_metrics
from advgen.probing import ask
from advgen.registry import BUILTIN, find_plugin, load_installed, resolve
from advgen.shared_settings import SETTINGS

pytestmark = pytest.mark.runs_code

HEAD = """
from advgen import DataSet, PluginConfig, PluginSpec, RemoteFile, hookimpl

class Config(PluginConfig):
    sharpness: int = 8

class Thing:
    pass

def metric(*, generated, real):
    return 0.0

def read(path):
    return None

{code}

@hookimpl
def advgen_register():
    {hook}
    return PluginSpec(
        name={name!r}, summary="made up", config="{module}:Config", modality="{module}:Thing", sampling="{module}:Config",
        reads=("*.odd",), addresses=("odd",), importers={{"odd-format": "{module}:read"}},
        metrics={{"zero": "{module}:metric"}},
        datasets={{"odd-set": DataSet("odd", "home", "licence", (RemoteFile("x.odd", "http://x/x.odd"),), terms="be kind")}},
    )
"""


def spec_with(field: str) -> str:
    name = "" if field.startswith("name=") else "name='odd', "
    return f"return PluginSpec({name}summary='s', config='a:b', modality='a:b', {field})"


ENDINGS = {
    "os._exit": "import os; os._exit(0)",
    "os._exit with a code": "import os; os._exit(9)",
    "os.abort": "import os; os.abort()",
    "a signal": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "a keyboard interrupt": "raise KeyboardInterrupt",
    "a sleep": "import time; time.sleep(1000)",
    "a loop": "while True: pass",
    "a thread that stays": "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start()",
    "a process that stays": "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])",
    "an exit": "import sys; sys.exit('bye')",
    "recursion": "def f(): f()\nf()",
    "a closed output": "import os; os.close(1); os.close(2)",
    "much output": "print('x' * 10_000_000)",
    "lines that look like answers": "print('{\"offer\": 1}', flush=True)",
    "a stack that overflows": "import ctypes; ctypes.string_at(0)",
}
BUT_USABLE = {"a thread that stays", "a process that stays", "a closed output", "much output", "lines that look like answers"}
HOOKS = {
    "a dict": ("return {'name': 'odd'}", "advgen_register() returned dict, expected a PluginSpec"),
    "a list": ("return ['odd']", "returned list, expected a PluginSpec"),
    "a class": ("return PluginSpec", "returned type, expected a PluginSpec"),
    "nothing": ("return None", "returned NoneType, expected a PluginSpec"),
    "an error": ("raise RuntimeError('no')", "RuntimeError: no"),
    "an exit": ("raise SystemExit", "SystemExit"),
    "a name of another kind": (spec_with("name=3"), "spec.name is 3, expected a string"),
    "patterns of another kind": (spec_with("reads='*.png'"), "spec.reads is '*.png', expected a tuple of patterns"),
    "a set that is none": (spec_with("datasets={'a': 1}"), "spec.datasets.a is 1, expected a DataSet"),
    "a licence of another kind": (spec_with("datasets={'a': DataSet('s', 'h', 5, ())}"), "datasets.a.licence is 5"),
    "terms of another kind": (spec_with("datasets={'a': DataSet('s', 'h', 'l', (), '', None)}"), "datasets.a.terms is None"),
    "a set without files": (spec_with("datasets={'a': DataSet('s', 'h', 'l', ())}"), "expected a tuple of RemoteFile"),
    "files of another kind": (spec_with("datasets={'a': DataSet('s', 'h', 'l', ('x',))}"), "expected a tuple of RemoteFile"),
    "a file elsewhere": (
        spec_with("datasets={'a': DataSet('s', 'h', 'l', (RemoteFile('../x', 'u'),))}"),
        "is '../x', expected the name of a file, without folders",
    ),
    "a hash of another kind": (
        spec_with("datasets={'a': DataSet('s', 'h', 'l', (RemoteFile('x', 'u', 5),))}"),
        "expected a url and a sha256",
    ),
}


Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a plugin: ``install(name, code, hook)``."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(offering, "LIMIT_SECONDS", 6.0)
    modules: list[str] = []

    def write(name: str, code: str = "", hook: str = "") -> Path:
        module = f"hostile_{name.replace('-', '_')}"
        folder = site / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[advgen.plugins]\n{name} = {module}\n")
        (site / f"{module}.py").write_text(HEAD.format(code=code, hook=hook, name=name, module=module))
        modules.append(module)
        return site

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def test_listings_survive_every_way_to_end_and_leave_the_good_ones_usable(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    names = {kind: f"kind-{number}" for number, kind in enumerate(ENDINGS)}
    for kind, name in names.items():
        install(name, ENDINGS[kind])
    install("good")
    begun = time.monotonic()
    found = {each.name for each in offering.offers()}
    assert time.monotonic() - begun < 60
    assert {"image", "audio", "text", "good"} <= found
    survived = {kind for kind, name in names.items() if name in found}
    assert survived <= BUT_USABLE
    silent = {"an exit", "recursion"}  # plain refusals, which gen plugins list shows
    told = " ".join(caplog.messages)
    for kind in set(ENDINGS) - BUT_USABLE - silent:
        assert f"plugin {names[kind]!r}" in told, kind
    assert not [name for name in sys.modules if name.startswith("hostile_")]


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_that_gives_something_else_is_broken_with_its_reason(kind: str, install: Install) -> None:
    code, reason = HOOKS[kind]
    install("odd", hook=code)
    found = load_installed("odd:odd")
    assert found.status == "broken" and reason in found.reason


def test_a_hook_that_ends_the_process_or_gives_a_dict_is_listed(install: Install) -> None:
    install("odd", hook="return {'name': 'odd'}")
    install("end", hook="import os; os._exit(3)")
    given, ended = ask(["plugin:odd:odd", "plugin:end:end"], 20)
    assert given["status"] == "broken" and "returned dict, expected a PluginSpec" in given["reason"]
    assert ended == {"failed": "it ended the process with exit code 3 (it said nothing)"}


MARK = "from pathlib import Path; Path({mark!r}).write_text('imported here') if {pid} == __import__('os').getpid() else None"
LISTINGS: dict[str, Callable[[Path], Any]] = {
    "named sets": lambda folder: named_sets()["odd-set"][0] == "odd",
    "addresses": lambda folder: readers_of(None, "odd:x") == ["odd:odd"],
    "sampling options": lambda folder: plugins_with("sharpness") == ["odd"],
    "another plugin's files": lambda folder: guess_plugin(folder)[0].name == "text",
    "gen data list": lambda folder: main(["data", "list"]),
    "gen data inspect": lambda folder: main(["data", "inspect", str(folder)]),
    "another plugin's importer": lambda folder: find_importer("hifigan", None)[0].name == "audio",
}


@pytest.mark.parametrize("listing", LISTINGS)
def test_listing_imports_no_third_party_code_into_this_process(
    listing: str, install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mark, data = tmp_path / "mark", tmp_path / "data"
    data.mkdir()
    (data / "lines.txt").write_text("".join(f"a line of text {number}\n" for number in range(60)))
    install("odd", MARK.format(mark=str(mark), pid=os.getpid()))
    try:
        assert LISTINGS[listing](data)
    except SystemExit as ended:
        assert not ended.code
    assert not mark.exists() and "hostile_odd" not in sys.modules
    if listing == "gen data list":
        told = capsys.readouterr().out
        assert "odd-set" in told and "terms of odd-set: be kind" in told


def test_the_chosen_plugin_is_imported(install: Install, tmp_path: Path) -> None:
    install("odd")
    (tmp_path / "x.odd").write_text("x")
    assert guess_plugin(tmp_path / "x.odd")[0].qualified_name == "odd:odd" and "hostile_odd" in sys.modules
    assert "odd.zero" in plugin_metrics()[0]
    assert find_importer("odd-format", None)[0].name == "odd"


def test_strict_mode_refuses_a_plugin_that_hangs(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("odd", "import os; os._exit(9)")
    monkeypatch.setenv("ADVGEN_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"plugin 'odd' of odd 1\.0 is broken: loading it failed: .*exit code 9"):
        named_sets()


def test_only_the_built_in_plugins_ask_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a process was started")

    offering._offers.cache_clear()
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert {each.name for each in offering.offers()} == set(BUILTIN)


# What everything in the process shares

CHANGES = {
    "torch's default dtype": "import torch; torch.set_default_dtype(torch.float64)",
    "torch's default device": "import torch; torch.set_default_device('meta')",
    "torch's grad mode": "import torch; torch.set_grad_enabled(False)",
    "torch's inference mode": "import torch; mode = torch.inference_mode(); mode.__enter__()",
    "torch's autocast": "import torch; torch.autocast('cpu').__enter__()",
    "torch's anomaly detection": "import torch; torch.autograd.set_detect_anomaly(True)",
    "torch's precision of float32 (matmul)": "import torch; torch.set_float32_matmul_precision('medium')",
    "torch's precision of float32 (allow_tf32)": "import torch; torch.backends.cuda.matmul.allow_tf32 = True",
    "torch's precision of float32 (cudnn)": "import torch; torch.backends.cudnn.allow_tf32 = False",
    "torch's precision of float32 (all)": "import torch; torch.backends.fp32_precision = 'tf32'",
    "torch's precision of float32 (newer)": "import torch; torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "torch's precision of float32 (mkldnn)": "import torch; torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "torch's flags of cuDNN (benchmark)": "import torch; torch.backends.cudnn.benchmark = True",
    "torch's flags of cuDNN (deterministic)": "import torch; torch.backends.cudnn.deterministic = True",
    "torch's flags of cuDNN (enabled)": "import torch; torch.backends.cudnn.enabled = False",
    "torch's reductions of half precision": (
        "import torch; torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False"
    ),
    "torch's kernels of attention": "import torch; torch.backends.cuda.enable_flash_sdp(False)",
    "torch's deterministic algorithms": "import torch; torch.use_deterministic_algorithms(True)",
    "torch's number of threads": "import torch; torch.set_num_threads(torch.get_num_threads() + 3)",
    "the state of torch's random numbers (seed)": "import torch; torch.manual_seed(5)",
    "the state of torch's random numbers (draws)": "import torch; layer = torch.nn.Linear(2, 2)",
    "the state of numpy.random": "import numpy; numpy.random.seed(5)",
    "numpy.seterr": "import numpy; numpy.seterr(all='raise')",
    "the state of random": "import random; random.seed(5)",
    "environment variables (set)": "import os; os.environ['OMP_NUM_THREADS'] = '7'",
    "environment variables (new)": "import os; os.environ['CUDA_VISIBLE_DEVICES'] = ''",
    "environment variables (gone)": "import os; os.environ.pop('OMP_NUM_THREADS', None)",
    "sys.path (first)": "import sys; sys.path.insert(0, '/somewhere')",
    "sys.path (gone)": "import sys; sys.path.clear()",
    "warnings filters (all)": "import warnings; warnings.simplefilter('ignore')",
    "warnings filters (kind)": "import warnings; warnings.filterwarnings('ignore', category=DeprecationWarning)",
    "warnings filters (none)": "import warnings; warnings.resetwarnings()",
    "signal handlers (SIGTERM)": "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "signal handlers (SIGINT)": "import signal; signal.signal(signal.SIGINT, lambda *each: None)",
    "the working folder": "import os; os.chdir('/')",
    "logging.disable": "import logging; logging.disable(logging.CRITICAL)",
}


def state() -> dict[str, Any]:
    """The settings as their own modules tell them."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.empty(0).device,
        "made": torch.empty(1).dtype,
        "grad": (torch.ones(1, requires_grad=True) * 2).requires_grad,
        "inference": torch.ones(1).is_inference(),
        "autocast": (torch.ones(2, 2) @ torch.ones(2, 2)).dtype,
        "anomaly": torch.is_anomaly_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "newer": [torch.backends.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision],
        "cudnn": (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "half": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "flash": torch.backends.cuda.flash_sdp_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "draws": torch.get_rng_state().tolist(),
        "numpy": np.random.get_state()[1].tolist(),
        "errors": np.geterr(),
        "random": random.getstate(),
        "variables": {key: text for key, text in os.environ.items() if key.startswith(("OMP_", "CUDA_"))},
        "path": list(sys.path)[:3],
        "filters": [each for each in warnings.filters if each[2] in (Warning, DeprecationWarning)],
        "signals": (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)),
        "folder": os.getcwd(),
        "logging": logging.root.manager.disable,
    }


@pytest.mark.parametrize("name", CHANGES)
def test_a_setting_that_an_entry_module_changes_is_put_back_and_named(
    name: str, install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("odd", CHANGES[name])
    before = state()
    assert find_plugin("odd").status in ("ok", "broken")
    assert state() == before
    (told,) = caplog.messages
    assert "plugin 'odd' changed" in told and name.partition(" (")[0] in told and "cannot be put back" not in told


@pytest.mark.parametrize("name", list(CHANGES)[::5])
def test_a_setting_that_a_module_of_a_string_changes_is_put_back(
    name: str, install: Install, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install("odd")
    (site / "hostile_odd_part.py").write_text(CHANGES[name] + "\nclass Part: pass\n")
    before = state()
    try:
        assert resolve("hostile_odd_part:Part").__name__ == "Part"
    finally:
        sys.modules.pop("hostile_odd_part", None)
    assert state() == before and len(caplog.messages) == 1 and name.partition(" (")[0] in caplog.messages[0]


def test_a_setting_is_put_back_if_the_import_fails(install: Install, caplog: pytest.LogCaptureFixture) -> None:
    install("odd", "import torch; torch.set_default_dtype(torch.float64); raise ValueError('late')")
    with pytest.raises(PluginError, match="late"):
        find_plugin("odd")
    assert torch.get_default_dtype() == torch.float32 and "torch.float32 to torch.float64" in caplog.messages[0]


def test_every_setting_is_one_that_some_change_is_made_to() -> None:
    tried = {name.partition(" (")[0] for name in CHANGES}
    once_per_process = {"torch's number of interop threads", "torch's default tensor type"}
    assert {setting.name for setting in SETTINGS} == tried | once_per_process


FRESH = """
import sys, logging
sys.path[:0] = {paths!r}
logging.basicConfig(format="%(message)s")
from advgen.registry import load_file
from pathlib import Path
assert "torch" not in sys.modules and "numpy" not in sys.modules
load_file(Path({file!r}))
import json, os, torch, numpy
print(json.dumps([str(torch.get_default_dtype()), torch.get_num_threads(), torch.initial_seed() == 3, torch.is_grad_enabled(),
    numpy.geterr()["over"], os.environ.get("OMP_NUM_THREADS"), os.environ.get("MKL_NUM_THREADS")]))
"""
FILE = """
import os
os.environ["OMP_NUM_THREADS"] = "5"
os.environ["MKL_NUM_THREADS"] = "5"
import torch, numpy
torch.set_default_dtype(torch.float64)
torch.set_num_threads(4)
torch.manual_seed(3)
torch.set_grad_enabled(False)
numpy.seterr(over="raise")
torch.set_num_interop_threads(3)
"""


def test_a_plugin_that_imports_torch_first_is_compared_with_torch_as_it_loads(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE + HEAD.format(code="", hook="", name="mine", module="__plugin__"))
    code = FRESH.format(paths=[str(root / "core"), str(root / "plugins")], file=str(tmp_path / "mine.py"))
    variables = {name: value for name, value in environment(root).items() if name != "MKL_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["torch.float32", 1, False, True, "warn", "1", None], done.stderr
    (line,) = done.stderr.splitlines()
    for expected in ("environment variables (MKL_NUM_THREADS, OMP_NUM_THREADS)", "dtype", "threads (from 1 to 4)", "grad mode"):
        assert expected in line
    assert "number of interop threads" in line and "cannot be put back" in line


def test_the_built_in_plugins_change_nothing(root: Path) -> None:
    code = (
        "import logging; logging.basicConfig()\n"
        "from advgen.registry import discover, resolve\nfrom advgen.spec import references\n"
        "from advgen.optional_imports import import_requirements\n"
        "for record in discover().records:\n"
        "    import_requirements(record)\n"
        "    [resolve(target) for target in references(record.spec).values()]\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=environment(root), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_entries_at_the_end_of_the_path_and_filters_of_a_librarys_own_kind_are_left_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    with warnings.catch_warnings():
        with kept("nobody"):
            sys.path.append("/added")
            warnings.filterwarnings("ignore", message="one message")
        assert sys.path[-1] == "/added" and not caplog.messages


def test_modules_that_a_plugin_put_first_are_still_found(install: Install, tmp_path: Path) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "hostile_beside.py").write_text("value = 3\n")
    (tmp_path / "beside" / "json.py").write_text("raise ValueError\n")
    before = list(sys.path)
    install("odd", f"import sys; sys.path.insert(0, {str(tmp_path / 'beside')!r})")
    find_plugin("odd")
    try:
        assert resolve("hostile_beside:value") == 3 and sys.path[: len(before)] == before
    finally:
        sys.path[:] = before
        sys.modules.pop("hostile_beside", None)
