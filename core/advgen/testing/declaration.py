"""Checks of what a plugin declares: its spec, options and presets."""

from __future__ import annotations

import os
import subprocess
import sys

from advgen.border import require_callable
from advgen.config.load import load_config, options_model
from advgen.config.sampling import sampling_model
from advgen.importing import importer_of
from advgen.loggers import loggers_of
from advgen.metrics.table import Metric
from advgen.registry import resolve
from advgen.setup import modality_class
from advgen.spec import references
from advgen.tables import losses_of, penalties_of
from advgen.testing.subject import Subject


def entry_is_torch_free(subject: Subject) -> None:
    """The entry module and the options import no torch, so that ``gen --help`` stays quick."""
    if subject.record.path is not None:
        return  # a single file may import what it likes
    modules = [name for name in (subject.record.module, subject.spec.config) if name]
    for module in dict.fromkeys(name.partition(":")[0] for name in modules):
        code = f"import sys, importlib; importlib.import_module({module!r}); sys.exit(3 if 'torch' in sys.modules else 0)"
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, encoding="utf-8", errors="replace"
        )
        last = (done.stderr.strip().splitlines() or [""])[-1]
        subject.expect(
            done.returncode in (0, 3), f"module {module} cannot be imported alone: {last}", "an import without error"
        )
        subject.expect(done.returncode != 3, f"module {module} imports torch", "heavy imports behind the spec's strings alone")


def strings_resolve(subject: Subject) -> None:
    """Every "module:attribute" string names something of the right kind, with the parameters that the core gives."""
    for name, reference in references(subject.spec).items():
        subject.expect(":" in reference, f"spec.{name} is {reference!r}", "'module:attribute'")
        resolve(reference)
    options_model(subject.record)
    sampling_model(subject.record)
    modality_class(subject.record)
    losses_of(subject.record)
    penalties_of(subject.record)
    loggers_of(subject.record)
    for kind in subject.spec.importers:
        importer_of(subject.record, kind)
    for name, reference in subject.spec.metrics.items():
        require_callable(resolve(reference), Metric.__call__, f"metric {name} ({reference})")


def options_have_defaults(subject: Subject) -> None:
    """``gen train --plugin NAME`` and ``gen sample`` work with nothing else: every option has a default."""
    for what, model in (("options", options_model(subject.record)), ("sampling options", sampling_model(subject.record))):
        fields = {} if model is None else model.model_fields
        required = [name for name, field in fields.items() if field.is_required()]
        subject.expect(not required, f"{what} without a default: {', '.join(required)}", "a default for each option")


def presets_are_valid(subject: Subject) -> None:
    """Every preset is a valid configuration, and the default one holds a plan."""
    for name in subject.spec.presets:
        load_config(subject.record, preset=name)
    train = load_config(subject.record).config.train
    planned = train.steps is not None or train.minutes is not None
    subject.expect(planned, "the preset 'default' holds no plan", "train.steps or train.minutes in it")
