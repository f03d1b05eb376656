"""The list of checks, and how a plugin author runs them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from advgen.blame import blamed
from advgen.errors import ContractError, GenError, PluginError, nearest
from advgen.losses import LOSSES
from advgen.spec import PluginSpec
from advgen.testing import corpora, declaration, networks, runs
from advgen.testing.subject import Subject

_CHECKS: tuple[Callable[[Subject], None], ...] = (
    declaration.entry_is_torch_free,
    declaration.strings_resolve,
    declaration.options_have_defaults,
    declaration.presets_are_valid,
    corpora.corpus_is_deterministic,
    corpora.splits_are_disjoint,
    corpora.batches_have_the_promised_form,
    corpora.facts_are_enough_to_sample,
    corpora.prepared_samples_are_finite,
    corpora.unreadable_data_are_refused,
    runs.calls_keep_the_contract,
    networks.noise_comes_from_its_generator,
    networks.generator_returns_samples,
    networks.generated_rows_are_independent,
    networks.latents_make_the_samples,
    networks.verdicts_keep_the_contract,
    networks.judged_rows_are_independent,
    networks.gradient_reaches_the_generator,
    networks.penalties_can_be_differentiated,
    networks.likelihood_is_a_cost_per_position,
    runs.own_losses_and_penalties_train,
    runs.resumes_exactly,
    runs.samples_do_not_depend_on_the_count,
    runs.files_are_written,
    runs.loggers_take_a_row,
    runs.judge_gives_features,
    runs.metrics_are_numbers,
)


@dataclass(frozen=True)
class Check:
    """One rule of the contract, applied to one plugin: call it; ``str`` names it."""

    name: str
    about: str
    subject: Subject
    rule: Callable[[Subject], None]

    def __call__(self) -> None:
        """Pass silently, or say which plugin broke the rule, what came and what was expected.

        Raises:
            ContractError: where the plugin breaks the rule, or raises something while it is checked.
        """
        try:
            self.rule(self.subject)
        except GenError as error:
            text = str(error)
            named = text if "plugin '" in text or self.subject.name in text else f"plugin {self.subject.name!r}: {text}"
            raise ContractError(f"{named} [{self.name}]") from error
        except Exception as error:
            came = " ".join(f"{type(error).__name__}: {error}".split())
            where = f" in {blame}" if (blame := blamed(error)) else ""
            told = f"plugin {self.subject.name!r}: raised {came}{where}; expected: {self.about} [{self.name}]"
            raise ContractError(told) from error

    def __str__(self) -> str:
        return self.name


def conformance_checks(
    plugin: str | ModuleType | PluginSpec,
    *,
    overrides: Sequence[str] = (),
    data: Path | str | None = None,
    skip: Collection[str] = (),
) -> list[Check]:
    """Every check of the contract, to be parametrised over: ``pytest.mark.parametrize("check", ..., ids=str)``.

    Nothing of the plugin is imported before the first check is called.

    Args:
        plugin: the name of an installed plugin, the path of a plugin file, an entry module, or a spec.
        overrides: as for ``--set``; make the networks and the corpus small.
        data: file or folder for ``--data``; None takes the embedded corpus.
        skip: names of checks to leave out.

    Raises:
        PluginError: where ``skip`` names no check.
    """
    subject = Subject(plugin, tuple(overrides), None if data is None else str(data))
    checks = [Check(rule.__name__, _first_line(rule), subject, rule) for rule in _CHECKS]
    about = _first_line(runs.trains_with)
    checks += [
        Check(f"trains_with[{loss}]", about, subject, functools.partial(runs.trains_with, loss=loss)) for loss in sorted(LOSSES)
    ]
    unknown = set(skip) - {check.name for check in checks}
    if unknown:
        name = sorted(unknown)[0]
        raise PluginError(f"skip: no check is called {name!r}; {nearest(name, [check.name for check in checks])}")
    return [check for check in checks if check.name not in skip]


def check_plugin(
    plugin: str | ModuleType | PluginSpec,
    *,
    overrides: Sequence[str] = (),
    data: Path | str | None = None,
    skip: Collection[str] = (),
) -> list[str]:
    """Run every check and return the names of those that passed; arguments as for ``conformance_checks``.

    Raises:
        ContractError: with a line for each check that failed.
    """
    passed, failed = list[str](), list[str]()
    for check in conformance_checks(plugin, overrides=overrides, data=data, skip=skip):
        try:
            check()
            passed.append(check.name)
        except ContractError as error:
            failed.append(str(error))
    if failed:
        raise ContractError("\n".join(failed))
    return passed


def _first_line(rule: Callable[..., None]) -> str:
    return (rule.__doc__ or "").splitlines()[0].rstrip(".")
