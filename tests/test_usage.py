"""Wrong usage of the command line: one line with the culprit and the way out, and help that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from advgen import PluginConfig
from advgen.cli import main
from advgen.cli.options import plain_default, range_text


@pytest.fixture
def gen(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "culprit", "way"),
    [
        ("train --plugin image --steps 0", "gen train --steps: ", "gen train --help shows what it takes"),
        ("sample run -n 0", "gen sample --num-samples: ", "gen sample --help"),
        ("sample run --seed -1", "gen sample --seed: ", "gen sample --help"),
        ("evaluate run -n many", "gen evaluate --num-samples: ", "gen evaluate --help"),
        ("train --plugin image --stpes 3", "gen train has no option --stpes", "did you mean --steps?"),
        ("train --plugin image --options.widht 3", "has no option --options.widht", "did you mean --options.width?"),
        ("train --options.width 3", "gen train has no option --options.width", "gen train --plugin NAME --help"),
        ("train -p image --generator.betas 3", "no option --generator.betas", "did you mean --set generator.betas=VALUE?"),
        ("config show -p image --options.width 3", "no option --options.width", "did you mean --set options.width=VALUE?"),
        (
            "sample . --temperature 2",
            "gen sample has no option --temperature",
            "it is one of runs of plugin text; gen sample",
        ),
        ("evaluate run --top-p 0.5", "gen evaluate has no option --top-p", "gen sweep RUN --over top_p=VALUE,VALUE draws and"),
        ("train --plugin image --steps", "'--steps' requires an argument", "--help shows what it takes"),
        ("train image", "unexpected extra argument", "a plugin is named with --plugin NAME"),
        ("resume", "gen resume got no RUN", "gen runs list shows those in runs/"),
        ("export run", "gen export got no --format (onnx: a file for other programs; huggingface: ", "gen export --help"),
        ("plugins show", "gen plugins show got no NAME", "gen plugins list shows them"),
        ("runs lst", "gen runs has no command 'lst'", "did you mean 'list'? known: list, show"),
        ("smaple", "gen has no command 'smaple'", "did you mean 'sample'?"),
        ("--versoin", "gen has no option --versoin", "did you mean --version?"),
    ],
)
def test_wrong_usage_is_one_line_with_the_culprit_and_the_way_out(gen: Any, arguments: str, culprit: str, way: str) -> None:
    code, out, said = gen(*arguments.split())
    assert (code, out, len(said.splitlines())) == (2, "", 1), said
    assert said.startswith("error: ") and culprit in said and way in said


def test_an_option_of_runs_of_a_plugin_is_not_blamed_for_a_run_that_is_not_there(gen: Any) -> None:
    code, out, said = gen("sample", "nowhere/run", "--temperature", "0.5")
    assert (code, out) == (5, "") and "nowhere/run is not a run folder" in said


@pytest.mark.parametrize("arguments", ["train --steps -17", "sample run --truncation 3.75", "evaluate run -n many"])
def test_a_flag_that_is_refused_is_told_with_what_came(gen: Any, arguments: str) -> None:
    code, _, said = gen(*arguments.split())
    assert code == 2 and arguments.split()[-1] in said and "constrained" not in said and "input" not in said


@pytest.mark.parametrize("group", [[], ["runs"], ["plugins"], ["config"]])
def test_a_group_without_a_command_prints_its_help(gen: Any, group: list[str]) -> None:
    _, out, said = gen(*group)
    assert "Usage: " in out and "Commands" in out and "error" not in said


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", ["image", "audio", "text"])
def test_every_option_of_a_plugin_stands_whole_in_its_help(
    gen: Any, name: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from advgen.config.load import options_model
    from advgen.registry import find_plugin

    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = gen("train", "--plugin", name, "--help")
    words, fields = out.split(), options_model(find_plugin(name)).model_fields
    assert code == 0 and max(map(len, out.splitlines())) <= width and "…" not in out and "default: (" not in out
    assert {f"--options.{field}" for field in fields} <= set(words)
    text = " ".join(word for word in words if word != "│")
    for field in fields.values():
        assert " ".join((field.description or "").split()) in text
        assert f"default: {plain_default(field)}" in text


class Ranges(PluginConfig):
    closed: int = Field(8, ge=4, le=16)
    least: int | None = Field(None, ge=1)
    inside: float = Field(0.5, gt=0, lt=1)
    most: Annotated[float, Field(le=2.5)] = 1.0
    free: str = ""


@pytest.mark.parametrize(
    ("name", "limits", "default"),
    [
        ("closed", "4 to 16", "8"),
        ("least", "1 or more", "not set"),
        ("inside", "above 0 and below 1", "0.5"),
        ("most", "2.5 or less", "1.0"),
        ("free", "", '""'),
    ],
)
def test_ranges_and_defaults_of_options_are_words(name: str, limits: str, default: str) -> None:
    field = Ranges.model_fields[name]
    assert (range_text(field), plain_default(field)) == (limits, default)


def test_short_help_is_help(gen: Any, tmp_path: Path) -> None:
    assert gen("sample", "-h")[:2] == gen("sample", "--help")[:2]
