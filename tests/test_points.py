"""The points example: its data, networks, metrics and files, and a run through the public interface."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from advgen import Batch, Corpus, DataError, DataRequest, PluginError, PluginSpec, Sample
from advgen.contracts import check_verdict

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "advgen-points"


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's modality module, imported from its own source folder."""
    monkeypatch.syspath_prepend(str(EXAMPLE / "src"))
    yield importlib.import_module("advgen_points.modality")


def small(points: ModuleType, mode: str = "ring", num_points: int = 500) -> tuple[object, Corpus]:
    config = points.PointsConfig(mode=mode, num_points=num_points, width=16, depth=2)
    corpus = points.PointsModality.read(config, DataRequest(None))
    return points.PointsModality(config, corpus.facts), corpus


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_entry_module_imports_no_torch() -> None:
    paths = [str(ROOT / "core"), str(EXAMPLE / "src")]
    code = f"import sys; sys.path[:0] = {paths!r}; import advgen_points, advgen_points.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_string_of_the_spec_resolves(points: ModuleType) -> None:
    spec = importlib.import_module("advgen_points").advgen_register()
    assert isinstance(spec, PluginSpec)
    for reference in (spec.config, spec.modality):
        module, name = reference.split(":")
        assert hasattr(importlib.import_module(module), name)


def test_every_preset_is_a_valid_run_configuration(points: ModuleType) -> None:
    from advgen.config.model import RunConfig

    spec = importlib.import_module("advgen_points").advgen_register()
    for preset in spec.presets.values():
        RunConfig.model_validate({"plugin": "points", **preset})


def test_ring_has_eight_and_grid_twenty_five_centres(points: ModuleType) -> None:
    ring, grid = points.mode_centres("ring"), points.mode_centres("grid")
    assert len(ring) == 8 and all(abs(math.hypot(*centre) - 1.0) < 1e-12 for centre in ring)
    assert len({tuple(centre) for centre in grid}) == 25 and max(max(centre) for centre in grid) == 4.0


@pytest.mark.parametrize(("mode", "num_modes"), [("ring", 8), ("grid", 25)])
def test_true_points_score_every_mode_the_ceiling_and_the_floor(points: ModuleType, mode: str, num_modes: int) -> None:
    modality, corpus = small(points, mode, num_points=100_000)
    held_out = modality.prepare(corpus.splits["test"].batch(torch.arange(2_500), rng()))
    scores = modality.metrics(held_out, held_out)
    assert scores["modes_found"] == num_modes
    assert scores["high_quality"] == pytest.approx(scores["high_quality_ceiling"], abs=0.01)
    assert scores["high_quality_ceiling"] == pytest.approx(0.9889, abs=1e-4)
    assert 0.0 <= scores["reverse_kl"] < 3 * (num_modes - 1) / (2 * 2_500)


def test_points_on_one_centre_are_one_mode_with_divergence_log_eight(points: ModuleType) -> None:
    centres = torch.tensor(points.mode_centres("ring"))
    scores = points.mixture_metrics(centres[:1].repeat(100, 1), centres, 0.01)
    assert scores["modes_found"] == 1 and scores["high_quality"] == 1.0
    assert scores["reverse_kl"] == pytest.approx(math.log(8))


def test_two_modes_at_three_to_one_have_the_divergence_worked_out_by_hand(points: ModuleType) -> None:
    centres = torch.tensor(points.mode_centres("ring"))
    scores = points.mixture_metrics(centres[[0, 0, 0, 1]], centres, 0.01)
    assert scores["reverse_kl"] == pytest.approx(0.75 * math.log(0.75 * 8) + 0.25 * math.log(0.25 * 8))


def test_points_far_from_every_mode_are_no_mode_and_the_worst_divergence(points: ModuleType) -> None:
    centres = torch.tensor(points.mode_centres("ring"))
    scores = points.mixture_metrics(torch.zeros(10, 2), centres, 0.01)
    assert scores["modes_found"] == 0 and scores["high_quality"] == 0.0
    assert scores["reverse_kl"] == pytest.approx(math.log(8))


def test_prepared_points_lie_about_minus_one_to_one(points: ModuleType) -> None:
    for mode in ("ring", "grid"):
        modality, corpus = small(points, mode)
        prepared = modality.prepare(corpus.splits["train"].batch(torch.arange(500), rng()))
        assert 0.9 < prepared.values.abs().max() < 1.1


def test_networks_return_what_the_contract_says(points: ModuleType) -> None:
    modality, _ = small(points)
    sample = modality.generator()(modality.noise(5, rng()), {})
    assert isinstance(sample, Sample) and sample.values.shape == (5, 2)
    discriminator = modality.discriminator()
    verdict = check_verdict(discriminator(discriminator.embed(sample), {}), 5, "points discriminator")
    assert verdict.heads[0].scores.shape == (5,)


def test_discriminator_allows_double_backward(points: ModuleType) -> None:
    discriminator = small(points)[0].discriminator().double()
    seen = torch.randn(4, 2, dtype=torch.float64, generator=rng(), requires_grad=True)
    (slope,) = torch.autograd.grad(discriminator(seen, {}).heads[0].scores.sum(), seen, create_graph=True)
    slope.square().sum().backward()
    gradient = next(discriminator.parameters()).grad
    assert gradient is not None and gradient.abs().sum() > 0


def test_both_gradients_agree_with_finite_differences(points: ModuleType) -> None:
    modality, _ = small(points)
    generator, discriminator = modality.generator().double(), modality.discriminator().double()
    noise = torch.randn(3, 2, dtype=torch.float64, generator=rng(), requires_grad=True)
    torch.autograd.gradcheck(lambda z: discriminator(generator(z, {}).values, {}).heads[0].scores, (noise,))


def test_noise_and_data_come_from_the_generator_alone(points: ModuleType) -> None:
    modality, corpus = small(points)
    torch.manual_seed(1)
    first = modality.noise(4, rng(3))
    torch.manual_seed(2)
    assert torch.equal(first, modality.noise(4, rng(3)))
    assert corpus.fingerprint == small(points)[1].fingerprint


def test_splits_are_disjoint_and_have_their_sizes(points: ModuleType) -> None:
    splits = small(points)[1].splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 500, "validation": 2_500, "test": 2_500}
    rows = torch.cat([split.batch(torch.arange(len(split)), rng()).values for split in splits.values()])
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)


def test_facts_alone_rebuild_the_modality(points: ModuleType) -> None:
    import json

    modality, corpus = small(points, "grid")
    again = points.PointsModality(modality.config, json.loads(json.dumps(dict(corpus.facts))))
    batch = corpus.splits["test"].batch(torch.arange(100), rng())
    assert again.metrics(again.prepare(batch), batch) == modality.metrics(modality.prepare(batch), batch)


def test_csv_points_are_read_and_written_in_their_own_units(points: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("x,y\n" + "".join(f"{i / 10},{-i}\n" for i in range(200)))
    corpus = points.PointsModality.read(points.PointsConfig(), DataRequest(path))
    assert sum(len(split) for split in corpus.splits.values()) == 200 and corpus.facts["scale"] == 199.0
    modality = points.PointsModality(points.PointsConfig(), corpus.facts)
    raw = corpus.splits["train"].batch(torch.arange(5), rng())
    prepared = modality.prepare(raw)
    assert prepared.values.abs().max() <= 1.0 and modality.metrics(prepared, prepared) == {}
    (written,) = modality.write(prepared.slice(0, 3), tmp_path)
    modality.write(prepared.slice(3, 5), tmp_path, start=3)
    with written.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["x", "y"] and len(rows) == 6
    assert torch.allclose(torch.tensor([[float(cell) for cell in row] for row in rows[1:]]), raw.values, atol=1e-4)


@pytest.mark.parametrize("row", ["1,apple", "1,2,3", "1", "nan,2", "1,inf"])
def test_a_bad_row_is_named_with_its_line_and_skipped_up_to_max_bad(points: ModuleType, tmp_path: Path, row: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("".join(f"{i},{i}\n" for i in range(100)) + row + "\n")
    corpus = points.PointsModality.read(points.PointsConfig(), DataRequest(path, max_bad=1))
    assert len(corpus.bad) == 1 and f"{path}, line 101" in corpus.bad[0]
    with pytest.raises(DataError, match="line 101"):
        points.PointsModality.read(points.PointsConfig(), DataRequest(path, max_bad=0))


@pytest.mark.parametrize("content", [b"", b"x,y\n", b"\xff\xfe\x00"])
def test_a_csv_without_points_is_refused_by_name(points: ModuleType, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.csv"):
        points.PointsModality.read(points.PointsConfig(), DataRequest(path))


def test_a_missing_csv_is_refused_by_name(points: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        points.PointsModality.read(points.PointsConfig(), DataRequest(tmp_path / "absent.csv"))


def test_overview_is_a_picture_with_the_points_in_it(points: ModuleType, tmp_path: Path) -> None:
    from PIL import Image

    modality, _ = small(points)
    (path,) = modality.overview(Batch(torch.tensor([[0.0, 0.0], [math.nan, 0.0]])), tmp_path / "step-0.5")
    assert path.name == "step-0.5.png"
    with Image.open(path) as picture:
        assert picture.size == (512, 512) and picture.getpixel((256, 256)) != (255, 255, 255)


@pytest.fixture
def installed(points: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as an installed distribution: the metadata that pip would write, beside the source folder."""
    metadata = tmp_path / "site" / "advgen_points-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: advgen-points\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[advgen.plugins]\npoints = advgen_points\n")
    monkeypatch.syspath_prepend(str(metadata.parent))


def test_points_train_and_are_sampled_through_the_public_interface(installed: None, tmp_path: Path) -> None:
    api = pytest.importorskip("advgen.api")
    overrides = ("train.batch_size=32", "options.num_points=500", "options.width=16")
    result = api.train("points", overrides=overrides, steps=6, seed=1, device="cpu", out=tmp_path / "run", progress=False)
    assert result.step == 6 and result.exit_code == 0
    generator = api.load_generator(result.folder)
    batch = generator.draw(7, seed=2)
    assert batch.values.shape == (7, 2) and bool(batch.values.isfinite().all())
    assert torch.equal(batch.values[:3], generator.draw(3, seed=2).values)


def test_an_overview_of_points_shows_two_thousand_of_them(
    points: ModuleType, installed: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import advgen
    from advgen.sampling import sample_run

    shown: list[int] = []
    monkeypatch.setattr(points.PointsModality, "overview", lambda self, batch, stem: shown.append(len(batch)) or [])
    overrides = ("train.batch_size=32", "options.num_points=500", "options.width=16")
    result = advgen.train("points", overrides=overrides, steps=1, device="cpu", out=tmp_path / "run", progress=False)
    sample_run(result.folder, num_samples=2_100)
    sample_run(result.folder, num_samples=10)
    assert shown == [2_000, 2_000, 10]


def test_the_single_file_plugin_of_the_tutorial_trains_and_is_sampled(tmp_path: Path) -> None:
    import advgen

    text = (ROOT / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    plugin = tmp_path / "my_plugin.py"
    plugin.write_text(text.split("```python\n")[1].split("```")[0], encoding="utf-8")
    result = advgen.train(str(plugin), steps=4, device="cpu", out=tmp_path / "run", progress=False)
    copy = result.folder / "plugin" / "my_plugin.py"
    assert copy.read_bytes() == plugin.read_bytes()
    with pytest.raises(PluginError, match=r"my_plugin\.py"):
        advgen.load_generator(result.folder)
    generator = advgen.load_generator(result.folder, plugin=str(copy))
    batch = generator.draw(5)
    assert batch.values.shape == (5, 2)
    assert all(path.is_file() for path in generator.modality.write(batch, tmp_path))


@pytest.mark.slow
def test_the_example_installs_and_is_found_as_an_entry_point(tmp_path: Path) -> None:
    target = tmp_path / "site"
    source = shutil.copytree(EXAMPLE, tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*pip, str(target), str(source)], check=True)
    code = (
        f"import sys; sys.path[:0] = [{str(target)!r}, {str(ROOT / 'core')!r}]\n"
        "from importlib.metadata import entry_points\n"
        "(found,) = [e for e in entry_points(group='advgen.plugins') if e.name == 'points']\n"
        "assert found.load().advgen_register().name == 'points' and found.dist.name == 'advgen-points'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_error_in_a_module_of_the_distribution_is_told_with_the_file_below_its_package(points: ModuleType) -> None:
    from advgen.blame import blamed
    from advgen.registry import inspect_module

    inspect_module(importlib.import_module("advgen_points"))  # what finds it by name calls the same
    text = (EXAMPLE / "src" / "advgen_points" / "networks.py").read_text().splitlines()
    line = 1 + next(number for number, code in enumerate(text) if "Sample(values=self.layers" in code)
    modality, _ = small(points)
    with pytest.raises(RuntimeError) as raised:
        modality.generator()(torch.zeros(5, 7), {})  # type: ignore[attr-defined]
    assert blamed(raised.value) == f"plugin 'points' (advgen_points/networks.py:{line}, in forward)"


def test_a_wrong_return_in_a_module_of_the_distribution_is_told_with_the_file_below_its_package(points: ModuleType) -> None:
    from advgen.errors import ContractError

    modality, _ = small(points)
    modality.facts = {"scale": torch.ones(7, 1, 1)}  # type: ignore[attr-defined]
    where = r"PointsModality.prepare \(advgen_points/modality.py:\d+\)"
    with pytest.raises(
        ContractError, match=rf"{where} returned a Batch whose values are float32 \(7, 4, 2\), expected \(4, ...\)"
    ):
        modality.prepare(Batch(torch.zeros(4, 2)))  # type: ignore[attr-defined]
