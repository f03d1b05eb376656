"""What plugins add to ``gen sample``: their models, and options made of what was given."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from advgen.config.explain import explain_flags
from advgen.errors import ConfigError, GenError, PluginError
from advgen.registry import PluginRecord, discover, resolve
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
    found = []
    for record in discover().records:
        with contextlib.suppress(GenError):  # a broken plugin is none of them
            model = sampling_model(record)
            if model is not None and option in model.model_fields:
                found.append(record.name)
    return found
