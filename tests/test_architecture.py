"""Who may import whom, read from the code; what strings name must exist."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import advgen
from advgen import hooks
from advgen.border import RULE
from advgen.config.load import load_config
from advgen.contracts import Discriminator, Generator, Modality
from advgen.registry import BUILTIN, PluginRecord, find_plugin, resolve
from advgen.spec import references

ROOT = Path(__file__).resolve().parent.parent
CORE = sorted((ROOT / "core").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))
# Run as a process of its own by importers of foreign checkpoints alone.
IMPORTS = "unpickling.py"
PICKLES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every import in a file, also inside functions; name is empty for ``import module``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.parts[len(ROOT.parts) + 1] + "." if node.level else ""
            yield from ((package + (node.module or ""), alias.name) for alias in node.names)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_imports_no_plugin(path: Path) -> None:
    assert not [module for module, _ in imports(path) if re.match(r"advgen_\w+", module)]


@pytest.mark.parametrize("path", [path for path in CORE if "cli" not in path.parts], ids=name_of)
def test_only_the_command_line_imports_typer_and_nothing_imports_the_command_line(path: Path) -> None:
    found = [module for module, _ in imports(path)]
    assert "typer" not in {module.split(".")[0] for module in found}
    if path.name != "__main__.py":
        assert not [module for module in found if module.startswith("advgen.cli")]


UPDATES = [path for path in CORE if "updates" in path.parts]


@pytest.mark.parametrize("path", UPDATES, ids=name_of)
def test_updates_know_nothing_of_the_step_that_calls_them(path: Path) -> None:
    assert not {"advgen.step", "advgen.training", "advgen.setup"} & {module for module, _ in imports(path)}


LOWER = ["contracts", "costs", "losses", "penalties", "estimators", "step", "training", "cli"]


@pytest.mark.parametrize("name", LOWER[:-1])
def test_imports_run_one_way(name: str) -> None:
    path = ROOT / "core" / "advgen" / f"{name}.py"
    above = {f"advgen.{other}" for other in LOWER[LOWER.index(name) + 1 :]} - {"advgen.penalties", "advgen.estimators"}
    assert not above & {module for module, _ in imports(path)}


@pytest.mark.parametrize("path", PLUGINS, ids=name_of)
def test_a_plugin_imports_only_public_names_and_itself(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[0]
    for module, name in imports(path):
        package = module.split(".")[0]
        if package == "advgen":
            assert module == "advgen" and name in advgen.__all__, f"from {module} import {name}"
        elif package.startswith("advgen_"):
            assert package == own, f"{own} imports {module}"


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=name_of)
def test_nothing_unpickles(path: Path) -> None:
    assert not PICKLES & {module.split(".")[0] for module, _ in imports(path)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            forbidden = {("torch", "load"), ("torch", "save")} - ({("torch", "load")} if path.name == IMPORTS else set())
            assert (node.value.id, node.attr) not in forbidden, f"line {node.lineno}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node), f"line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant) and node.value.value is False


@pytest.mark.parametrize("path", [*CORE, *PLUGINS], ids=name_of)
def test_numpy_loads_say_that_they_do_not_unpickle(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
            assert "allow_pickle" in {keyword.arg for keyword in node.keywords}, f"line {node.lineno}"


@pytest.mark.parametrize("name", BUILTIN)
def test_every_string_of_a_built_in_resolves(name: str) -> None:
    spec = record(name).spec
    assert spec is not None
    for reference in references(spec).values():
        resolve(reference)


def test_every_method_of_a_contract_that_returns_something_says_how_it_is_checked() -> None:
    unchecked = {"Generator": {"settle", "follow"}, "Discriminator": set(), "Modality": {"enter_phase", "use_sampling"}}
    for contract in (Generator, Discriminator, Modality):
        methods = {name: getattr(each, "__func__", each) for name, each in vars(contract).items() if not name.startswith("_")}
        found = {name for name, each in methods.items() if inspect.isfunction(each) and not hasattr(each, RULE)}
        assert found == unchecked[contract.__name__], contract.__name__


@pytest.mark.parametrize("name", BUILTIN)
def test_every_preset_of_a_built_in_is_a_valid_configuration(name: str) -> None:
    spec = record(name).spec
    assert spec is not None and {"default", "classic"} <= set(spec.presets)
    assert load_config(record(name)).config.train.minutes == 5.0
    for preset in spec.presets:
        load_config(record(name), preset=preset)


def record(name: str) -> PluginRecord:
    return find_plugin(name)


def test_the_classic_preset_is_the_textbook_algorithm_where_gradients_flow_to_the_sample() -> None:
    for name in ("image", "audio"):
        config = load_config(record(name), preset="classic").config
        penalties = {key for key, penalty in config.penalties.items() if penalty.weight > 0}
        assert (config.loss, penalties, config.average.enabled) == ("nonsaturating", set(), False), name
        for player in (config.generator, config.discriminator):
            assert (player.optimizer, player.learning_rate, player.betas) == ("adam", 2e-4, (0.5, 0.999)), name


def test_public_names_resolve() -> None:
    for name in advgen.__all__:
        getattr(advgen, name)


def test_every_hook_is_documented_and_tested() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs").rglob("*.md"))
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    for name in [name for name in vars(hooks) if name.startswith("advgen_")]:
        assert name in pages, f"{name} stands in no page of docs/"
        assert name in tests
