"""Published features: our network and formulas beside torch-fidelity's, weights and their refusals, what is kept."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import math
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from advgen import Batch, ConfigError, DataError
from advgen.evaluation import evaluate_loaded
from advgen.metrics.comparison import Comparison, FeatureSpace
from advgen.metrics.features import frechet_distance, kernel_distance
from advgen.metrics.judging import View, compare
from advgen.metrics.kept import content_of, pooled_features, view_of_real
from advgen.metrics.neighbours import precision_recall_density_coverage
from advgen.metrics.report import format_report
from advgen.metrics.scores import classifier_score
from advgen_image import inception_features
from advgen_image.config import ImageConfig
from advgen_image.inception import Inception, resized
from advgen_image.inception_features import InceptionFeatures, as_rgb, fetched, load_inception
from advgen_image.modality import ImageModality

CPU = torch.device("cpu")


@contextlib.contextmanager
def without_torchvision() -> Iterator[None]:
    """The package imports torchvision for networks that are not compared here; where it is missing, empty modules do."""
    names = ["torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional"]
    stubs = {} if importlib.util.find_spec("torchvision") else {name: types.ModuleType(name) for name in names}
    for name, stub in stubs.items():
        for part in ("CIFAR10", "STL10", "CIFAR100", "Compose", "PILToTensor"):
            setattr(stub, part, object)
        stub.__path__ = []  # type: ignore[attr-defined]
        sys.modules[name] = stub
        parent, _, own = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], own, stub)
    try:
        yield
    finally:
        for name in stubs:
            del sys.modules[name]


def fidelity(module: str) -> Any:
    """A module of the package that published numbers are made with."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed: pip install --no-deps torch-fidelity")
    pytest.importorskip("tqdm")
    with without_torchvision():
        return importlib.import_module(f"torch_fidelity.{module}")


@pytest.fixture(scope="module")
def network() -> Inception:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        found = Inception()
        for name, value in found.state_dict().items():
            if name.endswith("running_mean"):
                value.normal_(0, 0.1)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
    return found.eval().requires_grad_(False)


def random_features(seed: int, num: int = 300, size: int = 12, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(num, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


def images(num: int, channels: int, side: int) -> torch.Tensor:
    return torch.rand(num, channels, side, side, generator=torch.Generator().manual_seed(num)) * 2 - 1


# Beside the package


def test_network_resizing_and_layer_equal_the_packages_with_the_same_weights(
    network: Inception, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fidelity("feature_extractor_inceptionv3")
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: network.state_dict())
    theirs = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], verbose=False)
    pixels = as_rgb(images(2, 3, 32))
    with torch.no_grad():
        for own, other in zip(network(pixels), theirs(pixels), strict=True):
            assert own.std() > 0
            assert torch.allclose(own, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_resizing_equals_the_packages_to_the_bit() -> None:
    module = fidelity("interpolate_compat_tensorflow")
    values = images(2, 3, 28) * 100
    theirs = module.interpolate_bilinear_2d_like_tensorflow1x(values, size=(299, 299), align_corners=False)
    assert torch.equal(resized(values, 299, 299), theirs)


def test_frechet_distance_equals_the_packages_on_the_same_features() -> None:
    module = fidelity("metric_fid")
    generated, real = random_features(1), random_features(2, num=400, shift=0.3)
    moments = [module.fid_features_to_statistics(each) for each in (generated, real)]
    theirs = module.fid_statistics_to_metric(*moments, False)["frechet_inception_distance"]
    assert frechet_distance(generated=generated, real=real) == pytest.approx(theirs, rel=1e-9)


def test_kernel_distance_equals_the_packages_on_one_whole_set() -> None:
    module = fidelity("metric_kid")
    generated, real = random_features(1), random_features(2, shift=0.3)
    theirs = module.kid_features_to_metric(generated, real, kid_subsets=1, kid_subset_size=300, verbose=False)
    found = kernel_distance(generated=generated, real=real)
    assert found == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def test_the_inception_score_equals_the_packages_in_the_same_order() -> None:
    logits = random_features(4, num=203, size=30) * 3
    theirs = fidelity("metric_isc").isc_features_to_metric(logits, splits=10, shuffle=False)
    assert classifier_score(logits) == pytest.approx(theirs["inception_score_mean"], rel=1e-12)


def test_precision_and_recall_equal_the_packages_with_the_same_neighbours() -> None:
    module = fidelity("metric_prc")
    generated, real = random_features(1), random_features(2, num=400, shift=0.3)
    theirs = module.prc_features_to_metric(generated, real, prc_neighborhood=5, prc_batch_size=1000, verbose=False)
    own = precision_recall_density_coverage(generated=generated, real=real)
    assert own["precision"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert own["recall"] == pytest.approx(theirs["recall"], abs=1e-6)


# By hand


def test_resizing_takes_the_first_pixel_as_it_is_and_repeats_the_last() -> None:
    row = torch.tensor([0.0, 10.0])[None, None, None]
    assert resized(row, 1, 4).flatten().tolist() == [0.0, 5.0, 10.0, 10.0]


def test_sure_and_even_logits_score_the_number_of_classes_and_flat_ones_score_one() -> None:
    sure = 1000.0 * torch.eye(4).repeat(10, 1)
    assert classifier_score(sure) == pytest.approx(4.0)
    assert classifier_score(torch.zeros(40, 4)) == pytest.approx(1.0)
    assert classifier_score(sure[:1].repeat(40, 1)) == pytest.approx(1.0)


def test_a_few_samples_are_scored_in_fewer_parts() -> None:
    logits = random_features(5, num=7, size=3)
    assert classifier_score(logits) == pytest.approx(classifier_score(logits, splits=3))


def test_grey_becomes_three_channels_and_transparency_goes() -> None:
    grey, clear = as_rgb(torch.full((1, 1, 2, 2), -1.0)), as_rgb(images(1, 4, 4))
    assert grey.shape == (1, 3, 2, 2) and grey.dtype == torch.uint8 and not grey.any()
    assert torch.equal(clear, as_rgb(images(1, 4, 4)[:, :3]))
    assert torch.equal(as_rgb(images(1, 2, 4)), as_rgb(images(1, 2, 4)[:, :1]))


# Weights


def test_weights_are_read_from_safetensors_and_from_a_torch_file_and_named_by_their_hash(
    network: Inception, tmp_path: Path
) -> None:
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    batch = Batch(images(2, 1, 8))
    found = [load_inception(tmp_path, tmp_path / name, CPU) for name in ("w.safetensors", "w.pth")]
    assert torch.equal(found[0].features(batch), found[1].features(batch))
    assert found[0].features_and_logits(batch)[1].shape == (2, 1008)
    assert found[0].identity != found[1].identity
    assert len(found[0].protocol["weights"]) == len("sha256 ") + 64


def test_other_weights_are_refused_with_a_tensor_that_does_not_fit(tmp_path: Path) -> None:
    save_file({"conv.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"does not hold the weights of Inception: \d+ tensors .*such as Conv2d_1a_3x3"):
        load_inception(tmp_path, tmp_path / "w.safetensors", CPU)
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(DataError, match="is not a safetensors file"):
        load_inception(tmp_path, tmp_path / "broken.safetensors", CPU)
    with pytest.raises(DataError, match=r"--weights .*gone\.pth does not exist"):
        load_inception(tmp_path, tmp_path / "gone.pth", CPU)


def test_without_a_network_the_refusal_says_where_the_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(DataError, match=r"cannot be fetched from https://.*: no route to host; .*--weights FILE"):
        load_inception(tmp_path, None, CPU)


def test_fetched_weights_are_checked_against_the_published_hash_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def download(url: str, file: str, **more: Any) -> None:
        asked.append((url, more["hash_prefix"]))
        Path(file).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    assert fetched(tmp_path) == fetched(tmp_path)
    assert asked == [(inception_features.URL, "6726825d")]
    assert capsys.readouterr().err.startswith("fetching https://")


# What is kept


class CountingJudge:
    """Features are the values; says how many samples it was shown."""

    name, identity = "counting", "1"

    def __init__(self) -> None:
        self.shown = 0

    def features(self, batch: Batch) -> torch.Tensor:
        self.shown += len(batch)
        return batch.values

    def features_and_logits(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.features(batch), batch.values * 2

    def classify(self, batch: Batch) -> torch.Tensor:
        return batch.values.argmax(1)


def labelled(seed: int) -> Batch:
    return Batch(random_features(seed, 300, 3).float(), None, {"label": torch.arange(300) % 3})


def assert_same(one: View, other: View) -> None:
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(other, name)), name


def test_a_view_of_real_samples_is_computed_once_for_a_judge_and_a_content(tmp_path: Path) -> None:
    judge = CountingJudge()
    first = view_of_real(judge, labelled(1), tmp_path)
    assert_same(first, view_of_real(judge, labelled(1), tmp_path))
    assert judge.shown == 300
    view_of_real(judge, labelled(2), tmp_path)
    judge.identity = "2"
    view_of_real(judge, labelled(1), tmp_path)
    assert judge.shown == 900
    assert len(list((tmp_path / "features").iterdir())) == 3


def test_a_whole_view_is_not_taken_from_features_that_were_kept_alone(tmp_path: Path) -> None:
    judge = CountingJudge()
    features = pooled_features(judge, lambda: iter([labelled(1)]), tmp_path)
    view = view_of_real(judge, labelled(1), tmp_path)
    assert view.labels is not None and view.logits is not None and torch.equal(view.features, features)


def test_a_damaged_view_is_computed_again_and_a_judge_without_identity_keeps_nothing(tmp_path: Path) -> None:
    judge = CountingJudge()
    first = view_of_real(judge, labelled(1), tmp_path)
    (file,) = (tmp_path / "features").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert_same(first, view_of_real(judge, labelled(1), tmp_path))
    assert judge.shown == 600 and file.stat().st_size > 50
    judge.identity = None  # type: ignore[assignment]
    view_of_real(judge, labelled(3), tmp_path)
    assert len(list((tmp_path / "features").iterdir())) == 1


def test_a_cache_that_cannot_be_written_costs_a_warning_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "features").write_text("in the way")
    with caplog.at_level(logging.WARNING, "advgen"):
        assert len(view_of_real(CountingJudge(), labelled(1), tmp_path).seen) == 300
    assert "features are not kept" in caplog.text


def test_content_tells_values_labels_types_and_order_apart() -> None:
    batch = labelled(1)
    others = [
        Batch(batch.values, None, {"label": batch.condition["label"].flip(0)}),
        Batch(batch.values.flip(0), None, dict(batch.condition)),
        Batch(batch.values.double(), None, dict(batch.condition)),
        Batch(batch.values, torch.ones(300, 3, dtype=torch.bool), dict(batch.condition)),
    ]
    assert len({content_of([each]) for each in (batch, *others)}) == 5
    assert content_of([batch]) == content_of([labelled(1)])


# In a report


class InceptionRun:
    """A run of tiny images whose generator repeats the data."""

    step, fingerprint, device, truncation = 3, "f", CPU, 1.0

    def __init__(self) -> None:
        from advgen import ArraySource, Corpus

        facts = {"height": 8, "width": 8, "channels": 1, "bits": 8, "classes": [], "class_counts": [], "corpus": "folder"}
        self.modality = ImageModality(ImageConfig(depth=1), facts)
        sources = {name: ArraySource(images(num, 1, 8)) for name, num in (("train", 9), ("validation", 2), ("test", 8))}
        self.found = Corpus(facts, sources, "f")

    def corpus(self) -> Any:
        return self.found

    def draw(self, num: int, seed: int = 0) -> Batch:
        return Batch(images(num, 1, 8))

    def of_generator(self, held_out: Batch, generated: Batch) -> dict[str, float]:
        return {}


def test_a_report_in_inception_features_is_stamped_with_layer_resizer_weights_and_reference(
    network: Inception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    run, space = InceptionRun(), FeatureSpace("inception", tmp_path / "w.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    report = evaluate_loaded(run, 7, comparison=Comparison(space))  # type: ignore[arg-type]
    protocol = report["protocol"]
    assert protocol["features"] == "inception-v3-2015-12-05" and set(protocol["judge"]) == {"layer", "resizer", "weights"}
    assert 1 <= report["generated"]["inception_score"] < 1008
    assert "neighbours" not in protocol and "class_histogram" not in report["generated"]
    text = format_report(report)
    assert "resizer: 8-bit RGB, bilinear to 299x299" in text and "inception_score: mean over 10 parts" in text
    assert next(line for line in text.splitlines() if line.startswith("inception_score ")).endswith("higher")
    shown: list[int] = []
    forward = InceptionFeatures.features_and_logits
    monkeypatch.setattr(
        InceptionFeatures, "features_and_logits", lambda self, batch: shown.append(len(batch)) or forward(self, batch)
    )
    assert evaluate_loaded(run, 7, comparison=Comparison(space)) == report  # type: ignore[arg-type]
    assert shown == [7]


def test_unknown_features_and_weights_without_features_are_refused_with_what_is_known() -> None:
    modality = InceptionRun().modality
    with pytest.raises(ConfigError, match=r"--features vgg: known: inception \(Inception v3.*leave --features out"):
        FeatureSpace("vgg").judge(modality, CPU)
    with pytest.raises(ConfigError, match=r"--weights w\.pth: the judge of the data takes none; say --features NAME"):
        FeatureSpace(None, Path("w.pth")).judge(modality, CPU)
    modality.feature_spaces = {}  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="--features inception: the plugin has none; leave"):
        FeatureSpace("inception").judge(modality, CPU)


def test_the_own_classifiers_score_has_a_name_of_its_own() -> None:
    found = compare(CountingJudge(), labelled(1), labelled(2))
    assert found["classifier_score"] > 1 and math.isfinite(found["classifier_score"])
    assert "inception_score" not in found
