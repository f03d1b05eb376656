"""A folder in Hugging Face layout: weights, configuration, a model card with samples. No pickle, and nothing of the data."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from advgen.config.load import to_toml
from advgen.config.model import RunConfig
from advgen.errors import CheckpointError, ConfigError
from advgen.export import ExportRequest, ExportResult
from advgen.export.card import CardFacts, write_card
from advgen.files import file_sha256, replace_file, sorted_paths
from advgen.runs.folder import EXPORT_CONFIG, EXPORT_LIBRARY, EXPORT_SCHEMA, RunFolder, is_export
from advgen.sampling import LoadedRun
from advgen.spec import DataSet

WEIGHTS = "model.safetensors"
SHOWN = 8
EMBEDDED = "the corpus that the plugin makes itself"


def write_folder(run: LoadedRun, request: ExportRequest) -> ExportResult:
    """Write beside the target, then rename: nobody sees half a model.

    Raises:
        ConfigError: where the folder cannot be written.
    """
    target = request.target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".exporting-") as scratch:
            draft = Path(scratch) / target.name
            draft.mkdir()
            reports = _reports(run)
            _fill(draft, run, request, reports)
            replace_file(draft, target)
    except SafetensorError as error:  # a full disk, within the library
        raise ConfigError(f"cannot write {target}: {error}; choose another --out") from error
    except OSError as error:
        raise ConfigError(f"cannot write {target}: {error.strerror or error}; choose another --out") from error
    files = sorted_paths(file for file in target.rglob("*") if file.is_file())
    about = {"licence": request.licence, "evaluated": bool(reports)}
    return ExportResult(run.folder, run.step, "huggingface", target, files, about)


def _fill(draft: Path, run: LoadedRun, request: ExportRequest, reports: list[dict[str, Any]]) -> None:
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in run.generator.state_dict().items()}
    save_file(tensors, draft / WEIGHTS, metadata={"format": "pt"})
    config = _without_path(run.config)
    _write_config(draft, run, config)
    about = origin(run)
    if about.get("plugin_sha256"):
        source = run.folder / "plugin" / Path(about["plugin_file"]).name
        (draft / "plugin").mkdir()
        shutil.copy(source, draft / "plugin" / source.name)
    record, named = run.record, _named_set(run)
    facts = CardFacts(
        name=request.target.name,
        plugin=record.name,
        distribution=record.distribution,
        task=record.spec.hub_task if record.spec is not None else "",
        intended_use=request.intended_use or (record.spec.intended_use if record.spec is not None else ""),
        out_of_scope=record.spec.out_of_scope if record.spec is not None else "",
        data_licence=named.licence if named is not None else "",
        data_terms=named.terms if named is not None else "",
        licence=request.licence,
        step=run.step,
        parameters=sum(parameter.numel() for parameter in run.generator.parameters()),
        data=data_name(run),
        fingerprint=run.fingerprint,
        classes=[str(name) for name in run.modality.facts.get("classes") or ()],
        config=to_toml(config, {name: source for name, source in about.get("sources", {}).items() if name != "data.path"}),
        reports=reports,
        samples=_write_samples(draft / "samples", run),
        folder=draft,
    )
    (draft / "README.md").write_text(write_card(facts), encoding="utf-8", newline="\n")


def _write_samples(folder: Path, run: LoadedRun) -> list[Path]:
    """The overview first, then a few files."""
    folder.mkdir()
    batch = run.draw(max(run.modality.overview_samples, SHOWN))
    shown = run.modality.overview(batch.slice(0, run.modality.overview_samples), folder / "overview")
    return [*shown, *run.modality.write(batch.slice(0, SHOWN), folder)]


def _write_config(draft: Path, run: LoadedRun, config: RunConfig) -> None:
    from advgen import __version__

    digest = file_sha256(draft / WEIGHTS)
    about = origin(run)
    content = {
        "library_name": EXPORT_LIBRARY,
        "schema": EXPORT_SCHEMA,
        "advgen_version": __version__,
        **{
            name: about.get(name)
            for name in ("plugin", "plugin_distribution", "plugin_version", "plugin_sha256", "plugin_file")
        },
        "plugin_file": Path(about["plugin_file"]).name if about.get("plugin_sha256") else None,
        "step": run.step,
        "fingerprint": run.fingerprint,
        "data": data_name(run),
        "data_set": _set_name(run),
        "weights": {"file": WEIGHTS, "sha256": digest},
        "config": config.model_dump(mode="json"),
        "facts": dict(run.modality.facts),
    }
    (draft / EXPORT_CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def origin(run: LoadedRun) -> dict[str, Any]:
    """Who made it: ``run.json`` of a run, ``config.json`` of a folder that was exported before."""
    return RunFolder(run.folder).read_json(EXPORT_CONFIG if is_export(run.folder) else "run.json")


def _without_path(config: RunConfig) -> RunConfig:
    """A path is of the machine that trained, and nobody else's business."""
    return config.model_copy(update={"data": config.data.model_copy(update={"path": None})})


def data_name(run: LoadedRun) -> str:
    """What the data are called: a named set, an address, the last part of a path."""
    if is_export(run.folder):
        return str(origin(run).get("data"))
    path = run.config.data.path
    if path is None:
        imported = origin(run).get("imported")
        return f"not known; imported from {imported.get('format', 'elsewhere')}" if imported else EMBEDDED
    kinds = (PurePosixPath, PureWindowsPath)  # the run may come from another system
    return next((kind(path).name for kind in kinds if kind(path).is_absolute()), path)


def _set_name(run: LoadedRun) -> str | None:
    """Return the name of the public set that the run was trained on; None if it was trained on other data."""
    name = origin(run).get("data_set") if is_export(run.folder) else run.config.data.path
    return name if isinstance(name, str) and run.record.spec is not None and name in run.record.spec.datasets else None


def _named_set(run: LoadedRun) -> DataSet | None:
    name = _set_name(run)
    return None if name is None or run.record.spec is None else run.record.spec.datasets[name]


def _reports(run: LoadedRun) -> list[dict[str, Any]]:
    """The run's evaluations of this step, one for each protocol: the judge's first, then those in published features."""
    folder, found = RunFolder(run.folder), list[dict[str, Any]]()
    for file in sorted(folder.path.glob("evaluation*.json"), key=lambda file: (len(file.name), file.name)):
        report = folder.read_json(file.name)
        protocol = report.get("protocol")
        if not isinstance(protocol, dict):
            raise CheckpointError(f"{file} has no protocol; run gen evaluate {folder.path} again, or remove it")
        found += [report] if protocol.get("step") == run.step else []
    return found
