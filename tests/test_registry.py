"""Discovery survives whatever plugins do, and says what is wrong with each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from advgen.errors import PluginError
from advgen.registry import PluginRecord, discover, find_plugin, load_file, resolve
from advgen.spec import PluginSpec, reference_fields, references

HEAD = "from advgen import PluginConfig, PluginSpec, hookimpl\n"
GOOD = """
class Config(PluginConfig):
    size: int = 8

class Thing:
    pass

@hookimpl
def advgen_register():
    return PluginSpec(name={name!r}, summary="a fake", config="{module}:Config", modality="{module}:Thing"{extra})
"""

Install = Callable[..., None]


def good(name: str, module: str, extra: str = "") -> str:
    return HEAD + GOOD.format(name=name, module=module, extra=f", {extra}" if extra else "")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a fake distribution: ``install(distribution, name, module, code, version=...)``."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    for name in ("ADVGEN_PLUGINS", "ADVGEN_DISABLE_PLUGINS", "ADVGEN_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    modules: list[str] = []

    def write(distribution: str, name: str, module: str, code: str, version: str = "1.0") -> None:
        folder = site / f"{distribution}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (folder / "entry_points.txt").write_text(f"[advgen.plugins]\n{name} = {module}\n")
        (site / f"{module}.py").write_text(code)
        modules.append(module)

    yield write
    for module in modules:
        sys.modules.pop(module, None)


def record(name: str, distribution: str) -> PluginRecord:
    return next(r for r in discover().records if (r.name, r.distribution) == (name, distribution))


def test_five_faulty_plugins_side_by_side_leave_the_good_one_usable(install: Install) -> None:
    install("good-a", "points", "fake_good", good("points", "fake_good"))
    install("dup-b", "points", "fake_dup", good("points", "fake_dup"))
    install("typo-c", "mesh", "fake_typo", HEAD + "@hookimpl\ndef advgen_regster():\n    return None\n")
    install("newapi-d", "video", "fake_newapi", good("video", "fake_newapi", "api_version=2"), "9.0")
    install("broken-e", "sound", "fake_broken", "import not_installed_library\n", "0.3")
    install("quits-f", "quits", "fake_quits", "import sys\nsys.exit('bye')\n")
    found = {(r.name, r.distribution): r for r in discover().records}
    assert found["points", "dup-b"].status == "ok"
    assert found["points", "good-a"].status == "conflict" and "taken by dup-b 1.0" in found["points", "good-a"].reason
    assert found["mesh", "typo-c"].reason.startswith("unknown hook 'advgen_regster'; did you mean 'advgen_register'?")
    assert (found["video", "newapi-d"].status, found["video", "newapi-d"].version) == ("incompatible", "9.0")
    assert found["video", "newapi-d"].reason == "plugin API 2, this advgen provides 1; pip install --upgrade advgen"
    missing = "ModuleNotFoundError: No module named 'not_installed_library' (fake_broken.py:1)"
    assert found["sound", "broken-e"].reason == missing
    quits = found["quits", "quits-f"]
    assert (quits.status, quits.reason) == ("broken", "SystemExit: bye (fake_quits.py:2)")
    assert discover().get("points").spec is not None
    with pytest.raises(PluginError, match=r"plugin 'sound' of broken-e 0\.3 is broken: ModuleNotFoundError"):
        discover().get("sound")


def test_a_distribution_before_the_name_picks_one_of_two_in_conflict(install: Install) -> None:
    install("good-a", "points", "fake_good", good("points", "fake_good"))
    install("dup-b", "points", "fake_dup", good("points", "fake_dup"))
    assert find_plugin("points").distribution == "dup-b"
    for picked in (find_plugin("good-a:points"), discover().get("good-a:points")):
        assert (picked.name, picked.distribution, picked.status) == ("points", "good-a", "ok")
        assert picked.spec is not None and picked.spec.config == "fake_good:Config"
    assert "--plugin good-a:points" in record("points", "good-a").reason
    with pytest.raises(PluginError, match="no plugin is called 'good-b:points'; did you mean 'good-a:points'"):
        find_plugin("good-b:points")


def test_a_run_remembers_the_distribution_that_made_it(install: Install, tmp_path: Path) -> None:
    from advgen.runs import RunFolder
    from advgen.runs.plugin import find_run_plugin

    install("good-a", "points", "fake_good", good("points", "fake_good"))
    install("dup-b", "points", "fake_dup", good("points", "fake_dup"))
    folder = RunFolder(tmp_path / "run")
    folder.create()
    folder.write_json("run.json", {"plugin": "points", "plugin_distribution": "good-a", "plugin_sha256": None})
    assert find_run_plugin(folder, None).distribution == "good-a"


def test_a_distribution_before_the_name_does_not_undo_the_environments_refusal(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("good-a", "points", "fake_good", good("points", "fake_good"))
    monkeypatch.setenv("ADVGEN_DISABLE_PLUGINS", "points")
    with pytest.raises(PluginError, match="disabled"):
        find_plugin("good-a:points")


def test_a_keyboard_interrupt_while_importing_is_not_swallowed(install: Install) -> None:
    install("slow", "slow", "fake_slow", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        discover()


def test_a_built_in_wins_its_name(install: Install) -> None:
    install("aaa-thief", "image", "fake_thief", good("image", "fake_thief"))
    thief = record("image", "aaa-thief")
    assert thief.status == "conflict" and "(advgen_image)" in thief.reason


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def advgen_register():\n    return 1\n", "has no function advgen_register() that is marked with @hookimpl"),
        (HEAD + "@hookimpl\ndef advgen_register():\n    return {}\n", "returned dict, expected a PluginSpec (fake_bad.py:3)"),
        (HEAD + "@hookimpl\ndef advgen_register():\n    return None\n", "returned NoneType, expected a PluginSpec"),
        (HEAD + "@hookimpl\ndef advgen_register(registry):\n    return 1\n", "registry"),
        (HEAD + "@hookimpl\ndef advgen_register():\n    raise ValueError('no')\n", "ValueError: no (fake_bad.py:4)"),
        (good("other", "fake_bad"), "spec.name is 'other', but the entry point is called 'bad'"),
        (good("bad", "fake_bad", "losses={'l': 'nocolon'}"), "spec.losses.l is 'nocolon', expected 'module:attribute'"),
        (good("bad", "fake_bad", "losses=3"), "spec.losses is 3, expected a mapping"),
        (good("bad", "fake_bad", "summary=3").replace('summary="a fake", ', ""), "spec.summary is 3, expected a string"),
        ("x = (\n", "SyntaxError: '(' was never closed (fake_bad.py:1)"),
        (good("bad", "fake_bad", "sampling='Thing'"), "spec.sampling is 'Thing', expected 'module:attribute'"),
        (good("bad", "fake_bad", "addresses=None"), "spec.addresses is None, expected a tuple of words such as 'hub'"),
        (good("bad", "fake_bad", "requires={1: 'one'}"), "spec.requires is 1, expected strings as keys"),
        (good("bad", "fake_bad", "smapling='x:y'"), "unexpected keyword argument 'smapling' (fake_bad.py:11)"),
    ],
)
def test_a_faulty_entry_module_is_broken_with_its_reason(install: Install, code: str, reason: str) -> None:
    install("bad", "bad", "fake_bad", code)
    found = record("bad", "bad")
    assert found.status == "broken" and reason in found.reason


def test_a_missing_requirement_names_the_pip_command(install: Install) -> None:
    extra = "requires={'json': 'json', 'absent_module': 'absent>=2', 'absent_module.inner': 'absent>=2'}"
    install("needy", "needy", "fake_needy", good("needy", "fake_needy", extra))
    assert (record("needy", "needy").status, record("needy", "needy").reason) == ("needs-extra", 'pip install "absent>=2"')


def test_the_environment_switches_plugins_off(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("points", "points", "fake_points", "raise RuntimeError('must not be imported')\n")
    monkeypatch.setenv("ADVGEN_DISABLE_PLUGINS", "mesh, points")
    assert record("points", "points").status == "disabled"
    monkeypatch.delenv("ADVGEN_DISABLE_PLUGINS")
    monkeypatch.setenv("ADVGEN_PLUGINS", "mesh")
    assert record("points", "points").reason == "not named in ADVGEN_PLUGINS"
    monkeypatch.setenv("ADVGEN_PLUGINS", "")
    assert {r.status for r in discover().records} == {"disabled"}
    with pytest.raises(PluginError, match="is disabled: not named in ADVGEN_PLUGINS"):
        find_plugin("points")


def test_strict_mode_raises_for_a_plugin_that_cannot_be_used(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("broken", "broken", "fake_strict", "raise RuntimeError('no')\n")
    monkeypatch.setenv("ADVGEN_STRICT_PLUGINS", "1")
    monkeypatch.setenv("ADVGEN_PLUGINS", "broken")
    with pytest.raises(PluginError, match=r"plugin 'broken' of broken 1\.0 is broken: RuntimeError: no"):
        discover()


def test_no_load_imports_nothing(install: Install) -> None:
    install("points", "points", "fake_unloaded", "raise RuntimeError('must not be imported')\n")
    found = next(r for r in discover(load=False).records if r.name == "points")
    assert (found.status, found.spec) == ("found", None)
    assert "fake_unloaded" not in sys.modules


def test_finding_one_plugin_imports_no_other(install: Install) -> None:
    install("points", "points", "fake_alone", good("points", "fake_alone"))
    install("bomb", "bomb", "fake_bomb", "import os\nos.environ['BOMB'] = 'went off'\n")
    assert find_plugin("points").status == "ok"
    assert "BOMB" not in os.environ


def test_what_a_plugin_prints_while_importing_stays_off_standard_output(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install("loud", "loud", "fake_loud", "print('LOUD')\n" + good("loud", "fake_loud"))
    assert record("loud", "loud").status == "ok"
    assert "LOUD" not in capsys.readouterr().out


def test_an_unknown_name_is_answered_with_the_nearest(install: Install) -> None:
    install("points", "points", "fake_near", good("points", "fake_near"))
    with pytest.raises(PluginError, match="no plugin is called 'pionts'; did you mean 'points'") as caught:
        find_plugin("pionts")
    assert caught.value.exit_code == 3


def test_a_file_is_a_plugin_and_its_strings_resolve(tmp_path: Path) -> None:
    file = tmp_path / "my_points.py"
    extra = "losses={'x': '__plugin__:Thing'}, sampling='__plugin__:Config'"
    file.write_text("from __future__ import annotations\n" + good("points", "my_points", extra))
    found = find_plugin(str(file))
    assert (found.name, found.status, found.distribution, found.path) == ("points", "ok", "file", file)
    assert found.sha256 is not None and len(found.sha256) == 64
    assert found.spec is not None
    config = resolve(found.spec.config)
    assert config().size == 8 and resolve(found.spec.losses["x"]).__name__ == "Thing"
    assert resolve(found.spec.sampling) is config
    assert resolve(load_file(file).spec.config) is config  # type: ignore[union-attr]


def test_two_files_of_the_same_name_do_not_meet(tmp_path: Path) -> None:
    sizes = []
    for number in (1, 2):
        file = tmp_path / str(number) / "mine.py"
        file.parent.mkdir()
        file.write_text(good("points", "mine").replace("size: int = 8", f"size: int = {number}"))
        sizes.append(resolve(load_file(file).spec.config)().size)  # type: ignore[union-attr]
    assert sizes == [1, 2]


def test_a_changed_file_is_loaded_anew(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(good("points", "mine"))
    first = load_file(file)
    file.write_text(good("points", "mine").replace("= 8", "= 9"))
    second = load_file(file)
    assert first.sha256 != second.sha256
    assert resolve(second.spec.config)().size == 9  # type: ignore[union-attr]


def test_a_trace_shows_the_lines_that_ran_and_not_those_that_the_file_has_now(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for code in ("1 / 0  # first", "1 / 0  # other", "1 / 0  # first"):
        file.write_text(good("points", "mine") + f"\n\ndef fail():\n    return {code}\n")
        os.utime(file, (0, 0))  # so that neither time nor size tells the versions apart
        spec = load_file(file).spec
        assert spec is not None
        file.write_text("# gone\n")
        with pytest.raises(ZeroDivisionError) as raised:
            resolve(spec.config.replace("Config", "fail"))()
        assert f"return {code}" in "".join(traceback.format_exception(raised.value))


def test_every_string_of_a_spec_that_names_code_is_known_as_such() -> None:
    about = dict(re.findall(r"^        ([\w, ]+): (.*(?:\n            .*)*)", str(PluginSpec.__doc__), re.MULTILINE))
    told = {name for names, text in about.items() if '"module:attr"' in text for name in names.split(", ")}
    assert told == set(reference_fields())


def test_every_string_of_a_single_file_points_at_its_module(tmp_path: Path) -> None:
    tables = {each.name for each in fields(PluginSpec) if each.default_factory is not MISSING} & set(reference_fields())
    extra = ", ".join(["sampling='__plugin__:Config'", *(f"{name}={{'x': 'mine:Thing'}}" for name in sorted(tables))])
    file = tmp_path / "mine.py"
    file.write_text(good("points", "mine", extra))
    record = load_file(file)
    assert record.spec is not None
    found = references(record.spec)
    assert len(found) == len(reference_fields())
    assert {target.partition(":")[0] for target in found.values()} == {record.module}


@pytest.mark.parametrize(
    ("code", "reason"), [("x = (", "SyntaxError"), ("", "has no function advgen_register"), ("1/0", "ZeroDiv")]
)
def test_a_faulty_file_is_refused_with_its_path(tmp_path: Path, code: str, reason: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(code)
    with pytest.raises(PluginError, match=reason) as caught:
        load_file(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(PluginError, match=r"plugin file \./absent\.py|plugin file absent\.py"):
        find_plugin("./absent.py")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nocolon", "'nocolon' is not of the form 'module:attribute'"),
        ("absent_module:x", "'absent_module:x' cannot be imported: ModuleNotFoundError"),
        ("json:dump_", "'json:dump_' names no attribute 'dump_'; did you mean 'dump'"),
    ],
)
def test_a_reference_that_does_not_resolve_is_named(reference: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        resolve(reference)


def test_discovery_imports_no_torch() -> None:
    code = "import sys; from advgen.registry import discover; discover(); sys.exit('torch' in sys.modules)"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "ADVGEN_PLUGINS": "image,audio,text",
    }
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
