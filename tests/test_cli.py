"""The command line: streams, exit codes, plugin options as flags, and a light start."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from advgen.cli import main
from advgen.errors import CheckpointError
from advgen.metrics.comparison import Comparison

PLUGIN = """
from typing import Literal
from pydantic import Field
from advgen import PluginConfig, PluginSpec, hookimpl
print("NOISE WHILE LOADING")

class Config(PluginConfig):
    size: int = Field(8, ge=1, description="How big.")
    kind: Literal["ring", "grid"] = "ring"
    widths: tuple[int, ...] = (4, 8)
    label: str = "7"
    data: str | None = None

@hookimpl
def advgen_register():
    return PluginSpec(name="mine", summary="Points.", config="mine:Config", modality="mine:Modality", 
        losses={"odd": "mine:odd"}, presets={"default": {"train": {"minutes": 5.0}}, "classic": {"loss": "nonsaturating"}})
"""


@dataclass
class FakeResult:
    """What the training functions return."""

    folder: Path = Path("runs/x")
    step: int = 3
    reason: str = "plan done"
    exit_code: int = 0
    samples: list[Path] = field(default_factory=lambda: [Path("runs/x/samples/a.png")])
    files: tuple[Path, ...] = (Path("runs/x/out/0.png"),)
    overview: tuple[Path, ...] = (Path("runs/x/out/grid.png"),)
    removed: tuple[Path, ...] = ()
    num_samples: int = 1

    def as_dict(self) -> dict[str, Any]:
        return {"folder": self.folder, "loss": float("nan"), "steps": (1, 2)}


@dataclass
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def gen(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> Answer:
        code = 0
        try:
            main(list(arguments))
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    return str(file)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replaces training by a note of how it was called."""
    import advgen.api

    called: dict[str, Any] = {"result": FakeResult()}

    def train(plugin: str, **given: Any) -> FakeResult:
        print("NOISE WHILE TRAINING")
        called.update(given, plugin=plugin)
        result: FakeResult = called["result"]
        return result

    monkeypatch.setattr(advgen.api, "train", train)
    monkeypatch.setattr(advgen.api, "resume", lambda run, **given: train(**given | {"plugin": run}))
    return called


def test_train_hands_every_flag_on(
    gen: Any, trained: dict[str, Any], plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = (
        "--data d --preset classic --config a.toml --config b.toml --set loss=hinge --set train.keep=3 --steps 9 --stop-after 4"
    )
    flags += " --from runs/old --from-step 7 --seed 5 --device cpu --out runs/new --max-bad 2"
    Path("a.toml").touch()
    Path("b.toml").touch()
    assert gen("train", "--plugin", plugin, *flags.split()).code == 0
    expected = {"plugin": plugin, "data": Path("d"), "preset": "classic", "config_files": [Path("a.toml"), Path("b.toml")]}
    expected |= {"overrides": ["loss=hinge", "train.keep=3"], "steps": 9, "minutes": None, "stop_after": 4, "options": {}}
    expected |= {
        "from_run": Path("runs/old"),
        "from_step": 7,
        "seed": 5,
        "device": "cpu",
        "out": Path("runs/new"),
        "max_bad": 2,
    }
    assert {name: trained[name] for name in expected} == expected


def test_plugin_options_are_flags_with_values_of_their_type(gen: Any, trained: dict[str, Any], plugin: str) -> None:
    flags = [
        "--options.size",
        "3",
        "--options.kind=grid",
        "--options.widths",
        "[1, 2]",
        "--options.label",
        "12",
        "--options.data",
        "5",
    ]
    assert gen("train", f"--plugin={plugin}", *flags).code == 0
    assert trained["options"] == {"size": 3, "kind": "grid", "widths": [1, 2], "label": "12", "data": "5"}
    assert trained["data"] is None


def test_plugin_options_have_their_own_help_panel(gen: Any, plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    text = gen("train", "-p", plugin, "--help").out
    assert "Plugin 'mine' options" in text and "--options.size" in text and "How big." in text
    assert "ring|grid  default: ring" in text and "[4, 8]" in text and "integer, 1 or more  default: 8" in text
    assert "--options.size" not in gen("train", "--help").out


def test_a_misspelt_plugin_option_is_answered_with_the_nearest(gen: Any, trained: dict[str, Any], plugin: str) -> None:
    answer = gen("train", "--plugin", plugin, "--options.szie", "3")
    assert answer.code == 2 and "--options.size" in answer.err


def test_the_plugin_may_be_named_in_the_config_file(gen: Any, trained: dict[str, Any], plugin: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f'plugin = "{plugin}"\n')
    assert gen("train", "--config", str(tmp_path / "run.toml"), "--options.size", "2").code == 0
    assert (trained["plugin"], trained["options"]) == (plugin, {"size": 2})


def test_json_stands_alone_on_standard_output(gen: Any, trained: dict[str, Any], plugin: str) -> None:
    answer = gen("train", "--plugin", plugin, "--json")
    assert answer.json == {"folder": "runs/x", "loss": None, "steps": [1, 2]}
    assert "NOISE WHILE TRAINING" in answer.err and "NOISE WHILE LOADING" not in answer.out


@pytest.mark.parametrize("code", [0, 6, 75, 130])
def test_the_exit_code_of_the_run_is_passed_on(gen: Any, trained: dict[str, Any], plugin: str, code: int) -> None:
    trained["result"] = FakeResult(exit_code=code)
    assert gen("train", "--plugin", plugin).code == code
    answer = gen("resume", "runs/x", "--stop-after", "5")
    assert (answer.code, trained["stop_after"]) == (code, 5)
    assert "runs/x: step 3, plan done" in answer.out and "runs/x/samples/a.png" in answer.out


def test_only_the_first_rank_prints(gen: Any, trained: dict[str, Any], plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert gen("train", "--plugin", plugin, "--json").out == ""


def test_a_refusal_is_one_line_and_its_exit_code(gen: Any, trained: dict[str, Any]) -> None:
    answer = gen("train", "--plugin", "imgae")
    assert (answer.code, answer.out, len(answer.err.splitlines())) == (3, "", 1)
    assert answer.err.startswith("error: no plugin is called 'imgae'; did you mean 'image'?")
    assert gen("train").code == 2
    assert gen("plugins", "show", "imgae").code == 3


def test_debug_shows_the_trace(gen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVGEN_DEBUG", "1")
    with pytest.raises(Exception, match="no plugin is called"):
        gen("plugins", "show", "imgae")


def test_an_unexpected_error_is_one_line_and_exit_code_1(gen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import advgen.runs

    def fail(folder: Path) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr(advgen.runs, "list_runs", fail)
    answer = gen("runs", "list")
    where = r"advgen \(advgen/cli/runs\.py:\d+, in \w+\)"
    told = rf"error: unexpected ValueError in {where}: two lines; ADVGEN_DEBUG=1 shows the trace\n"
    assert answer.code == 1 and re.fullmatch(told, answer.err)


def test_sample_and_evaluate_hand_their_flags_on(gen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import advgen.evaluation
    import advgen.metrics.report
    import advgen.sampling

    calls: list[Any] = []
    monkeypatch.setattr(advgen.sampling, "sample_run", lambda run, **more: calls.append((run, more)) or FakeResult())
    monkeypatch.setattr(
        advgen.evaluation, "evaluate_run", lambda run, **given: calls.append((run, given)) or {"fd": float("inf")}
    )
    monkeypatch.setattr(advgen.metrics.report, "format_report", lambda report: f"report {report}")
    answer = gen("sample", "runs/x", "-n", "4", "--seed", "2", "--class", "seven", "--out", "o")
    assert "overview: runs/x/out/grid.png" in answer.out
    place = {"device": "auto", "plugin": None, "step": None}
    asked = {"num_samples": 4, "seed": 2, "label": "seven", "out": Path("o"), "file_format": None}
    asked |= {"seeds": None, "truncation": None, "grid": None, "latent": None}
    assert calls[0] == (Path("runs/x"), asked | place)
    assert gen("sample", "runs/x", "--json").json["folder"] == "runs/x"
    assert gen("evaluate", "runs/x", "--json").json == {"fd": None}
    assert gen("evaluate", "runs/x").out == "report {'fd': inf}\n"
    assert calls[-1] == (
        Path("runs/x"),
        {
            "num_samples": None,
            "seed": 0,
            "features": None,
            "weights": None,
            "truncation": None,
            "comparison": Comparison(),
            **place,
        },
    )
    told = gen("evaluate", "runs/x", "--reference", "train", "--neighbours", 3, "--kid-block", 1000)
    assert told.code == 0 and calls[-1][1]["comparison"] == Comparison(None, "train", 3, 1000)
    assert "--reference trian: did you mean 'train'?" in gen("evaluate", "runs/x", "--reference", "trian").err


def test_what_sampling_took_away_is_told_in_words_that_agree(gen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import advgen.sampling

    for number, words in ((1, "removed: 1 file of an"), (2, "removed: 2 files of an")):
        result = FakeResult(removed=(Path("x"),) * number)
        monkeypatch.setattr(advgen.sampling, "sample_run", lambda run, result=result, **given: result)
        assert words in gen("sample", "runs/x").out


def test_runs_are_listed_and_described(gen: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import advgen.runs

    monkeypatch.setattr(advgen.runs, "list_runs", lambda folder: [{"run": "a", "step": 3}, {"run": "b", "step": None}])
    assert gen("runs", "list").out.splitlines() == ["run  step", "a    3", "b"]
    assert gen("runs", "list", "--json").json[0] == {"run": "a", "step": 3}
    monkeypatch.setattr(advgen.runs, "describe_run", lambda run: {"run": run, "loss": {"d": 0.123456}})
    assert gen("runs", "show", "r").out.splitlines() == ["run: r", "loss:", "  d: 0.1235"]

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "r").mkdir(parents=True)
    assert gen("runs", "show", "r").out.startswith("run: r\n")
    (tmp_path / "runs" / "r" / "run.json").touch()
    assert gen("runs", "show", "r").out.startswith("run: runs/r\n")
    (tmp_path / "r").mkdir()
    assert gen("runs", "show", "r").out.startswith("run: r\n")

    def refuse(run: Path) -> None:
        raise CheckpointError(f"{run} is no run")

    monkeypatch.setattr(advgen.runs, "describe_run", refuse)
    assert (gen("runs", "show", "r").code, gen("runs", "show", "r").err) == (5, "error: r is no run\n")


def test_plugins_show_tells_presets_options_and_losses(gen: Any, plugin: str) -> None:
    text = gen("plugins", "show", plugin).out
    assert "mine: Points." in text and "presets: default, classic" in text and "losses: odd" in text
    facts = gen("plugins", "show", plugin, "--json").json
    assert facts["options"]["size"] == {
        "type": "integer",
        "range": "1 or more",
        "default": "8",
        "description": "How big.",
    }
    assert facts["presets"]["classic"] == {"loss": "nonsaturating"} and len(facts["sha256"]) == 64


def test_plugins_list_tells_status_and_reason(gen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVGEN_PLUGINS", "image,text")
    monkeypatch.setenv("ADVGEN_DISABLE_PLUGINS", "text")
    statuses = {p["name"]: p["status"] for p in gen("plugins", "list", "--json").json}
    assert statuses["image"] == "ok" and "text" not in statuses
    everything = {p["name"]: p["reason"] for p in gen("plugins", "list", "--all", "--no-load", "--json").json}
    assert everything["text"] == "named in ADVGEN_DISABLE_PLUGINS"
    assert gen("plugins", "list").out.startswith("name   status  from")


def test_config_commands_show_schema_and_validate(gen: Any, plugin: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[options]\nsize = 3\n")
    shown = gen("config", "show", "--plugin", plugin, "--config", str(file), "--set", "loss=hinge").out
    assert f"size = 3  # {file}:2" in shown and 'loss = "hinge"  # --set' in shown
    answer = gen("config", "show", "--plugin", plugin, "--json").json
    assert answer["sources"]["train.minutes"] == "preset default" and answer["config"]["options"]["size"] == 8
    schema = gen("config", "schema", "--plugin", plugin).json
    assert schema["properties"]["options"]["properties"]["size"]["minimum"] == 1
    assert gen("config", "validate", "--plugin", plugin, "--config", str(file)).code == 3  # its loss is missing
    Path(plugin).write_text(PLUGIN.replace('losses={"odd": "mine:odd"}, ', ""))
    assert gen("config", "validate", "--plugin", plugin, "--config", str(file)).code == 0
    file.write_text("[options]\nsize = 0\n")
    refused = gen("config", "validate", "--plugin", plugin, "--config", str(file))
    assert refused.code == 2 and f"options.size = 0 ({file}:2): expected an integer, 1 or more" in refused.err


def test_version(gen: Any) -> None:
    import advgen

    assert gen("--version").out == f"gen {advgen.__version__}\n"


def test_a_mistyped_command_is_answered_with_the_nearest(gen: Any) -> None:
    answer = gen("tran")
    assert answer.code == 2 and "did you mean 'train'?" in answer.err


HEAVY = (
    "torch",
    "numpy",
    "pluggy",
    "advgen.spec",
    "advgen.registry",
    "advgen.config.model",
    "advgen_image",
    "advgen_audio",
    "advgen_text",
)


def child(*code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run([sys.executable, *code], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("argument", ["--help", "--version", "train --help"])
def test_help_and_version_import_nothing_heavy(argument: str) -> None:
    code = f"""
import sys
from advgen.cli import main
try:
    main({argument.split()!r})
finally:
    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    answer = child("-c", code)
    assert (answer.returncode, answer.stderr.strip()) == (0, "[]"), answer.stderr


@pytest.mark.parametrize(
    "arguments", ["plugins list", "plugins show image", "config show --plugin text", "train --plugin audio --help"]
)
def test_looking_at_plugins_imports_no_torch(arguments: str) -> None:
    code = f"""
import sys
from advgen.cli import main
try:
    main({arguments.split()!r})
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""
    answer = child("-c", code)
    assert (answer.returncode, answer.stderr.strip()) == (0, "False"), answer.stderr


def test_help_takes_less_than_0_4_seconds_of_processor_time() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert child("-m", "advgen", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.4  # processor time: other programs do not change it
