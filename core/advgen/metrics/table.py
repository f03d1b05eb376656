"""Metrics on features that plugins bring: found, named ``plugin.metric``, and never fatal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from advgen.border import require_callable
from advgen.errors import PluginError
from advgen.inspection import describe
from advgen.offers import offers
from advgen.registry import PluginRecord, find_plugin, resolve


class Metric(Protocol):
    """Two sets of features, (N, F) and (M, F) float64 on the CPU, to one number."""

    def __call__(self, *, generated: Tensor, real: Tensor) -> float: ...


def plugin_metrics(own: PluginRecord | None = None) -> tuple[dict[str, Metric], dict[str, str]]:
    """The metrics of every usable plugin and of the run's own, which may be a file; and those left out, with the reason."""
    records, found, left_out = list[PluginRecord](), dict[str, Metric](), dict[str, str]()
    for offer in offers():
        if offer.metrics and (own is None or offer.qualified_name != own.qualified_name):
            try:
                records.append(find_plugin(offer.qualified_name))
            except PluginError as error:
                left_out |= dict.fromkeys((f"{offer.name}.{metric}" for metric in offer.metrics), str(error))
    for name, reference in _references([*records, *([own] if own else [])]).items():
        try:
            metric = resolve(reference)
            require_callable(metric, Metric.__call__, f"metric {name} ({reference})")
            found[name] = metric
        except PluginError as error:
            left_out[name] = str(error)
    return found, left_out


def _references(records: list[PluginRecord]) -> dict[str, str]:
    return {
        f"{record.name}.{metric}": reference
        for record in records
        if record.spec is not None
        for metric, reference in record.spec.metrics.items()
    }


def apply_metrics(metrics: Mapping[str, Metric], generated: Tensor, real: Tensor) -> tuple[dict[str, float], dict[str, str]]:
    """Values by name, and the reason of each metric that failed: a third party's mistake costs its own row alone."""
    values: dict[str, float] = {}
    failed: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            values[name] = float(metric(generated=generated, real=real))
        except Exception as error:  # a plugin may raise anything
            failed[name] = describe(error)
    return values, failed
