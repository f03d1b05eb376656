"""What plugins add to ``gen sample``: their models, and options made of what was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from advgen.config.explain import explain_flags
from advgen.errors import ConfigError, PluginError
from advgen.offers import LIMIT_SECONDS, offers
from advgen.probing import Answer, ask_apart
from advgen.registry import PluginRecord, find_plugin, resolve
from advgen.spec import PluginConfig


def sampling_model(record: PluginRecord) -> type[PluginConfig] | None:
    """The pydantic model of what a plugin adds to ``gen sample``; None where it adds nothing.

    Raises:
        PluginError: where the plugin's ``sampling`` is no PluginConfig.
    """
    if record.spec is None or not record.spec.sampling:
        return None
    model = resolve(record.spec.sampling)
    if not (isinstance(model, type) and issubclass(model, PluginConfig)):
        raise PluginError(
            f"plugin {record.name!r}: {record.spec.sampling!r} is {model!r}, expected a sub-class of PluginConfig"
        )
    return model


def sampling_options(record: PluginRecord, given: Mapping[str, Any], flags: Mapping[str, str] | None = None) -> PluginConfig:
    """What a plugin adds to ``gen sample``, validated.

    Args:
        flags: what options are called on the command line, where it is not their name.

    Raises:
        ConfigError: where it adds nothing, or an option is unknown or wrong.
    """
    model = sampling_model(record)
    if model is None:
        raise ConfigError(f"plugin {record.name!r} has no sampling options; leave {', '.join(given)} out")
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise ConfigError("; ".join(explain_flags(error, model, given, flags or {}))) from error


def plugins_with(option: str) -> list[str]:
    """The plugins whose runs have an option of ``gen sample``, such as ``temperature``."""
    having = [each for each in offers() if each.sampling]
    foreign = [each.qualified_name for each in having if not each.builtin]
    told = dict(zip(foreign, ask_apart([f"sampling:{name}" for name in foreign], LIMIT_SECONDS), strict=True))
    names = {each: told.get(each.qualified_name) or describe_sampling(each.qualified_name) for each in having}
    return [each.name for each, answer in names.items() if option in answer.get("sampling", ())]


def describe_sampling(qualified_name: str) -> Answer:
    """Return the names of the options that an installed plugin adds to ``gen sample``; this imports its model.

    Raises:
        PluginError: if the plugin cannot be used, or its ``sampling`` is no PluginConfig.
    """
    model = sampling_model(find_plugin(qualified_name))
    return {"sampling": [] if model is None else list(model.model_fields)}
