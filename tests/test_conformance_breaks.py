"""A small sound plugin passes the conformance suite, and each of its broken kin fails the check that is meant for it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advgen import (
    ArraySource,
    Batch,
    Corpus,
    DataError,
    Discriminator,
    Generator,
    Modality,
    PluginConfig,
    PluginError,
    PluginSpec,
    Sample,
    Verdict,
    content_hash,
)
from advgen.errors import ContractError
from advgen.testing import check_plugin, conformance_checks

sys.path.insert(0, str(Path(__file__).parent))
from test_plugin_errors import CONTRACT, LATER, RESOLVED, line_of, pattern, planted

MODULE = "dots_under_test"


class DotsConfig(PluginConfig):
    width: int = 8


class DotsGenerator(Generator):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))

    def forward(self, noise: Tensor, condition: Any, *, mode: Any = "values", temperature: float = 1.0) -> Sample:
        return Sample(self.layers(noise))


class TwiceRendered(DotsGenerator):
    def render(self, latent: Tensor, condition: Any) -> Sample:
        return Sample(2 * self.layers(latent))


class DotsDiscriminator(Discriminator):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, seen: Tensor, condition: Any, mask: Tensor | None = None) -> Verdict:
        return Verdict.of(self.layers(seen).squeeze(1))


class DotsJudge:
    name = "coordinates"

    def features(self, batch: Batch) -> Tensor:
        return batch.values

    def classify(self, batch: Batch) -> None:
        return None


class DotsModality(Modality[DotsConfig]):
    @classmethod
    def read(cls, config: DotsConfig, request: Any) -> Corpus:
        if request.path is not None:
            raise DataError(f"{request.path}: dots come from nowhere but here; leave --data out")
        points = torch.randn(300, 2, generator=torch.Generator().manual_seed(request.seed))
        splits = dict(zip(("train", "validation", "test"), map(ArraySource, points.split(100)), strict=True))
        return Corpus({"scale": 1.0}, splits, content_hash([points.numpy().tobytes()]))

    def generator(self) -> Generator:
        return DotsGenerator()

    def discriminator(self) -> Discriminator:
        return DotsDiscriminator()

    def noise(self, num_samples: int, generator: torch.Generator, *, mode: Any = "values") -> Tensor:
        return torch.randn(num_samples, 3, generator=generator)

    def judge(self, corpus: Corpus, cache: Path) -> DotsJudge:
        return DotsJudge()

    def write(self, batch: Batch, folder: Path, *, start: int = 0) -> list[Path]:
        path = folder / "dots.txt"
        with path.open("a" if start else "w") as file:
            file.writelines(f"{x} {y}\n" for x, y in batch.values.tolist())
        return [path]

    def overview(self, batch: Batch, stem: Path) -> list[Path]:
        path = stem.with_name(stem.name + ".txt")
        path.write_text(str(batch.values))
        return [path]


SPEC = PluginSpec(
    name="dots",
    summary="Dots.",
    config=f"{MODULE}:DotsConfig",
    modality=f"{MODULE}:DotsModality",
    presets={"default": {"penalties": {"r1": {"weight": 0.1}, "r2": {"weight": 0.1}}, "train": {"steps": 100}}},
)


def generator_that(forward: Callable[[Any, Tensor], Sample]) -> type[DotsModality]:
    class Broken(DotsGenerator):
        def forward(self, noise: Tensor, condition: Any, *, mode: Any = "values", temperature: float = 1.0) -> Sample:
            return forward(self, noise)

    return type("DotsModality", (DotsModality,), {"generator": lambda self: Broken()})


def discriminator_that(forward: Callable[[Any, Tensor], Any]) -> type[DotsModality]:
    class Broken(DotsDiscriminator):
        def forward(self, seen: Tensor, condition: Any, mask: Tensor | None = None) -> Verdict:
            return forward(self, seen)

    return type("DotsModality", (DotsModality,), {"discriminator": lambda self: Broken()})


def corpus_that(change: Callable[[Corpus], Corpus]) -> type[DotsModality]:
    def read(cls: Any, config: DotsConfig, request: Any) -> Corpus:
        return change(DotsModality.read(config, request))

    return type("DotsModality", (DotsModality,), {"read": classmethod(read)})


def method(name: str, function: Callable[..., Any]) -> type[DotsModality]:
    return type("DotsModality", (DotsModality,), {name: function})


def random_corpus(corpus: Corpus) -> Corpus:
    source = ArraySource(torch.randn(100, 2))
    return replace(corpus, splits=dict(corpus.splits) | {"train": source}, fingerprint=str(float(source.values.sum())))


def remembering(self: Any, noise: Tensor) -> Sample:
    self.calls = getattr(self, "calls", 0) + 1
    return Sample(self.layers(noise) + 0.01 * self.calls)


def with_batch_norm(self: Any, seen: Tensor) -> Verdict:
    return Verdict.of(self.layers((seen - seen.mean(0)) / (seen.std(0) + 0.1)).squeeze(1))


def score(self: Any, seen: Tensor) -> Tensor:
    scores: Tensor = self.layers(seen).squeeze(1)
    return scores


BREAKS: dict[str, tuple[type[DotsModality], str, str]] = {
    "random corpus": (corpus_that(random_corpus), "corpus_is_deterministic", "fingerprints"),
    "test is train": (
        corpus_that(lambda c: replace(c, splits=dict(c.splits) | {"test": c.splits["train"]})),
        "splits_are_disjoint",
        "100% of split test is also in train",
    ),
    "no validation split": (
        corpus_that(lambda c: replace(c, splits={"train": c.splits["train"], "test": c.splits["test"]})),
        "splits_are_disjoint",
        "splits are .*expected .*validation",
    ),
    "tensor among the facts": (
        corpus_that(lambda c: replace(c, facts={"scale": torch.ones(1)})),
        "facts_are_enough_to_sample",
        "JSON",
    ),
    "number as a key of facts": (corpus_that(lambda c: replace(c, facts={1: 2})), "facts_are_enough_to_sample", "text keys"),
    "data path ignored": (
        method("read", classmethod(lambda cls, config, request: DotsModality.read(config, replace(request, path=None)))),
        "unreadable_data_are_refused",
        "gave None; expected a DataError",
    ),
    "noise from the global state": (
        method("noise", lambda self, num_samples, generator, mode="values": torch.randn(num_samples, 3)),
        "noise_comes_from_its_generator",
        "global random state",
    ),
    "rows mixed": (
        generator_that(lambda self, noise: Sample(self.layers(noise - noise.mean(0)))),
        "generated_rows_are_independent",
        "row 0 changes with the noise of other rows",
    ),
    "noise ignored": (
        generator_that(lambda self, noise: Sample(self.layers(noise * 0))),
        "generated_rows_are_independent",
        "all noise gives one sample",
    ),
    "another half": (
        method("generator", lambda self: TwiceRendered()),
        "latents_make_the_samples",
        r"render\(latent\(noise\)\) is not forward\(noise\)",
    ),
    "samples of another shape": (
        generator_that(lambda self, noise: Sample(self.layers(noise).repeat(1, 2))),
        "generator_returns_samples",
        r"\(4,\), prepared real ones \(2,\)",
    ),
    "plain tensor": (
        generator_that(lambda self, noise: self.layers(noise)),
        "generator_returns_samples",
        r"returned a bare Tensor, expected a Sample \(advgen.Sample\); write: return Sample\(values\)",
    ),
    "detached": (
        generator_that(lambda self, noise: Sample(self.layers(noise).detach())),
        "gradient_reaches_the_generator",
        "reaches no generator parameter.*no detach",
    ),
    "half of the scores": (
        discriminator_that(lambda self, seen: Verdict.of(score(self, seen)[::2])),
        "verdicts_keep_the_contract",
        r"shape \(4,\) for head 0, expected \(8, \*positions\)",
    ),
    "samples mixed under penalties": (
        discriminator_that(with_batch_norm),
        "judged_rows_are_independent",
        "no BatchNorm",
    ),
    "infinite slope": (
        discriminator_that(lambda self, seen: Verdict.of(score(self, seen) + seen.square().sum(1).sqrt())),
        "penalties_can_be_differentiated",
        "an input of zeros is not finite; expected an epsilon",
    ),
    "state outside the state_dict": (generator_that(remembering), "resumes_exactly", "state_dict"),
    "files that are not there": (
        method("write", lambda self, batch, folder, start=0: [folder / "none.txt"]),
        "files_are_written",
        r"none\.txt, which is missing",
    ),
    "only the last samples": (
        method("write", lambda self, batch, folder, start=0: DotsModality.write(self, batch, folder)),
        "files_are_written",
        "spoilt dots.txt",
    ),
    "metric not a number": (
        method("metrics", lambda self, generated, held_out: {"spread": float("nan")}),
        "metrics_are_numbers",
        "metric spread of real samples is nan",
    ),
    "unexpected error": (
        generator_that(lambda self, noise: self.layers(noise[:, :1])),
        "trains_with[hinge]",
        "raised RuntimeError",
    ),
}


def install(modality: type[DotsModality], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a plugin's parts where its spec's strings look for them."""
    module: Any = ModuleType(MODULE)
    module.DotsConfig, module.DotsModality = DotsConfig, modality
    monkeypatch.setitem(sys.modules, MODULE, module)


def test_a_sound_plugin_passes_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    install(DotsModality, monkeypatch)
    passed = check_plugin(SPEC, skip=["entry_is_torch_free"])  # made up here, so it cannot be imported elsewhere
    assert len(passed) == len(conformance_checks(SPEC)) - 1


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_plugin_fails_the_check_that_names_the_break(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modality, name, message = BREAKS[broken]
    install(modality, monkeypatch)
    (check,) = [check for check in conformance_checks(SPEC) if check.name == name]
    with pytest.raises(ContractError, match=rf"(?s)plugin 'dots'.*{message}") as refusal:
        check()
    assert "expected" in str(refusal.value)


def test_an_invalid_preset_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(DotsModality, monkeypatch)
    spec = replace(SPEC, presets={"default": SPEC.presets["default"], "odd": {"trian": {"steps": 1}}})
    with pytest.raises(ContractError, match=r"(?s)plugin 'dots'.*trian.*preset odd"):
        check_plugin(spec, skip=["entry_is_torch_free"])


def test_an_entry_module_that_imports_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_dots.py").write_text(
        "import torch\nfrom advgen import PluginConfig, PluginSpec, hookimpl\nclass C(PluginConfig): pass\n"
        "@hookimpl\ndef advgen_register():\n"
        "    return PluginSpec(name='heavy', summary='', config='heavy_dots:C', modality='heavy_dots:M')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import heavy_dots  # type: ignore[import-not-found]

    (check,) = [check for check in conformance_checks(heavy_dots) if check.name == "entry_is_torch_free"]
    with pytest.raises(ContractError, match="module heavy_dots imports torch; expected heavy imports behind"):
        check()


def test_all_failures_are_listed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    install(method("metrics", lambda self, generated, held_out: 1 / 0), monkeypatch)
    with pytest.raises(ContractError, match="metrics_are_numbers") as refusal:
        check_plugin(SPEC)
    assert "entry_is_torch_free" in str(refusal.value)


def test_an_unknown_check_to_skip_is_refused() -> None:
    with pytest.raises(PluginError, match="did you mean 'resumes_exactly'"):
        conformance_checks("image", skip=["resume_exactly"])


CHECKS = {
    "read": "corpus_is_deterministic",
    "facts": "facts_are_enough_to_sample",
    "splits": "splits_are_disjoint",
    "fingerprint": "corpus_is_deterministic",
    "notes": "corpus_is_deterministic",
    "source": "batches_have_the_promised_form",
    "prepare": "prepared_samples_are_finite",
    "postprocess": "generator_returns_samples",
    "noise": "noise_comes_from_its_generator",
    "overview": "files_are_written",
    "write": "files_are_written",
    "logger": "loggers_take_a_row",
    "judge": "judge_gives_features",
    "metrics": "metrics_are_numbers",
    "attribute": "strings_resolve",
}
"""The check that names a planted fault, by the first word of the fault; all others are found by calls_keep_the_contract."""


@pytest.mark.parametrize("fault", [*CONTRACT, *LATER])
def test_a_fault_that_a_command_names_is_named_by_a_check_in_the_same_words(fault: str, tmp_path: Path) -> None:
    change, *_, code, message = (CONTRACT | LATER)[fault]
    path, kind = planted(tmp_path, change), fault.partition(":")[0]
    name = CHECKS.get(kind, "calls_keep_the_contract")
    if message.startswith(("takes (", "is a plain method", "lacks ")) and kind in ("read", "noise", "condition"):
        name = "strings_resolve"
    (check,) = [check for check in conformance_checks(str(path)) if check.name == name]
    where = rf"plugin 'dots': \S+ \(dots\.py:{line_of(path, code)}\)"
    with pytest.raises(ContractError, match=rf"(?s)^{where} {numberless(message)}.*\[{name}\]$"):
        check()


def numberless(message: str) -> str:
    """Return a pattern that matches the message with any counts: a check uses another number of samples."""
    return re.sub(r"\d+", r"\\d+", pattern(message))


@pytest.mark.parametrize("fault", RESOLVED)
def test_a_string_of_the_spec_that_names_something_else_is_named_by_a_check(fault: str, tmp_path: Path) -> None:
    change, message = RESOLVED[fault]
    name = "own_losses_and_penalties_train" if fault == "a penalty of the mean" else "strings_resolve"
    (check,) = [check for check in conformance_checks(str(planted(tmp_path, change))) if check.name == name]
    with pytest.raises(ContractError, match=rf"{pattern(message)}.*\[{name}\]$"):
        check()


SAMPLING = {
    "no such class": ("__plugin__:DotSampling", "names no attribute 'DotSampling'; did you mean 'DotsSampling'"),
    "no options": ("__plugin__:DotsJudge", "expected a sub-class of PluginConfig"),
}


@pytest.mark.parametrize("fault", SAMPLING)
def test_sampling_that_names_no_options_fails_the_check_of_strings(fault: str, tmp_path: Path) -> None:
    named, message = SAMPLING[fault]
    path = planted(tmp_path, ("__plugin__:DotsSampling", named))
    (check,) = [check for check in conformance_checks(str(path)) if check.name == "strings_resolve"]
    with pytest.raises(ContractError, match=rf"{message}.*strings_resolve"):
        check()


def test_sampling_options_without_a_default_are_named(tmp_path: Path) -> None:
    path = planted(tmp_path, ("    size: float = 1.0", "    size: float"))
    (check,) = [check for check in conformance_checks(str(path)) if check.name == "options_have_defaults"]
    with pytest.raises(ContractError, match="sampling options without a default: size; expected a default"):
        check()


def test_an_error_that_is_raised_in_a_check_is_told_with_its_line(tmp_path: Path) -> None:
    path = planted(tmp_path, ("        return DotsJudge()", "        raise ValueError('no such size')"))
    (check,) = [check for check in conformance_checks(str(path)) if check.name == "judge_gives_features"]
    where = rf"in plugin 'dots' \(dots.py:{line_of(path, 'raise ValueError')}, in judge\); expected: The judge"
    with pytest.raises(ContractError, match=rf"raised ValueError: no such size {where}"):
        check()


def test_a_loss_of_the_plugins_own_that_moves_nothing_is_named(tmp_path: Path) -> None:
    path = planted(tmp_path, ("    return -fake\n", "    return 0 * fake\n"), ('"auxiliary": {"size": 0.1, "level": 0.1},', ""))
    (check,) = [check for check in conformance_checks(str(path)) if check.name == "own_losses_and_penalties_train"]
    with pytest.raises(ContractError, match="the generator did not move in 2 steps of loss soft; expected weights that change"):
        check()
