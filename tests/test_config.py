"""Layers, their precedence, the source of every value, and errors with file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from advgen.config.load import Resolved, from_toml, load_config, named_plugin, options_of, to_toml
from advgen.config.toml import key_lines, parse_assignment
from advgen.errors import ConfigError, PluginError
from advgen.registry import PluginRecord
from advgen.spec import PluginConfig, PluginSpec


class FakeConfig(PluginConfig):
    """Options of the fake plugin."""

    size: int = Field(8, ge=1)
    widths: tuple[int, ...] = (4, 8)
    kind: Literal["a", "b"] = "a"
    note: str | None = None
    limit: int | None = 3
    shares: Literal["none"] | dict[Literal["a", "b"], Annotated[float, Field(gt=0)]] = "none"


PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "penalties": {"r1": {"weight": 0.1}, "r2": {"weight": 0.1}},
        "generator": {"learning_rate": 1e-3},
        "train": {"minutes": 5.0},
    },
    "classic": {"loss": "nonsaturating", "penalties": False, "average": {"enabled": False}},
    "free": {"options": {"limit": None}},
}
SPEC = PluginSpec(name="fake", summary="", config="fake_config:FakeConfig", modality="fake:M", presets=PRESETS)
RECORD = PluginRecord("fake", "ok", "", "fake", "1.0", SPEC, "fake")


@pytest.fixture(autouse=True)
def fake_module(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("fake_config")
    module.FakeConfig = FakeConfig  # type: ignore[attr-defined]
    module.NotOne = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_config", module)


def load(tmp_path: Path, text: str = "", **given: Any) -> Resolved:
    file = tmp_path / "run.toml"
    file.write_text(text)
    return load_config(RECORD, files=[file] if text else [], **given)


def refusal(tmp_path: Path, text: str = "", **given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **given)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_each_layer_wins_over_the_one_before(tmp_path: Path) -> None:
    text = '\nloss = "hinge"\n[generator]\nlearning_rate = 3.0\nsteps = 3\n[train]\nkeep = 3\n'
    found = load(
        tmp_path, text, preset="classic", overrides=["generator.steps=4", "train.keep=4", "train.keep=5"], cli={"train.keep": 6}
    )
    config, sources = found.config, found.sources
    assert (config.discriminator.learning_rate, sources["discriminator.learning_rate"]) == (2e-4, "default")
    assert (config.train.minutes, sources["train.minutes"]) == (5.0, "preset default")
    assert (config.average.enabled, sources["average.enabled"]) == (False, "preset classic")
    assert (config.loss, sources["loss"]) == ("hinge", f"{tmp_path}/run.toml:2")
    assert (config.generator.learning_rate, sources["generator.learning_rate"]) == (3.0, f"{tmp_path}/run.toml:4")
    assert (config.generator.steps, sources["generator.steps"]) == (4, "--set")
    assert (config.train.keep, sources["train.keep"]) == (6, "--train.keep")
    assert sources["plugin"] == "--plugin"


def test_the_later_of_two_files_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('loss = "hinge"\ntrain.keep = 3\n')
    second.write_text('loss = "wasserstein"\n')
    found = load_config(RECORD, files=[first, second])
    assert (found.config.loss, found.config.train.keep) == ("wasserstein", 3)
    assert found.sources["train.keep"] == f"{first}:2"


def test_steps_end_the_presets_minutes_and_the_reverse(tmp_path: Path) -> None:
    steps = load(tmp_path, cli={"train.steps": 10, "train.seed": None})
    assert (steps.config.train.steps, steps.config.train.minutes) == (10, None)
    assert (steps.sources["train.steps"], steps.sources["train.minutes"]) == ("--steps", "default")
    minutes = load(tmp_path, "[train]\nsteps = 9\n", cli={"train.minutes": 2.0})
    assert (minutes.config.train.steps, minutes.config.train.minutes) == (None, 2.0)


def test_both_steps_and_minutes_in_one_place_are_refused(tmp_path: Path) -> None:
    assert "(--steps and --minutes); the plan is one of the two" in refusal(
        tmp_path, cli={"train.steps": 1, "train.minutes": 1}
    )


@pytest.mark.parametrize("removal", ["penalties=false", "penalties=none", "penalties={}"])
def test_a_whole_table_can_be_removed(tmp_path: Path, removal: str) -> None:
    assert load(tmp_path, overrides=[removal]).config.penalties == {}


@pytest.mark.parametrize("removal", ["penalties.r1=false", "penalties.r1=none"])
def test_one_entry_can_be_removed_and_the_source_is_kept(tmp_path: Path, removal: str) -> None:
    found = load(tmp_path, overrides=[removal])
    assert set(found.config.penalties) == {"r2"}
    assert found.sources["penalties.r1"] == "--set (removed)"


def test_an_entry_that_was_removed_can_come_back(tmp_path: Path) -> None:
    found = load(tmp_path, preset="classic", overrides=["penalties.r1.weight=3"])
    assert found.config.penalties["r1"].weight == 3 and set(found.config.penalties) == {"r1"}
    assert "penalties.r1" not in found.sources


def test_values_on_the_command_line_are_toml_or_text(tmp_path: Path) -> None:
    given = ["options.widths=[1, 2]", "loss=hinge", "average.enabled=false", "generator.betas=[0.5, 0.9]", 'options.note="7"']
    found = load(tmp_path, overrides=given)
    assert found.options == FakeConfig(widths=(1, 2), note="7")
    assert (found.config.loss, found.config.average.enabled, found.config.generator.betas) == ("hinge", False, (0.5, 0.9))
    assert found.config.options == {
        "size": 8,
        "widths": [1, 2],
        "kind": "a",
        "note": "7",
        "limit": 3,
        "shares": "none",
    }


def test_keys_with_dots_are_quoted(tmp_path: Path) -> None:
    found = load(tmp_path, overrides=['schedules."generator.learning_rate".end=0.1'])
    assert found.config.schedules["generator.learning_rate"].end == 0.1
    assert found.sources['schedules."generator.learning_rate".end'] == "--set"


@pytest.mark.parametrize("text", ["loss", "=3", "a..b=1", "a b=1", ""])
def test_an_override_that_assigns_nothing_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not an assignment; expected section\.key=value"):
        parse_assignment(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# plan\n[train]\nstps = 1\n", "unknown key 'train.stps' (FILE:3); did you mean 'steps'?"),
        (
            "steps = 3\n",
            "unknown key 'steps' (FILE:1); did you mean 'generator.steps' or 'discriminator.steps' or 'train.steps'?",
        ),
        ("[options]\nsize = 1\nsiz = 3\n", "unknown key 'options.siz' (FILE:3); did you mean 'size'?"),
        ("[penalties.r1]\nweigth = 3\n", "unknown key 'penalties.r1.weigth' (FILE:2); did you mean 'weight'?"),
        ('[[phases]]\nshare = 1\n[[phases]]\nknd = "x"\n', "unknown key 'phases.1.knd' (FILE:4); did you mean 'kind'?"),
        ("[generator.clip]\nlimt = 1\n", "unknown key 'generator.clip.limt' (FILE:2); did you mean 'limit'?"),
        ("[train]\nbatch_size = 'many'\n", "train.batch_size = 'many' (FILE:2): expected an integer, 1 or more"),
        ("[train]\nbatch_size = 0\n", "train.batch_size = 0 (FILE:2): expected an integer, 1 or more"),
        ("[generator]\nbetas = [\n  0.5,\n  'x',\n]\n", "generator.betas = [0.5, 'x'] (FILE:2): expected a list of 2 numbers"),
        ("[generator]\nbetas = [0.5]\n", "generator.betas = [0.5] (FILE:2): expected a list of 2 numbers"),
        ("[options]\nwidths = 3\n", "options.widths = 3 (FILE:2): expected a list of integers"),
        ("[options]\nlimit = 'x'\n", "options.limit = 'x' (FILE:2): expected an integer"),
        ("[options.shares]\na = 0\n", "expected 'none', or a table of 'a' or 'b', each a number, above 0"),
        ("[penalties.r1]\nweight = -1\n", "penalties.r1.weight = -1 (FILE:2): expected a number, 0 or more, or 'auto'"),
        ("[[phases]]\nshare = 2\n", "phases.0.share = 2 (FILE:2): expected a number, above 0 and 1 or less"),
        ("[auxiliary]\nlikelihood = 'x'\n", "auxiliary.likelihood = 'x' (FILE:2): expected a number"),
        ("[estimator]\nentropy_floor = 1\n", "estimator (FILE:2): entropy_floor=1 has no weight"),
        ("[balance]\nloss = 1\n[estimator]\nname = 'ppo'\n", "the configuration: balance needs a gradient"),
        ("train = 3\n", "train = 3 (FILE:1): expected a table of keys"),
        ("[generator]\noptimizer = 'adm'\n", "generator.optimizer = 'adm' (FILE:2): expected 'adam', 'adamw'"),
        ("[generator.clip]\nkind = 'quantile'\nlimit = 2.0\n", "limit 2.0 is not a quantile"),
        ("[options]\nkind = 'c'\n", "options.kind = 'c' (FILE:2): expected 'a' or 'b'"),
        ("plugin = 'image'\n", "plugin = 'image' (FILE:1) contradicts --plugin fake"),
        ("x ==\n", "FILE is not valid TOML"),
    ],
)
def test_a_refusal_names_key_value_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    assert message.replace("FILE", f"{tmp_path}/run.toml") in refusal(tmp_path, text)


def test_a_wrong_flag_and_override_name_themselves(tmp_path: Path) -> None:
    assert "train.steps = -1 (--steps): expected an integer, 1 or more" in refusal(tmp_path, cli={"train.steps": -1})
    assert "unknown key 'losss' (--set); did you mean 'loss'?" in refusal(tmp_path, overrides=["losss=hinge"])
    both = refusal(tmp_path, overrides=["data.test_share=0", "data.validation_share=0"])
    assert "0.5; data.test_share = 0 (--set): expected a number" in both
    assert "options.size = 0 (--options.size)" in refusal(tmp_path, cli={"options.size": 0})


def test_a_union_is_told_in_one_line_without_its_parts(tmp_path: Path) -> None:
    assert refusal(tmp_path, overrides=["penalties.r1.weight=-1"]) == (
        "penalties.r1.weight = -1 (--set): expected a number, 0 or more, or 'auto'"
    )


def test_values_that_do_not_fit_together_are_told_with_every_place_that_set_one(tmp_path: Path) -> None:
    said = refusal(tmp_path, "[schedules.x]\nsince = 0.5\n", overrides=["schedules.x.until=0.25"])
    assert said == f"schedules.x ({tmp_path}/run.toml:2, --set): since=0.5 comes after until=0.25; expected at most until"


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a = 1\nb = 2\n").count("unknown key") == 2


def test_an_unknown_preset_is_answered_with_the_nearest(tmp_path: Path) -> None:
    assert "plugin 'fake' has no preset 'clasic'; did you mean 'classic'?" in refusal(tmp_path, preset="clasic")


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml cannot be read: No such file"):
        load_config(RECORD, files=[tmp_path / "absent.toml"])
    (tmp_path / "latin.toml").write_bytes(b'loss = "\xe9"')
    with pytest.raises(ConfigError, match=r"latin\.toml is not UTF-8 text \(byte 8\)"):
        load_config(RECORD, files=[tmp_path / "latin.toml"])


def test_a_plugin_whose_config_is_no_config_is_refused() -> None:
    from dataclasses import replace

    faulty = replace(RECORD, spec=replace(SPEC, config="fake_config:NotOne"))
    with pytest.raises(PluginError, match="expected a sub-class of PluginConfig"):
        load_config(faulty)


def test_the_resolved_file_reads_back_as_the_same_configuration(tmp_path: Path) -> None:
    text = '[[phases]]\nkind = "likelihood"\nshare = 0.25\n[[phases]]\nshare = 0.75\n[data]\npath = "a \\"b\\" é\\\\c"\n'
    overrides = ['schedules."generator.learning_rate".kind=linear', "penalties.r1=false", "auxiliary.likelihood=1e-5"]
    found = load(tmp_path, text, overrides=overrides)
    written = to_toml(found.config, found.sources)
    assert from_toml(written) == found.config
    assert options_of(RECORD, from_toml(written)) == found.options
    assert f'share = 0.25}}, {{kind = "adversarial", share = 0.75}}]  # {tmp_path}/run.toml:1' in written
    assert "r1 = false  # --set" in written and "# steps is not set  # default" in written
    assert "minutes = 5.0  # preset default" in written


def test_an_option_without_value_over_a_default_survives_the_written_file(tmp_path: Path) -> None:
    layers = {"in a preset": {"preset": "free"}, "in a file": {"text": 'unset = ["options.limit"]\n'}}
    for where, given in layers.items():
        found = load(tmp_path, **given)
        assert found.options.model_dump()["limit"] is None, where
        written = to_toml(found.config, found.sources)
        assert 'unset = ["options.limit"]' in written and "# limit is not set" in written
        assert from_toml(written) == found.config
        assert options_of(RECORD, from_toml(written)).model_dump()["limit"] is None, where
        assert load(tmp_path, written).options == found.options, where


def test_a_key_that_needs_a_value_cannot_be_unset(tmp_path: Path) -> None:
    said = refusal(tmp_path, '# plan\nunset = ["train.batch_size"]\n')
    assert said == f"train.batch_size = None ({tmp_path}/run.toml:2): expected an integer, 1 or more"
    assert "expected a list of keys" in refusal(tmp_path, "unset = 3\n")
    assert "'a..b' is not a key" in refusal(tmp_path, 'unset = ["a..b"]\n')
    assert "unknown key 'options.limt'" in refusal(tmp_path, 'unset = ["options.limt"]\n')


def test_the_resolved_file_used_as_config_gives_the_same_run(tmp_path: Path) -> None:
    found = load(tmp_path, preset="classic", cli={"train.steps": 7})
    again = load(tmp_path, to_toml(found.config, found.sources))
    assert again.config == found.config


def test_a_damaged_resolved_file_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'lss' \(config\.toml:2\); did you mean 'loss'"):
        from_toml('plugin = "fake"\nlss = "x"\n')


def test_the_plugin_can_be_named_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('plugin = "audio"\n')
    (tmp_path / "b.toml").write_text('loss = "hinge"\n')
    assert named_plugin([tmp_path / "a.toml", tmp_path / "b.toml"]) == "audio"
    assert named_plugin([tmp_path / "b.toml"]) is None


def test_the_line_scanner_knows_every_form_of_key() -> None:
    text = '# c\na = 1\n"b.c" = """\nx = 2\n[no]\n"""\nd.e = {f = 1}\n\n'
    text += "[g.h]\ni = [\n  1, # [x]\n]\n[[j]]\nk = 1\n[j.m]\nn = 1\n[[j]]\nk = 2\n"
    lines = key_lines(text)
    assert lines["a",] == 2 and lines["b.c",] == 3 and lines["d", "e", "f"] == 7
    assert lines["g", "h"] == 9 and lines["g", "h", "i"] == 10
    assert lines["j",] == 13 and lines["j", 0, "k"] == 14 and lines["j", 0, "m", "n"] == 16 and lines["j", 1, "k"] == 18
    assert ("x",) not in lines and ("no",) not in lines
