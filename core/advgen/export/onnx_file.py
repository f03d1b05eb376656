"""A generator as one ONNX file with a free batch axis, checked against eager in ONNX Runtime before it is kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advgen.contracts import Generator, Modality
from advgen.errors import ConfigError, GenError, PluginError
from advgen.export import ExportRequest, ExportResult
from advgen.files import replace_file
from advgen.optional_imports import needed_import
from advgen.randomness import keyed_generator
from advgen.sampling import LoadedRun
from advgen.transfer import float_type

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
EXAMPLES = 3
CHECKED = (1, 2, 7)
# Draws inside of a generator would differ from eager's in every session.
RANDOM = re.compile(
    r"\b(rand|randn|randint|randperm|rand_like|randn_like|bernoulli|multinomial|normal|uniform|exponential)_?\b"
)
COMPLAINTS = {
    "torch._C.Generator": "it draws numbers itself, besides its noise",
    "data-dependent": "what it computes depends on the values that it has drawn, which a fixed graph cannot follow",
    "specialized it to be a constant": "it takes the batch size as a number (len, int), which fixes it",
}
Inputs = dict[str, Tensor]


def check_packages() -> None:
    """Refuse before anything is loaded.

    Raises:
        PluginError: with the extra that brings what is missing.
    """
    for name in PACKAGES:
        needed_import(name, "--format onnx", 'pip install "advgen[export]"')


class Drawing(nn.Module):
    """noise, conditions in order -> what ``draw`` returns: values in the prepared scale, and a mask where there is one."""

    def __init__(self, generator: Generator, modality: Modality[Any], names: tuple[str, ...]) -> None:
        super().__init__()
        self.generator, self.modality, self.names = generator, modality, names

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The generator, then the modality's postprocessing."""
        given = dict(zip(self.names, inputs, strict=True))
        noise = given.pop("noise", None)
        if noise is None:  # a generator that answers its condition alone
            first = next(iter(given.values()))
            noise = torch.zeros(first.shape[0], 0, dtype=float_type(self.generator), device=first.device)
        batch = self.modality.postprocess(self.generator(noise, given), given)
        return (batch.values,) if batch.mask is None else (batch.values, batch.mask)


def write_onnx(run: LoadedRun, request: ExportRequest) -> ExportResult:
    """Export, check against eager for several batch sizes, and keep the file with a record of both beside it.

    Raises:
        PluginError: where the generator cannot be exported, naming the operation, or differs from eager.
        ConfigError: where the file cannot be written.
    """
    run.generator.to("cpu", torch.float32)
    run.generator.settle()
    example = draw_inputs(run.modality, EXAMPLES)
    drawing = Drawing(run.generator, run.modality, tuple(example)).eval()
    with _quiet():
        model = _convert(drawing, example, run.record.name)
    names = {"inputs": [each.name for each in model.graph.input], "outputs": [each.name for each in model.graph.output]}
    content = _serialized(model, run)
    difference = check(content, drawing, run.modality)
    about = {
        **names,
        "difference": difference,
        "tolerance": request.tolerance,
        "checked": f"batches of {', '.join(map(str, CHECKED))} samples, ONNX Runtime on the CPU against eager",
        "opset": max(each.version for each in model.opset_import if each.domain == ""),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    if not difference <= request.tolerance:
        raise PluginError(
            f"the exported generator of plugin {run.record.name} differs from eager by {difference:.3g}, more than "
            f"{request.tolerance:g}; nothing was kept. Allow more with --tolerance, or use --format huggingface"
        )
    record = request.target.with_suffix(".json")
    facts = {"step": run.step, "fingerprint": run.fingerprint, "classes": list(run.modality.facts.get("classes") or ())}
    _write(record, (json.dumps({**about, **facts, "plugin": run.record.name}, indent=2) + "\n").encode())
    _write(request.target, content)
    return ExportResult(run.folder, run.step, "onnx", request.target, [request.target, record], about)


def draw_inputs(modality: Modality[Any], count: int) -> Inputs:
    """Noise and conditions by name as sampling draws them, in float32; noise of no length is left out."""
    rng = keyed_generator(0, "export", count)
    condition = modality.condition(count, rng)
    noise = modality.noise(count, rng)
    inputs = {"noise": noise, **condition} if noise[0].numel() else dict(condition)
    return {name: value.float() if value.is_floating_point() else value for name, value in inputs.items()}


def check(content: bytes, drawing: Drawing, modality: Modality[Any]) -> float:
    """The largest difference between the file and eager over fresh inputs, of values relative to the largest one above 1.

    Of whole numbers, such as tokens, it is the share that differs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    free = {each.name for each in session.get_inputs() if len(each.shape) > 2 and isinstance(each.shape[-1], str)}
    worst = 0.0
    for count in CHECKED:
        inputs = draw_inputs(modality, count)
        shorter = {name: value[..., : value.shape[-1] // 2] if name in free else value for name, value in inputs.items()}
        for given in (inputs, shorter) if free else (inputs,):
            worst = max(worst, _worst(session, drawing, given))
    return worst


def _worst(session: Any, drawing: Drawing, inputs: Inputs) -> float:
    with torch.no_grad():
        eager = drawing(*inputs.values())
    taken = {each.name for each in session.get_inputs()}
    found = session.run(None, {name: value.numpy() for name, value in inputs.items() if name in taken})
    return max(_difference(torch.from_numpy(one), two) for one, two in zip(found, eager, strict=True))


def _difference(one: Tensor, two: Tensor) -> float:
    if one.shape != two.shape:
        raise PluginError(
            f"the exported generator returns {tuple(one.shape)}, eager {tuple(two.shape)}; use --format huggingface"
        )
    if not two.is_floating_point():
        return float((one != two).double().mean())
    if not bool(torch.isfinite(one).all()):
        return float("inf")
    return float((one - two).abs().max() / two.abs().max().clamp(min=1))


def _convert(drawing: Drawing, example: Inputs, plugin: str) -> Any:
    """The ONNX model.

    Raises:
        PluginError: naming the operation that has no counterpart.
    """
    outputs = ["values", "mask"][: len(drawing(*example.values()))]
    try:
        program = torch.export.export(
            drawing, tuple(example.values()), dynamic_shapes={"inputs": _free_axes(example)}, strict=False
        )
        _refuse_draws(program, plugin)
        exported = torch.onnx.export(program, input_names=list(example), output_names=outputs, dynamo=True, verbose=False)
        assert exported is not None  # given no file to write
        return exported.model_proto
    except GenError:
        raise
    except Exception as error:  # export raises many kinds for what it cannot follow
        raise PluginError(
            f"the generator of plugin {plugin} cannot be exported to ONNX: {_culprit(error)}; use --format huggingface"
        ) from error


def _free_axes(example: Inputs) -> tuple[dict[int, Any], ...]:
    """The batch axis of every input; the last axis too of conditions that are sequences, where the generator allows it."""
    batch, auto = torch.export.Dim("batch", min=1), torch.export.Dim.AUTO
    sequences = {name for name, value in example.items() if name != "noise" and value.ndim > 2}
    return tuple({0: batch, value.ndim - 1: auto} if name in sequences else {0: batch} for name, value in example.items())


def _refuse_draws(program: Any, plugin: str) -> None:
    drawn = [str(node.target) for node in program.graph.nodes if node.op == "call_function" and RANDOM.search(str(node.target))]
    if drawn:
        raise PluginError(
            f"the generator of plugin {plugin} cannot be exported to ONNX: it draws numbers itself ({drawn[0]}) besides its "
            "noise, so a file of it would not make the same samples; use --format huggingface"
        )


def _culprit(error: BaseException | None) -> str:
    """What cannot be exported: the operation that an error names, else what the exporter complains of, in words."""
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    for text in reversed(texts):
        for complaint, meaning in COMPLAINTS.items():
            if complaint in text:
                return meaning
        if found := re.search(r"\baten[.:]+([a-z_0-9]+)", text):
            return f"the operation aten.{found[1]} has no counterpart there"
    return " ".join(texts[0].split())[:300] or "it cannot be followed"


def _serialized(model: Any, run: LoadedRun) -> bytes:
    """One file; what made it stands in its metadata."""
    import onnx

    facts = {"plugin": run.record.name, "step": str(run.step), "fingerprint": run.fingerprint}
    onnx.helper.set_model_props(model, {f"advgen.{name}": value for name, value in facts.items()})
    try:
        content: bytes = model.SerializeToString()
    except ValueError as error:  # the format's own limit, 2 GiB
        raise PluginError(f"the generator is too large for one ONNX file ({error}); use --format huggingface") from error
    onnx.checker.check_model(content)
    return content


def _write(path: Path, content: bytes) -> None:
    """Beside its place, then renamed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".exporting-") as draft:
            (Path(draft) / path.name).write_bytes(content)
            replace_file(Path(draft) / path.name, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of their own inner affairs."""
    before = {name: logging.getLogger(name).level for name in ("torch", "onnxscript", "onnx_ir")}
    before |= {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict if name.startswith("torch.")}
    for name in before:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
