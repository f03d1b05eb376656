"""Generators for use elsewhere: ONNX files that equal eager, and folders in Hugging Face layout that load again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import advgen
from advgen import Batch, PluginError
from advgen.cli import main
from advgen.errors import CheckpointError, GenError
from advgen.export import export_run
from advgen_image.config import ImageConfig
from advgen_image.modality import ImageModality

sys.path.insert(0, str(Path(__file__).resolve().parent))
from conftest import tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "shapes"
    advgen.train("image", overrides=tiny("image"), steps=2, out=out, progress=False, device="cpu")
    return out


def gen(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    return int(ended.value.code or 0)


# The folder


def test_a_folder_draws_what_its_run_draws(trained: Path, tmp_path: Path) -> None:
    result = export_run(trained, "huggingface", tmp_path / "model", licence="apache-2.0")
    names = {file.relative_to(tmp_path / "model").as_posix() for file in result.files}
    assert {"README.md", "config.json", "model.safetensors", "samples/overview.png", "samples/00000.png"} <= names
    assert not [name for name in names if name.endswith((".pkl", ".pt", ".bin"))]
    one, two = (advgen.load_generator(place, device="cpu").draw(5, seed=3, label="circle") for place in (trained, result.path))
    assert torch.equal(one.values, two.values) and torch.equal(one.condition["label"], two.condition["label"])


def test_the_command_samples_from_a_folder_and_ships_it_again(trained: Path, tmp_path: Path, capsys: Any) -> None:
    assert gen("export", trained, "--format", "huggingface", "--out", tmp_path / "model", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["step"], told["licence"], told["evaluated"]) == ("huggingface", 2, "unknown", False)
    assert gen("sample", tmp_path / "model", "-n", 2, "--out", tmp_path / "out", "--device", "cpu") == 0
    assert len(list((tmp_path / "out").glob("0*.png"))) == 2
    assert gen("export", tmp_path / "model", "--format", "huggingface", "--out", tmp_path / "again") == 0
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("model", "again")]
    assert configs[0] == configs[1]


def test_the_default_place_is_below_the_run_by_its_name(trained: Path, capsys: Any) -> None:
    assert gen("export", trained, "--format", "huggingface") == 0
    assert (trained / "export" / "shapes" / "README.md").is_file() and "gen evaluate" in capsys.readouterr().out


def test_a_card_tells_licence_data_use_and_the_protocol_of_its_metrics(tmp_path: Path) -> None:
    from advgen.export.card import CardFacts, write_card

    (tmp_path / "samples").mkdir()
    files = [tmp_path / "samples" / name for name in ("overview.png", "0.wav", "samples.txt", "x.npy")]
    for file in files:
        file.write_text("first line\nsecond\n")
    report = {
        "protocol": {
            "features": "own-cnn",
            "num_generated": 100,
            "step": 2,
            "judge": {"layer": "the last, 64 numbers", "weights": "sha256 ab"},
            "metrics": {"valid_share": {"protocol": "read back", "better": "higher", "missing": ""}},
        },
        "generated": {"frechet_distance": 1.5, "note": "text"},
        "real": {"frechet_distance": 0.25},
        "modality": {"valid_share": 0.5},
        "real_modality": {},
    }
    published = {"protocol": {"features": "inception", "score": {"name": "inception_score", "splits": 10}}}
    published |= {"generated": {"inception_score": 7.25}, "real": {}}
    facts = CardFacts(
        *("mine", "image", "advgen", "a-task", "cc0-1.0", 2, 1234, "digits", "abc123", ["0", "1"], 'plugin = "image"'),
        [report, published],
        files,
        tmp_path,
    )
    text = write_card(facts)
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load(front)
    assert head["license"] == "cc0-1.0" and head["pipeline_tag"] == "a-task" and "advgen-plugin:image" in head["tags"]
    (first, second) = head["model-index"][0]["results"]
    (metric, own), (score,) = first["metrics"], second["metrics"]
    assert (metric["type"], metric["value"], own["value"]) == ("frechet_distance", 1.5, 0.5)
    stamp = "features: own-cnn; num_generated: 100; step: 2; judge layer: the last, 64 numbers; judge weights: sha256 ab"
    assert metric["args"] == stamp
    assert own["args"] == f"{stamp}; metrics valid_share protocol: read back; metrics valid_share better: higher"
    assert score["value"] == 7.25
    assert score["args"] == "features: inception; score name: inception_score; score splits: 10"
    tables = body.split("### In features of ")
    assert "- judge layer: the last, 64 numbers" in tables[1] and "- metrics valid_share protocol: read back" in tables[1]
    assert tables[2].startswith("inception\n") and "| inception_score | 7.25 |  |" in tables[2]
    assert "- score splits: 10" in tables[2] and "judge" not in tables[2].partition("## Training")[0]
    assert "| frechet_distance | 1.5 | 0.25 |" in body and "| valid_share | 0.5 |  |" in body
    for part in (
        "![overview](samples/overview.png)",
        '<audio controls src="samples/0.wav">',
        "    first line",
        "[samples/x.npy]",
    ):
        assert part in body
    assert "abc123" in body and 'advgen.load_generator("mine")' in body and 'label="0"' in body and "note" not in body


def test_metrics_of_another_step_stay_out_of_the_card(trained: Path, tmp_path: Path) -> None:
    report = {"protocol": {"step": 1}, "generated": {"frechet_distance": 7.5}, "real": {}}
    file = trained / "evaluation.json"
    try:
        for step, expected in ((1, False), (2, True)):
            file.write_text(json.dumps(report | {"protocol": {"step": step}}))
            result = export_run(trained, "huggingface", tmp_path / f"of-{step}")
            assert result.about["evaluated"] is expected
            assert ("7.5" in (result.path / "README.md").read_text()) is expected
    finally:
        file.unlink()


def test_every_evaluation_of_the_step_is_in_the_card_the_judges_first(trained: Path, tmp_path: Path) -> None:
    steps = {"evaluation.json": 2, "evaluation-0a1b2c3d.json": 2, "evaluation-inception.json": 2, "evaluation-other.json": 1}
    try:
        for name, step in steps.items():
            report = {"protocol": {"step": step, "features": f"of {name}"}, "generated": {"frechet_distance": 7.5}, "real": {}}
            (trained / name).write_text(json.dumps(report))
        card = (export_run(trained, "huggingface", tmp_path / "model").path / "README.md").read_text()
        titles = [line for line in card.splitlines() if line.startswith("### ")]
        assert titles == [f"### In features of of {name}" for name in list(steps)[:3]]
        for name in list(steps)[:2]:
            protocol = {"step": 2, "features": "own", "seed": len(name), "real_content": name, "judge": {"weights": name}}
            (trained / name).write_text(json.dumps({"protocol": protocol, "generated": {"frechet_distance": 7.5}, "real": {}}))
        card = (export_run(trained, "huggingface", tmp_path / "alike").path / "README.md").read_text()
        titles = [line for line in card.splitlines() if line.startswith("### ")]
        assert titles[:2] == ["### In features of own, seed 15", "### In features of own, seed 24"]
        assert titles[2] == "### In features of of evaluation-inception.json"
        (trained / "evaluation-other.json").write_text("{}")
        with pytest.raises(CheckpointError, match=r"evaluation-other\.json has no protocol; run gen evaluate .* or remove it"):
            export_run(trained, "huggingface", tmp_path / "again")
    finally:
        for name in steps:
            (trained / name).unlink()


def test_few_held_out_samples_are_told_by_training_evaluation_and_card(tmp_path: Path, capsys: Any) -> None:
    told = "the test split holds 25 samples, and with fewer than 100 every metric is mostly noise; bring more data, or train"
    given = [part for each in tiny("text") for part in ("--set", each)]
    assert gen("train", "--plugin", "text", "--steps", 1, "--device", "cpu", "--out", tmp_path / "run", *given) == 0
    assert told in capsys.readouterr().err
    assert gen("evaluate", tmp_path / "run", "-n", 20) == 0 and f"\nwarning: {told}" in capsys.readouterr().out
    card = (export_run(tmp_path / "run", "huggingface", tmp_path / "model").path / "README.md").read_text()
    assert f"\n- caution: {told}" in card


def test_no_path_of_the_training_machine_is_shipped(tmp_path: Path) -> None:
    data = tmp_path / "secret-place" / "points"
    data.mkdir(parents=True)
    for index in range(60):
        from PIL import Image

        Image.fromarray(np.random.default_rng(index).integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(data / f"{index}.png")
    advgen.train("image", data=data, overrides=tiny("image"), steps=1, out=tmp_path / "run", progress=False, device="cpu")
    result = export_run(tmp_path / "run", "huggingface", tmp_path / "model")
    shipped = "".join(file.read_text(errors="replace") for file in result.files if file.suffix in (".md", ".json"))
    assert "secret-place" not in shipped and "points" in shipped


def test_a_changed_weight_and_a_wrong_folder_are_refused(trained: Path, tmp_path: Path) -> None:
    export_run(trained, "huggingface", tmp_path / "model")
    with pytest.raises(CheckpointError, match="of step 2 alone"):
        advgen.load_generator(tmp_path / "model", step=1)
    weights = tmp_path / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or was changed"):
        advgen.load_generator(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"schema": 9}))
    with pytest.raises(CheckpointError, match="has schema 9"):
        advgen.load_generator(tmp_path / "model")
    spoiled = config["config"] | {"loss": 3}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"config": spoiled}))
    with pytest.raises(CheckpointError, match=r"not valid here \(loss = 3 \(config\): expected text\); fetch"):
        advgen.load_generator(tmp_path / "model")


def test_an_exported_folder_is_no_run(trained: Path, tmp_path: Path, capsys: Any) -> None:
    export_run(trained, "huggingface", tmp_path / "model")
    for command in (("resume",), ("evaluate",), ("runs", "show")):
        assert gen(*command, tmp_path / "model") == 5
        assert "is an exported generator, which has neither data nor training state" in capsys.readouterr().err


def test_a_model_of_a_missing_plugin_says_so(trained: Path, tmp_path: Path) -> None:
    export_run(trained, "huggingface", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    changed = config | {"plugin": "video", "plugin_distribution": "advgen-video"}
    (tmp_path / "model" / "config.json").write_text(json.dumps(changed))
    with pytest.raises(PluginError, match="advgen-video:video"):
        advgen.load_generator(tmp_path / "model")


# Refusals


def test_bad_requests_are_refused_with_their_exit_codes(trained: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "mine.json").write_text("{}")
    empty = tmp_path / "empty"
    (empty / "checkpoints").mkdir(parents=True)
    for name in ("run.json", "config.toml", "facts.json"):
        (empty / name).write_bytes((trained / name).read_bytes())
    cases = [
        ((trained, "--format", "huggingface", "--out", tmp_path / "taken"), 2, "exists; remove it"),
        ((trained, "--format", "onnx", "--out", tmp_path / "mine.onnx"), 2, "mine.json exists; remove it"),
        ((trained, "--format", "onxx"), 2, "did you mean 'onnx'"),
        ((empty, "--format", "huggingface"), 5, "no whole checkpoint"),
        ((tmp_path / "nowhere", "--format", "huggingface"), 5, "is not a run folder"),
        ((trained, "--format", "huggingface", "--step", 9, "--out", tmp_path / "new"), 5, "has no checkpoint of step 9"),
        ((trained,), 2, "--format"),
    ]
    for arguments, code, message in cases:
        assert gen("export", *arguments) == code, arguments
        said = capsys.readouterr().err.strip()
        assert message in said and len(said.splitlines()) == 1


def test_a_missing_package_is_named_with_its_extra(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def without(name: str, package: str | None = None) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", without)
    from advgen.export.onnx_file import check_packages

    with pytest.raises(PluginError, match=r'needs the package onnx, which is not installed; pip install "advgen\[export\]"'):
        check_packages()


# ONNX


@pytest.fixture(scope="module")
def packages() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)


class Plain(nn.Module):
    """A generator of one line, and the modality around it."""

    formula: Any = staticmethod(lambda noise: noise * 2)

    def __init__(self, formula: Any) -> None:
        super().__init__()
        self.scale, self.formula = nn.Parameter(torch.ones(())), formula

    def forward(self, noise: Tensor, condition: Any) -> Any:
        return self.formula(noise) * self.scale

    def settle(self) -> None:
        """It follows nothing in training."""

    def noise(self, count: int, rng: torch.Generator) -> Tensor:
        return torch.randn(count, 6, generator=rng)

    def condition(self, count: int, rng: torch.Generator) -> dict[str, Tensor]:
        return {}

    def postprocess(self, values: Tensor, condition: Any) -> Batch:
        return Batch(values)


def convert(formula: Any) -> tuple[Any, Any]:
    from advgen.export import onnx_file

    subject: Any = Plain(formula).requires_grad_(False)
    example = onnx_file.draw_inputs(subject, 3)
    drawing = onnx_file.Drawing(subject, subject, tuple(example)).eval()
    with onnx_file._quiet():
        return onnx_file._convert(drawing, example, "mine"), drawing


def test_a_file_equals_eager_for_any_batch_and_says_by_how_much(
    packages: None, trained: Path, tmp_path: Path, capsys: Any
) -> None:
    import onnxruntime

    target = tmp_path / "sub" / "g.onnx"
    assert gen("export", trained, "--format", "onnx", "--out", target) == 0
    said = capsys.readouterr().out
    assert "inputs noise, label; outputs values" in said and "difference from eager" in said
    record = json.loads(target.with_suffix(".json").read_text())
    assert 0 <= record["difference"] <= record["tolerance"] == 1e-4 and record["classes"] == ["circle", "square", "triangle"]
    run = advgen.load_generator(trained, device="cpu")
    rng = torch.Generator().manual_seed(11)
    for count in (1, 5):
        noise, label = run.modality.noise(count, rng), torch.arange(count) % 3
        session = onnxruntime.InferenceSession(target.read_bytes(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"noise": noise.numpy(), "label": label.numpy()})
        with torch.no_grad():
            eager = run.generator(noise, {"label": label}).values
        assert np.abs(found - eager.numpy()).max() < 1e-4
    assert gen("export", trained, "--format", "onnx", "--out", target) == 2


def test_a_file_that_differs_from_eager_is_not_kept(packages: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advgen.export import ExportRequest, onnx_file

    subject: Any = Plain(lambda noise: noise * 2).requires_grad_(False)
    about = {"step": 1, "fingerprint": "f", "record": SimpleNamespace(name="mine"), "folder": tmp_path}
    run: Any = SimpleNamespace(generator=subject, modality=subject, **about)
    monkeypatch.setattr(onnx_file, "check", lambda *_: 0.5)
    with pytest.raises(PluginError, match=r"differs from eager by 0\.5, more than 0\.0001; nothing was kept"):
        onnx_file.write_onnx(run, ExportRequest(tmp_path / "g.onnx"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"family": "stylegan2", "mapping_layers": 1, "depth": 1},
        {"family": "stylegan2", "mapping_layers": 1, "depth": 1, "truncation": 0.5},
        {"family": "stylegan2", "mapping_layers": 1, "depth": 1, "truncation": 0.5, "conditional": False},
        {"family": "resnet", "conditional": False, "depth": 1},
        {"family": "r3", "depth": 1},
    ],
)
def test_families_are_exported(packages: None, options: dict[str, Any]) -> None:
    from advgen.export import onnx_file

    facts = {
        "corpus": "folder",
        "height": 8,
        "width": 8,
        "channels": 1,
        "bits": 8,
        "classes": ["a", "b"],
        "class_counts": [1, 1],
    }
    modality = ImageModality(ImageConfig(width=4, noise_size=8, **options), facts)
    generator = modality.generator().eval().requires_grad_(False)
    generator.settle()
    example = onnx_file.draw_inputs(modality, 3)
    drawing = onnx_file.Drawing(generator, modality, tuple(example)).eval()
    with onnx_file._quiet():
        model = onnx_file._convert(drawing, example, "image")
    assert onnx_file.check(model.SerializeToString(), drawing, modality) < 1e-5


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda noise: noise + torch.randn_like(noise), r"it draws numbers itself \(aten\.randn_like"),
        (lambda noise: noise * 2 if bool((noise > 0).all()) else noise, "depends on the values"),
        (lambda noise: noise.reshape(len(noise), 2, 3), "takes the batch size as a number"),
        (lambda noise: torch.linalg.eigvals(noise.reshape(-1, 1, 6).repeat(1, 6, 1)).real, r"the operation aten\.linalg_eig"),
    ],
)
def test_what_cannot_be_exported_says_why(packages: None, formula: Any, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        convert(formula)


@pytest.mark.skipif(torch.__version__.startswith("2.11."), reason="onnxscript breaks on the graph that torch 2.11 makes of it")
def test_an_inverse_short_time_transform_is_exported(packages: None) -> None:
    from advgen.export import onnx_file

    def wave(noise: Tensor) -> Tensor:
        bins = torch.complex(noise[:, :3], noise[:, 3:])
        return torch.fft.irfft(bins, 4, dim=1)

    model, drawing = convert(wave)
    assert onnx_file.check(model.SerializeToString(), drawing, drawing.modality) < 1e-5


def test_differences_are_relative_to_large_values_and_shares_of_tokens() -> None:
    from advgen.export.onnx_file import _difference

    assert _difference(torch.tensor([100.0, 50.0]), torch.tensor([100.0, 51.0])) == pytest.approx(0.01)
    assert _difference(torch.tensor([0.1]), torch.tensor([0.2])) == pytest.approx(0.1)
    assert _difference(torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 3, 5])) == 0.25
    assert _difference(torch.tensor([float("nan")]), torch.tensor([0.0])) == float("inf")
    with pytest.raises(GenError, match=r"returns \(1,\), eager \(2,\)"):
        _difference(torch.zeros(1), torch.zeros(2))
