"""Checks of what a plugin declares: its spec, options and presets."""

from __future__ import annotations

import os
import subprocess
import sys

from advgen.config.load import load_config, options_model
from advgen.losses import Loss
from advgen.penalties import Penalty
from advgen.registry import resolve
from advgen.setup import modality_class
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
    """Every "module:attribute" string names something of the right kind."""
    options_model(subject.record)
    modality_class(subject.record)
    for name, reference in subject.spec.losses.items():
        subject.expect(isinstance(resolve(reference), Loss), f"losses.{name} is {reference}", "an advgen.Loss")
    for name, reference in subject.spec.penalties.items():
        subject.expect(isinstance(resolve(reference), Penalty), f"penalties.{name} is {reference}", "an advgen.Penalty")
    for reference in [*subject.spec.metrics.values(), *subject.spec.loggers.values()]:
        subject.expect(callable(resolve(reference)), f"{reference} cannot be called", "a function or class")


def options_have_defaults(subject: Subject) -> None:
    """``gen train --plugin NAME`` works with nothing else: every option has a default and a description."""
    fields = options_model(subject.record).model_fields
    required = [name for name, field in fields.items() if field.is_required()]
    subject.expect(not required, f"options without a default: {', '.join(required)}", "a default for each option")


def presets_are_valid(subject: Subject) -> None:
    """Every preset is a valid configuration, and the default one holds a plan."""
    for name in subject.spec.presets:
        load_config(subject.record, preset=name)
    train = load_config(subject.record).config.train
    planned = train.steps is not None or train.minutes is not None
    subject.expect(planned, "the preset 'default' holds no plan", "train.steps or train.minutes in it")
