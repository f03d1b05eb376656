"""Texts of others never act on a terminal, whatever they hold and whichever way they leave the program."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import tomllib
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from conftest import environment
from PIL import Image

from advgen.cli import main
from advgen.cli.output import escape_unknown_characters, say, say_json, table, to_stderr
from advgen.config import toml
from advgen.errors import ConfigError
from advgen.loggers import TensorBoardLogger
from advgen.metrics.report import format_report
from advgen.progress import Progress
from advgen.runs import RunFolder
from advgen.terminal import visible

ACTING = [chr(number) for number in (*range(32), *range(0x7F, 0xA0), 0x61C, *range(0x2028, 0x202F), *range(0x2066, 0x206A))]
ACTING += ["\ufff9", "\ud800", "\udcff"]
HARMLESS = ["é", "中", "👩‍👩‍👧", "עברית", "\u200d", "\u200c", "\\x1b", "[red]", "a b", "\u00a0"]
ATTACKS = {
    "colors": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;owned\x07",
    "clears the screen": "\x1b[2J\x1b[H",
    "link": "\x1b]8;;http://x\x1b\\here\x1b]8;;\x1b\\",
    "copies to the clipboard": "\x1b]52;c;AAAA\x07",
    "8-bit introducer": "\x9b31mred",
    "8-bit command": "\x9d0;owned\x9c",
    "writes over the line": "harmless\rerror",
    "goes back": "bad\b\b\bgood",
    "forges a line": "x\nerror: all is lost",
    "forges a line elsewhere": "x\x85y\u2028z\u2029w\x0bv\x0cu",
    "turns letters around": "gpj.\u202egnp.exe",
    "isolates": "\u2066a\u2069\u2067b\u2069",
    "half a character": "\udc9b31m",
    "delete": "a\x7fb",
    "rings": "\x07\x07",
    "shifts the character set": "\x0e\x0f\x1b(0",
    "null": "a\x00b",
}
MARKUP = ["[red]alert[/red]", "[link=http://x]here[/link]", ":boom:", "[/]", "[bold", "\\[red]"]


def acts(text: str) -> bool:
    """Tell if a text that may have lines would act on a terminal; categories are those of Unicode."""
    kinds = {unicodedata.category(character) for character in text} & {"Cc", "Cs", "Zl", "Zp"}
    controls = {character for character in text if unicodedata.category(character) == "Cc"} - {"\n"}
    return bool(controls or kinds - {"Cc"} or re.search("[\u202a-\u202e\u2066-\u2069]", text))


@pytest.mark.parametrize("character", ACTING, ids=lambda each: f"U+{ord(each):04X}")
def test_an_acting_character_becomes_an_escape(character: str) -> None:
    shown = visible(f"a{character}b")
    assert shown.isascii() and shown.isprintable() and shown.startswith("a\\") and shown.endswith("b")
    assert shown.encode().decode("unicode_escape") == f"a{character}b"


@pytest.mark.parametrize("text", HARMLESS)
def test_other_characters_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_line_stays_one_line_that_only_shows(attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = ATTACKS[attack]
    say(f"class {text}")
    with to_stderr():
        logging.getLogger("advgen").warning("file %s", text)
    Progress(True).say(text)
    told = capsys.readouterr()
    assert not acts(told.out + told.err) and told.out.count("\n") == 1 and told.err.count("\n") == 2


@pytest.mark.parametrize("attack", ATTACKS)
def test_columns_are_aligned_by_what_is_shown(attack: str) -> None:
    head, first, second = table([[ATTACKS[attack], "one"], ["b", "two"]], ["name", "about"])
    assert not acts(first) and "\n" not in first
    assert head.index("about") == first.index("one") == second.index("two")


@pytest.mark.parametrize("attack", ATTACKS)
def test_json_gives_the_text_back_and_does_not_act(attack: str, capsys: pytest.CaptureFixture[str]) -> None:
    say_json({ATTACKS[attack]: [ATTACKS[attack]]})
    told = capsys.readouterr().out
    assert not acts(told) and json.loads(told) == {ATTACKS[attack]: [ATTACKS[attack]]}


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "half a character"])
def test_a_configuration_gives_the_text_back_and_its_sources_add_no_line(attack: str) -> None:
    text = ATTACKS[attack]
    written = toml.write({"data": {"path": text, text: 1}}, lambda path: f"{text}.toml:3")
    assert not acts(written) and tomllib.loads(written) == {"data": {"path": text, text: 1}}


@pytest.mark.parametrize("kind", [ConfigError, ValueError])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_error_is_one_line(
    attack: str, kind: type[Exception], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise kind(f"file {ATTACKS[attack]} is bad")

    monkeypatch.setattr("advgen.environment.describe_environment", fail)
    with pytest.raises(SystemExit):
        main(["env"])
    told = capsys.readouterr()
    assert told.err.startswith("error: ") and told.err.count("\n") == 1 and not acts(told.err) and not told.out


@pytest.mark.parametrize("argument", ["\x1b[31m", "a\x9bb", "x\u202ey"])
@pytest.mark.parametrize("command", ["train --plugin {}", "sample {}", "{}", "data inspect {}", "train {}", "runs list {}"])
def test_wrong_usage_shows_what_was_given_without_obeying_it(
    argument: str, command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([word.format(argument) for word in command.split()])
    told = capsys.readouterr()
    assert not acts(told.out + told.err) and told.err.count("\n") == 1


@pytest.mark.parametrize("text", [*ATTACKS.values(), *MARKUP])
def test_the_bar_on_a_terminal_neither_acts_nor_reads_markup(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    bar = Progress(True)
    assert bar.bar is not None
    screen.truncate(0)
    bar.say(f"BEGIN{text}END")
    bar.close()
    assert f"BEGIN{visible(text)}END" in re.sub(r"\x1b\[[\d;?]*\w", "", screen.getvalue())


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_line_of_the_log_stays_one_line(attack: str, tmp_path: Path) -> None:
    RunFolder(tmp_path).note(ATTACKS[attack])
    written = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert written.count("\n") == 1 and not acts(written)


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_of_metrics_and_classes_only_show_in_a_report(attack: str) -> None:
    name = ATTACKS[attack]
    counted = {name: 0.5, "class_histogram": {name: 3}}
    protocol = {"step": 1, "num_generated": 1, "num_real": 1, "split": name, "seed": 0, "features": name, "k": 5, "kernel": ""}
    protocol |= {"num_reference": 1, "real_column": name, "real_content": "ab", "real_features": "cd", "data_changed": False}
    protocol |= {"metrics": {name: {"better": name, "protocol": name}}}
    report = {"protocol": protocol, "generated": counted, "real": counted, "modality": {}, "real_modality": {}}
    told = format_report(report | {"left_out": {name: name}})
    plain = json.loads(json.dumps(report).replace(json.dumps(name)[1:-1], "name"))
    assert not acts(told) and told.count("\n") == format_report(plain | {"left_out": {"name": "name"}}).count("\n")


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_tag_of_tensorboard_only_shows(attack: str) -> None:
    class Writer:
        def add_scalar(self, name: str, value: float, step: int) -> None:
            tags.append(name)

    tags: list[str] = []
    logger = object.__new__(TensorBoardLogger)
    logger.writer = Writer()
    logger.log(1, {ATTACKS[attack]: 0.0})
    assert tags == [visible(ATTACKS[attack])]


PLUGIN = """
from pydantic import Field
from advgen import PluginConfig, PluginSpec, hookimpl

class Config(PluginConfig):
    size: int = Field(8, description={text!r})
    kind: str = Field({text!r}, description="which")

class Thing:
    pass

@hookimpl
def advgen_register():
    return PluginSpec(
        name={text!r}, summary={text!r}, config="__plugin__:Config", modality="__plugin__:Thing", presets={{{text!r}: {{}}}}
    )
"""


SAID = [ATTACKS[name] for name in ("colors", "8-bit command", "forges a line", "turns letters around", "half a character")]


@pytest.mark.runs_code
@pytest.mark.parametrize("text", [*SAID, *MARKUP])
def test_what_a_plugin_says_of_itself_only_shows(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN.format(text=f"BEGIN{text}END"), encoding="utf-8")
    for command in (["plugins", "show"], ["train", "--help", "--plugin"]):
        with pytest.raises(SystemExit):
            main([*command, str(tmp_path / "mine.py")])
        told = capsys.readouterr()
        assert not acts(told.out + told.err)
        one = visible(f"BEGIN{text}END")
        assert one in told.out.replace("│", "") or (command[0] == "train" and "\n" in text)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not take such names")
def test_names_of_files_and_folders_only_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [text for name, text in ATTACKS.items() if name != "half a character"]
    names = {text.replace("/", "|").replace("\0", "") for text in texts}
    for number, name in enumerate(sorted(names)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{name}.png")
        (folder / f"bad{name}.png").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        main(["data", "inspect", str(tmp_path / "data"), "--plugin", "image"])
    told = capsys.readouterr()
    assert not ended.value.code and f"bad: {len(names)}" in told.out and not acts(told.out + told.err)
    assert not any(line.startswith("error") for line in told.out.splitlines())


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_run_says_of_itself_only_shows(attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ATTACKS[attack]
    run = tmp_path / "runs" / "theirs"
    run.mkdir(parents=True)
    about = {"plugin": text, "created": text, "ended": text, "networks": {text: text}, "diverged": {"step": 3, "why": text}}
    (run / "run.json").write_text(json.dumps(about))
    for command in (["runs", "list", str(run.parent)], ["runs", "show", str(run)]):
        with pytest.raises(SystemExit):
            main(command)
        told = capsys.readouterr()
        assert told.out and not acts(told.out + told.err)
        assert not any(line.startswith("error: all") for line in (told.out + told.err).splitlines())


CHILD = """
import logging, warnings
from advgen.cli.output import escape_unknown_characters
escape_unknown_characters()
warnings.warn({text!r})
logging.getLogger("foreign").warning({text!r})
raise ValueError({text!r})
"""


def test_traces_warnings_and_foreign_records_only_show(root: Path) -> None:
    code = CHILD.format(text="".join(ATTACKS.values()))
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env=environment(root) | {"PYTHONWARNINGS": "always", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        capture_output=True,
        check=False,
    )
    told = done.stderr.decode("latin-1")
    assert done.returncode == 1 and told.count("owned") == 6 and not acts(told)


def test_messages_are_guarded_once_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    escape_unknown_characters()
    assert not acts(warnings.formatwarning("\x1b[31m", UserWarning, "x\x9b.py", 1, ""))
