"""One run configuration out of defaults, presets, files and the command line, with the source of every value.

Later layers win: model defaults < preset "default" < named preset < files in order < --set in order < flags.
A layer's ``unset`` lists keys that it leaves without a value, because TOML has no null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from advgen.config import toml
from advgen.config.explain import explain, leaves
from advgen.config.model import RunConfig
from advgen.config.toml import KeyPath, Place, dotted
from advgen.errors import ConfigError, PluginError, nearest
from advgen.registry import PluginRecord, installed_name, resolve
from advgen.spec import PluginConfig

FLAGS = {
    "train.steps": "--steps",
    "train.minutes": "--minutes",
    "train.seed": "--seed",
    "data.path": "--data",
    "data.max_bad": "--max-bad",
}
TABLES = ("penalties", "schedules", "auxiliary", "balance")  # free names: entries can be removed by false
PLAN = ("steps", "minutes")
REMOVED = " (removed)"
UNSET = "unset"

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Resolved:
    """A checked configuration.

    Args:
        config: with every option of the plugin written out in ``config.options``.
        options: the same options as the plugin's own model.
        sources: dotted path of every leaf to ``default``, ``preset X``, ``file.toml:12``, ``--set`` or a flag.
    """

    config: RunConfig
    options: PluginConfig
    sources: dict[str, str]


def load_config(
    record: PluginRecord,
    *,
    preset: str | None = None,
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    cli: Mapping[str, Any] | None = None,
) -> Resolved:
    """Merge all layers and check the result.

    Raises:
        ConfigError: naming the key, its value, its source (file and line) and what was expected.
    """
    merged = _Merged()
    for name in _preset_names(record, preset):
        assert record.spec is not None  # checked by _preset_names
        merged.lay(record.spec.presets[name], lambda path, name=name: f"preset {name}")  # type: ignore[misc]
    for file in files:
        merged.lay(*toml.read_file(Path(file)))
    for override in overrides:
        merged.lay(toml.parse_assignment(override), lambda path: "--set")
    flags = {path: value for path, value in (cli or {}).items() if value is not None}
    merged.lay(_nested(flags), lambda path: FLAGS.get(dotted(path), f"--{dotted(path)}"))
    merged.name_plugin(record)
    return _check(record, merged)


def options_of(record: PluginRecord, config: RunConfig) -> PluginConfig:
    """The plugin's own options, validated.

    Raises:
        ConfigError: where one is unknown or wrong.
    """
    return _validated(options_model(record), config.options, lambda path: "options", ("options",))


def options_model(record: PluginRecord) -> type[PluginConfig]:
    """The pydantic model of a plugin's own options.

    Raises:
        PluginError: where the plugin's ``config`` is no PluginConfig.
    """
    if record.spec is None:
        raise PluginError(f"plugin {record.name!r} is {record.status}: {record.reason}")
    model = resolve(record.spec.config)
    if not (isinstance(model, type) and issubclass(model, PluginConfig)):
        raise PluginError(f"plugin {record.name!r}: {record.spec.config!r} is {model!r}, expected a sub-class of PluginConfig")
    return model


def named_plugin(files: Sequence[Path]) -> str | None:
    """Return the installed plugin that the last of the configuration files with a ``plugin`` key names.

    Raises:
        PluginError: if it names a file. A configuration may come from anybody, so it must not run code.
    """
    names = [(file, toml.read_file(Path(file))[0].get("plugin")) for file in files]
    file, name = next(((file, name) for file, name in reversed(names) if name is not None), (None, None))
    return None if name is None else installed_name(name, file)


def to_toml(config: RunConfig, sources: Mapping[str, str]) -> str:
    """The whole configuration as TOML, each value with its source; ``from_toml`` reads it back."""
    tree = config.model_dump(mode="json")
    for path, source in sources.items():
        table, _, name = path.partition(".")
        if source.endswith(REMOVED) and table in TABLES:  # so that the file, used as --config, removes it again
            tree[table].setdefault(_unquoted(name), False)
    unset = [path for path in map(dotted, _empty(tree)) if sources.get(path, "default") != "default"]
    sources = {**sources, UNSET: "see each key"}
    tree = ({UNSET: unset} if unset else {}) | tree
    return toml.write(tree, lambda path: sources.get(dotted(path), "default").removesuffix(REMOVED))


def from_toml(text: str, name: str = "config.toml") -> RunConfig:
    """The configuration that ``to_toml`` wrote; no preset is applied.

    Raises:
        ConfigError: with the line of what is wrong.
    """
    merged = _Merged()
    merged.lay(*toml.read_text(text, name))
    return _validated(RunConfig, merged.tree, merged.source)


class _Merged:
    """The tree so far, and who set each of its leaves."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.places: dict[KeyPath, Place] = {}
        self.removed: dict[KeyPath, str] = {}

    def lay(self, layer: Mapping[str, Any], place: Place) -> None:
        """Put a layer over what is there."""
        self._one_plan(layer, place)
        self._put(self.tree, {key: value for key, value in layer.items() if key != UNSET}, place, ())
        where = place((UNSET,))
        for name in _unset_names(layer.get(UNSET, []), where):
            layer = toml.nested(name, None, f"{UNSET} ({where}): {name!r} is not a key; expected section.key")
            self._put(self.tree, layer, lambda path: where, ())

    def source(self, path: KeyPath) -> str:
        """Who set the value at ``path``, the value that holds it, or for a table its first value."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]](path)
        inside = [place for known, place in self.places.items() if known[: len(path)] == path]
        return inside[0](path) if inside else "default"

    def name_plugin(self, record: PluginRecord) -> None:
        """Set the plugin's name, which no layer may contradict."""
        given, name = self.tree.get("plugin", record.name), record.name
        if given not in (name, record.qualified_name):
            raise ConfigError(f"plugin = {given!r} ({self.source(('plugin',))}) contradicts --plugin {name}; give one of them")
        self.tree["plugin"] = name
        self.places.setdefault(("plugin",), lambda path: "--plugin")

    def _one_plan(self, layer: Mapping[str, Any], place: Place) -> None:
        """A layer that plans in steps ends an earlier plan in minutes, and the reverse."""
        train = layer.get("train")
        given = [key for key in PLAN if isinstance(train, Mapping) and train.get(key) is not None]
        if len(given) == 2:
            where = " and ".join(place(("train", key)) for key in PLAN)
            raise ConfigError(f"both train.steps and train.minutes are given ({where}); the plan is one of the two")
        own = self.tree.get("train")
        if given and isinstance(own, dict):
            other = PLAN[1 - PLAN.index(given[0])]
            own.pop(other, None)
            self._forget(("train", other))

    def _put(self, tree: dict[str, Any], layer: Mapping[str, Any], place: Place, path: KeyPath) -> None:
        for key, value in layer.items():
            here = (*path, key)
            if here[0] in TABLES and len(here) <= 2 and _means_none(value):
                self._remove(tree, here, place)
            elif isinstance(value, Mapping):
                if not isinstance(tree.get(key), dict):
                    self._forget(here)
                    tree[key] = {}
                self._put(tree[key], value, place, here)
            else:
                self._forget(here)
                tree[key] = value
                self.places[here] = place
                self.removed.pop(here[:2], None)

    def _remove(self, tree: dict[str, Any], path: KeyPath, place: Place) -> None:
        """Take a named entry out, or all entries of its table."""
        entries = [path] if len(path) == 2 else [(*path, name) for name in tree.get(str(path[0])) or {}]
        tree.pop(str(path[-1]), None)
        for entry in entries:
            self._forget(entry)
            self.removed[entry] = place(path) + REMOVED

    def _forget(self, path: KeyPath) -> None:
        for known in [known for known in self.places if known[: len(path)] == path]:
            del self.places[known]


def _unset_names(names: Any, where: str) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f'{UNSET} = {names!r} ({where}): expected a list of keys, such as {UNSET} = ["options.length"]')
    return names


def _means_none(value: Any) -> bool:
    """``false``, ``"none"``, and an empty table: no entry."""
    return value is None or value is False or value == "none" or value == {}


def _preset_names(record: PluginRecord, preset: str | None) -> list[str]:
    """``default`` where there is one, then the named preset."""
    if record.spec is None:
        raise PluginError(f"plugin {record.name!r} is {record.status}: {record.reason}")
    known = record.spec.presets
    if preset is not None and preset not in known:
        raise ConfigError(f"plugin {record.name!r} has no preset {preset!r}; {nearest(preset, known)}")
    return list(dict.fromkeys(name for name in ("default", preset) if name is not None and name in known))


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, key = path.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[key] = value
    return tree


def _check(record: PluginRecord, merged: _Merged) -> Resolved:
    """Validate options and configuration, and name the source of every leaf."""
    raw = merged.tree.get("options", {})
    options = _validated(options_model(record), raw, merged.source, ("options",))
    tree = merged.tree | {"options": _given(options.model_dump(mode="json"), merged.source, ("options",))}
    config = _validated(RunConfig, tree, merged.source)
    sources = {dotted(path): merged.source(path) for path in leaves(config.model_dump(mode="json"))}
    return Resolved(config, options, sources | {dotted(path): source for path, source in merged.removed.items()})


def _validated(model: type[ModelT], tree: Any, source: Place, prefix: KeyPath = ()) -> ModelT:
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(explain(error, model, tree, source, prefix))) from error


def _given(tree: Mapping[str, Any], source: Place, path: KeyPath) -> dict[str, Any]:
    """A tree without the keys that have no value by default, which the written file cannot hold."""
    return {
        key: _given(value, source, (*path, key)) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if value is not None or source((*path, key)) != "default"
    }


def _empty(tree: Mapping[str, Any]) -> list[KeyPath]:
    """Paths of keys without a value."""
    return [path for path in leaves(tree) if _at(tree, path) is None]


def _at(tree: Mapping[str, Any], path: KeyPath) -> Any:
    found: Any = tree
    for part in path:
        found = found[part]
    return found


def _unquoted(name: str) -> str:
    return next(iter(toml.parse_assignment(f"{name}=0")))
