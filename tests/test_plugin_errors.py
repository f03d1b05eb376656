"""Each mistake of a plugin's author ends in one line: the plugin, what came, what was expected, and the line of its file."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import advgen
from advgen.cli import main
from advgen.losses import LOSSES
from advgen.registry import find_plugin
from advgen.tables import losses_of

DOTS = (Path(__file__).parent / "dots.py").read_text()

TRAIN = ("train", "--plugin", "{plugin}", "--out", "{run}", "--device", "cpu")
SAMPLE = ("sample", "{run}", "--plugin", "{copy}", "-n", "3", "--device", "cpu")
EVALUATE = ("evaluate", "{run}", "--plugin", "{copy}", "-n", "20", "--device", "cpu")
SHOW = ("plugins", "show", "{plugin}")

Told = tuple[int, str, str]


def planted(folder: Path, *changes: tuple[str, str]) -> Path:
    """Write the plugin with changes, each of which is found once."""
    text = DOTS
    for before, after in changes:
        assert text.count(before) == 1, f"{before!r} stands {text.count(before)} times in the plugin"
        text = text.replace(before, after)
    path = folder / "dots.py"
    path.write_text(text)
    return path


def line_of(path: Path, code: str) -> int:
    """Return the number of the first line that holds a text."""
    return 1 + next(number for number, line in enumerate(path.read_text().splitlines()) if code in line)


@dataclass(frozen=True)
class Gen:
    """``gen`` in this process, over files of one test's folder."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, *changes: tuple[str, str]) -> Path:
        """Write the plugin with changes."""
        return planted(self.folder, *changes)

    def __call__(self, *arguments: str) -> Told:
        """Exit code, standard error and standard output."""
        self.capsys.readouterr()
        run, names = self.folder / "run", {"plugin": self.folder / "dots.py"}
        names |= {"run": run, "copy": run / "plugin" / "dots.py"}
        with pytest.raises(SystemExit) as ended:
            main([argument.format(**names) for argument in arguments])
        out, err = self.capsys.readouterr()
        return int(ended.value.code or 0), err, out

    def line_of(self, code: str) -> int:
        """Return the number of the first line that holds a text."""
        return line_of(self.folder / "dots.py", code)


@pytest.fixture
def gen(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Gen:
    monkeypatch.chdir(tmp_path)
    return Gen(tmp_path, capsys)


def one_line(err: str) -> str:
    """Return the refusal; only progress may be printed before it."""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and err.rstrip().splitlines()[-1] == lines[0], err
    return lines[0]


def test_the_plugin_itself_trains_samples_and_is_judged(gen: Gen) -> None:
    gen.write()
    for command in (TRAIN, SAMPLE, (*SAMPLE, "--size", "2"), EVALUATE):
        code, err, _ = gen(*command)
        assert code == 0, err


Change = tuple[str, str]

READ = '        return Corpus({"scale": 1.0}, splits, "dots")'
FORWARD = "        return Sample(self.layers(noise))"
NOISE = "        return torch.randn(num_samples, 3, generator=generator)"
JUDGED = "        return Verdict.of(self.layers(seen).squeeze(1))"

# What is changed, the code whose line is named, and the message after "dots.py:LINE) ".
CONTRACT: dict[str, tuple[Change, str, str]] = {
    "read: tuple": (
        (READ, "        return splits, {}"),
        "def read(",
        "returned tuple, expected a Corpus (advgen.Corpus)",
    ),
    "read: nothing": ((READ, "        pass"), "def read(", "returned None, expected a Corpus (advgen.Corpus)"),
    "read: dict": ((READ, "        return splits"), "def read(", "returned dict, expected a Corpus (advgen.Corpus)"),
    "facts: tensor": (
        ('{"scale": 1.0}', '{"scale": points.max()}'),
        "def read(",
        "returned a Corpus whose facts['scale'] is a Tensor, expected strings, finite numbers, … saved as JSON",
    ),
    "facts: numpy": (
        ('{"scale": 1.0}', '{"sizes": [1, points.numpy().astype("int64")[0, 0, 0]]}'),
        "def read(",
        "returned a Corpus whose facts['sizes'][1] is a numpy.int64, expected",
    ),
    "facts: set": (
        ('{"scale": 1.0}', '{"a": {"b": {1}}}'),
        "def read(",
        "returned a Corpus whose facts['a']['b'] is a set, expected",
    ),
    "facts: NaN": (
        ('{"scale": 1.0}', '{"scale": float("nan")}'),
        "def read(",
        "returned a Corpus whose facts['scale'] is nan, expected",
    ),
    "facts: number as key": (
        ('{"scale": 1.0}', "{7: 1.0}"),
        "def read(",
        "returned a Corpus whose facts has the key 7, expected text keys",
    ),
    "facts: list": (('{"scale": 1.0}', "[1.0]"), "def read(", "returned a Corpus whose facts are list, expected a mapping"),
    "splits: none for validation": (
        ('("train", "validation", "test")', '("train", "test")'),
        "def read(",
        "returned a Corpus whose splits are train, test, expected train, validation, test; validation must not be left out",
    ),
    "splits: tensor": (
        ("DotsSource(points[index])", "points[index]"),
        "def read(",
        "returned a Corpus whose splits['train'] is Tensor, expected a Source (advgen.Source) with batch(indices, generator)",
    ),
    "fingerprint: none": (('"dots")', "None)"), "def read(", "returned a Corpus whose fingerprint is None, expected a text"),
    "notes: text": (
        ('"dots")', '"dots", (), "a note")'),
        "def read(",
        "returned a Corpus whose notes are 'a note', expected a tuple of texts",
    ),
    "source: without a generator": (
        ("def batch(self, indices, generator)", "def batch(self, indices)"),
        "def read(",
        "returned a Corpus whose splits['train'] is a DotsSource whose batch takes (indices), expected (indices, generator)",
    ),
    "source: tensor": (
        ("return Batch(self.points[indices])", "return self.points[indices]"),
        "def batch(",
        "returned Tensor, expected a Batch (advgen.Batch)",
    ),
    "source: all rows": (
        ("return Batch(self.points[indices])", "return Batch(self.points)"),
        "def batch(",
        "returned a Batch whose values are float32 (40, 2), expected (3, ...): one row per sample",
    ),
    "source: mask of floats": (
        ("return Batch(self.points[indices])", "return Batch(self.points[indices], self.points[indices])"),
        "def batch(",
        "returned a Batch whose mask is float32 (3, 2), expected bool (3, ...)",
    ),
    "source: condition of one row": (
        ("return Batch(self.points[indices])", 'return Batch(self.points[indices], None, {"label": torch.zeros(1)})'),
        "def batch(",
        "returned a Batch whose condition is a mapping whose 'label' is float32 (1,), expected (3, ...)",
    ),
    "read: without a request": (
        ("def read(cls, config, request)", "def read(cls, config)"),
        "def read(",
        "takes (config), expected (config, request)",
    ),
    "read: no classmethod": (
        ("    @classmethod\n    def read(cls, config", "    def read(self, config"),
        "def read(",
        "is a plain method, expected a @classmethod read(config, request)",
    ),
    "noise: without a generator": (
        ('def noise(self, num_samples, generator, *, mode="values")', "def noise(self, n)"),
        "def noise(",
        "takes (n), expected (num_samples, generator, *, mode='values')",
    ),
    "noise: without a mode": (
        ('def noise(self, num_samples, generator, *, mode="values")', "def noise(self, num_samples, generator)"),
        "def noise(",
        "takes (num_samples, generator), expected (num_samples, generator, *, mode='values')",
    ),
    "noise: numpy": ((NOISE, NOISE + ".numpy()"), "def noise(", "returned numpy.ndarray, expected a tensor (5, ...)"),
    "noise: one row": (
        (NOISE, NOISE + "[:1]"),
        "def noise(",
        "returned float32 (1, 3), expected (5, ...): one row per sample",
    ),
    "noise: missing": (
        ('    def noise(self, num_samples, generator, *, mode="values"):\n' + NOISE + "\n", ""),
        "class DotsModality",
        "lacks noise, expected noise(num_samples, generator, *, mode='values') as in advgen.Modality",
    ),
    "generator: tensor": (
        (FORWARD, "        return self.layers(noise)"),
        "def forward(self, noise",
        "returned a bare Tensor, expected a Sample (advgen.Sample); write: return Sample(values)",
    ),
    "generator: nothing": (
        (FORWARD, "        self.layers(noise)"),
        "def forward(self, noise",
        "returned None, expected a Sample (advgen.Sample)",
    ),
    "generator: one sample": (
        (FORWARD, "        return Sample(self.layers(noise)[0])"),
        "def forward(self, noise",
        "returned a Sample whose values are float32 (2,), expected (5, ...): one row per sample",
    ),
    "generator: mask of numbers": (
        (FORWARD, "        return Sample(self.layers(noise), mask=torch.ones(len(noise)))"),
        "def forward(self, noise",
        "returned a Sample whose mask is float32 (5,), expected bool (5, ...)",
    ),
    "generator: without a condition": (
        ('def forward(self, noise, condition, *, mode="values", temperature=1.0)', "def forward(self, noise)"),
        "def forward(self, noise",
        "takes (noise), expected (noise, condition, *, mode='values', temperature=1.0)",
    ),
    "generator: missing forward": (
        ('    def forward(self, noise, condition, *, mode="values", temperature=1.0):\n' + FORWARD + "\n", ""),
        "class DotsGenerator",
        "lacks forward, expected forward(noise, condition, *, mode='values', temperature=1.0) as in advgen.Generator",
    ),
    "generator(): forgotten return": (
        ("        return DotsGenerator(self.config.width)", "        DotsGenerator(self.config.width)"),
        "def generator(",
        "returned None, expected a Generator (advgen.Generator)",
    ),
    "generator(): the class": (
        ("return DotsGenerator(self.config.width)", "return DotsGenerator"),
        "def generator(",
        "returned the class DotsGenerator, expected a Generator",
    ),
    "generator(): plain module": (
        ("return DotsGenerator(self.config.width)", "return nn.Linear(3, 2)"),
        "def generator(",
        "returned Linear, expected a Generator (advgen.Generator)",
    ),
    "generator: frozen whole": (
        ("return DotsGenerator(self.config.width)", "return DotsGenerator(self.config.width).requires_grad_(False)"),
        "class DotsGenerator",
        "has no parameter that trains, expected at least one with requires_grad",
    ),
    "generator: lazy layer": (
        ("nn.Sequential(nn.Linear(3, width)", "nn.Sequential(nn.LazyLinear(width)"),
        "class DotsGenerator",
        "has the parameter layers.0.weight without a shape, expected one; give all sizes in place of a Lazy layer",
    ),
    "generator: starts with NaN": (
        (
            "        self.layers = nn.Sequential(nn.Linear(3, width)",
            "        self.odd = nn.Parameter(torch.full((2,), torch.nan))\n"
            "        self.layers = nn.Sequential(nn.Linear(3, width)",
        ),
        "class DotsGenerator",
        "starts with the parameter odd that is not finite, expected finite numbers",
    ),
    "generator: buffer made late": (
        (FORWARD, '        self.register_buffer("late", torch.zeros(1))\n' + FORWARD),
        "class DotsGenerator",
        "made or dropped late when it was called; make all parameters and buffers with the network",
    ),
    "discriminator(): a generator": (
        ("return DotsDiscriminator(self.config.width)", "return DotsGenerator(self.config.width)"),
        "def discriminator(",
        "returned DotsGenerator, expected a Discriminator (advgen.Discriminator)",
    ),
    "discriminator: tensor": (
        (JUDGED, "        return self.layers(seen).squeeze(1)"),
        "def forward(self, seen",
        "returned a bare Tensor, expected a Verdict (advgen.Verdict) …; write: return Verdict.of(scores)",
    ),
    "discriminator: half of the scores": (
        (JUDGED, "        return Verdict.of(self.layers(seen).squeeze(1)[::2])"),
        "def forward(self, seen",
        "returned scores of shape (3,) for head 0, expected (5, *positions)",
    ),
    "discriminator: no heads": (
        (JUDGED, "        return Verdict(())"),
        "def forward(self, seen",
        "returned a Verdict without heads, expected a Verdict with at least one head",
    ),
    "discriminator: list of scores": (
        (JUDGED, "        return Verdict.of(self.layers(seen).squeeze(1).tolist())"),
        "def forward(self, seen",
        "returned list as scores of head 0, expected a Head with scores (B, *positions)",
    ),
    "discriminator: without a mask": (
        ("def forward(self, seen, condition, mask=None)", "def forward(self, seen, condition)"),
        "def forward(self, seen",
        "takes (seen, condition), expected (seen, condition, mask=None)",
    ),
    "embed: whole numbers": (
        ("        return sample.values\n", "        return sample.values.long()\n"),
        "def embed(",
        "returned int64 (5, 2), expected floats, which penalties can differentiate",
    ),
    "embed: nothing": (
        ("        return sample.values\n", "        pass\n"),
        "def embed(",
        "returned None, expected a tensor (5, ...)",
    ),
    "prepare: tensor": (
        ("return Batch(batch.values * 1.0)", "return batch.values * 1.0"),
        "def prepare(",
        "returned Tensor, expected a Batch (advgen.Batch)",
    ),
    "prepare: fewer rows": (
        ("return Batch(batch.values * 1.0)", "return Batch(batch.values[1:])"),
        "def prepare(",
        "returned a Batch whose values are float32 (4, 2), expected (5, ...)",
    ),
    "postprocess: sample": (
        ("return Batch(sample.values)", "return sample"),
        "def postprocess(",
        "returned Sample, expected a Batch (advgen.Batch)",
    ),
    "condition: nothing": (
        ("        return {}\n", "        pass\n"),
        "def condition(",
        "returned None, expected a mapping of names to tensors (5, ...)",
    ),
    "condition: without a label": (
        ("def condition(self, num_samples, generator, *, label=None)", "def condition(self, num_samples, generator)"),
        "def condition(",
        "takes (num_samples, generator), expected (num_samples, generator, *, label=None)",
    ),
    "auxiliary: number": (
        ("fake.values.square().mean()).abs()}", "fake.values.square().mean()).abs().item()}"),
        "def auxiliary(",
        "returned a mapping whose 'size' is float, expected a scalar tensor",
    ),
    "auxiliary: cost per sample": (
        ("(real.values.square().mean() - fake.values.square().mean()).abs()}", "fake.values.square().sum(1)}"),
        "def auxiliary(",
        "returned a mapping whose 'size' is float32 (5,), expected a scalar, such as its mean",
    ),
    "auxiliary: call that returns a number": (
        ("(real.values.square().mean() - fake.values.square().mean()).abs()}", "lambda: 0.5}"),
        "class DotsModality",
        "makes the cost auxiliary.size that is float, expected a scalar tensor",
    ),
    "verdict_auxiliary: tensor": (
        ('return {"level": fake.heads[0].scores.mean()}', "return fake.heads[0].scores.mean()"),
        "def verdict_auxiliary(",
        "returned Tensor, expected a mapping of names to scalar tensors",
    ),
    "overview: text": (
        ("        return [path]\n\n\ndef soft", "        return str(path)\n\n\ndef soft"),
        "def overview(",
        "returned str, expected a list of the files that it made (pathlib.Path)",
    ),
    "overview: missing file": (
        ("        path.write_text(str(len(batch)))\n", ""),
        "def overview(",
        "returned the path ….txt, which is missing, expected files that it made",
    ),
    "attribute: text for a number": (
        ("    one_file = True", '    one_file = True\n    sample_block = "64"'),
        "class DotsModality",
        "has sample_block = '64', a str, expected a int",
    ),
    "logger: without a row": (
        ("def log(self, step, row)", "def log(self, step)"),
        "class DotsLogger",
        "made a DotsLogger whose log takes (step), expected (step, row)",
    ),
}

AT_THE_END = ("overview", "logger")  # called once the run has begun


@pytest.mark.parametrize("fault", CONTRACT)
def test_a_broken_contract_is_told_before_training_in_one_line(fault: str, gen: Gen) -> None:
    change, code, message = CONTRACT[fault]
    gen.write(change)
    exit_code, err, _ = gen(*TRAIN)
    line = one_line(err)
    assert exit_code == 3, err
    assert re.search(rf"plugin 'dots': \w+(\.\w+)? \(dots\.py:{gen.line_of(code)}\) {pattern(message)}", line), line
    assert (gen.folder / "run" / "checkpoints").exists() == fault.startswith("overview")


def pattern(message: str) -> str:
    """Turn a message into a regular expression; an ellipsis stands for any words."""
    return re.escape(message).replace("…", ".*")


LATER: dict[str, tuple[Change, tuple[str, ...], str, str]] = {
    "write: nothing": (
        ("        return [path]\n\n    def overview", "\n    def overview"),
        SAMPLE,
        "def write(",
        "returned None, expected a list of the files that it made (pathlib.Path)",
    ),
    "write: texts": (
        ("        return [path]\n\n    def overview", "        return [str(path)]\n\n    def overview"),
        SAMPLE,
        "def write(",
        "returned a list with '…dots.txt', which is a str, expected pathlib.Path",
    ),
    "judge: the class": (
        ("return DotsJudge()", "return DotsJudge"),
        EVALUATE,
        "def judge(",
        "returned the class DotsJudge, expected a Judge (advgen.Judge) with features(batch)",
    ),
    "judge: cannot classify": (
        ("    def classify(self, batch):\n        return None\n", ""),
        EVALUATE,
        "def judge(",
        "returned DotsJudge, expected a Judge (advgen.Judge) with classify(batch)",
    ),
    "judge: numpy": (
        (
            "    def features(self, batch):\n        return batch.values",
            "    def features(self, batch):\n        return batch.values.numpy()",
        ),
        EVALUATE,
        "def features(",
        "returned numpy.ndarray, expected a tensor (40, F)",
    ),
    "judge: labels as floats": (
        (
            "    def classify(self, batch):\n        return None",
            "    def classify(self, batch):\n        return batch.values[:, 0]",
        ),
        EVALUATE,
        "def classify(",
        "returned float32 (40,), expected int64 (40,), a class per sample, or None",
    ),
    "metrics: list": (
        ('return {"size": float(generated.values.square().mean())}', "return [generated.values.mean()]"),
        EVALUATE,
        "def metrics(",
        "returned list, expected a mapping of names to numbers",
    ),
    "metrics: tensor per sample": (
        ('return {"size": float(generated.values.square().mean())}', 'return {"size": generated.values}'),
        EVALUATE,
        "def metrics(",
        "returned a mapping whose 'size' is Tensor, expected a number",
    ),
}


@pytest.mark.parametrize("fault", LATER)
def test_a_broken_contract_of_a_later_command_is_told_when_it_is_met(fault: str, gen: Gen) -> None:
    change, command, code, message = LATER[fault]
    gen.write(change)
    assert gen(*TRAIN)[0] == 0
    exit_code, err, _ = gen(*command)
    line = one_line(err)
    assert exit_code == 3, err
    assert re.search(rf"plugin 'dots': \w+\.\w+ \(dots\.py:{gen.line_of(code)}\) {pattern(message)}", line), line


# The function that an error is planted in, and the command that meets it.
RAISING: dict[str, tuple[str, tuple[str, ...]]] = {
    "read": ("def read(cls, config, request):", TRAIN),
    "source": ("def batch(self, indices, generator):", TRAIN),
    "length": ("def __len__(self):", TRAIN),
    "making the generator": ("def generator(self):", TRAIN),
    "the generator": ('def forward(self, noise, condition, *, mode="values", temperature=1.0):', TRAIN),
    "making the discriminator": ("def discriminator(self):", TRAIN),
    "the discriminator": ("def forward(self, seen, condition, mask=None):", TRAIN),
    "embed": ("def embed(self, sample):", TRAIN),
    "noise": ('def noise(self, num_samples, generator, *, mode="values"):', TRAIN),
    "prepare": ("def prepare(self, batch):", TRAIN),
    "postprocess": ("def postprocess(self, sample, condition):", TRAIN),
    "condition": ("def condition(self, num_samples, generator, *, label=None):", SAMPLE),
    "auxiliary": ("def auxiliary(self, real, fake):", TRAIN),
    "verdict_auxiliary": ("def verdict_auxiliary(self, real, fake):", TRAIN),
    "overview": ("def overview(self, batch, stem):", TRAIN),
    "loss": ("def soft_generator(*, real, fake):", TRAIN),
    "penalty": ("def flat(*, judge_real, judge_fake, real, fake, weight, noise):", TRAIN),
    "making a logger": ("def __init__(self, folder):", TRAIN),
    "logger": ("def log(self, step, row):", TRAIN),
    "write": ("def write(self, batch, folder, *, start=0):", SAMPLE),
    "use_sampling": ("def use_sampling(self, options, num_samples):", (*SAMPLE, "--size", "2")),
    "judge": ("def judge(self, corpus, cache):", EVALUATE),
    "features": ("def features(self, batch):", EVALUATE),
    "classify": ("def classify(self, batch):", EVALUATE),
    "metrics": ("def metrics(self, generated, held_out):", EVALUATE),
}


@pytest.mark.parametrize("method", RAISING)
def test_an_error_of_a_plugin_is_told_with_the_plugin_the_line_and_the_function(method: str, gen: Gen) -> None:
    code, command = RAISING[method]
    indent = " " * (4 if f"\n{code}" in DOTS else 8)
    gen.write((code, f"{code}\n{indent}raise ValueError('no\\nsuch size')"))
    told = gen(*TRAIN)
    if told[0] == 0 and command != TRAIN:
        told = gen(*command)
    name, line = code.partition("(")[0].removeprefix("def "), gen.line_of("raise ValueError")
    where = f"unexpected ValueError in plugin 'dots' (dots.py:{line}, in {name}): no such size; ADVGEN_DEBUG=1 shows the trace"
    assert one_line(told[1]) == f"error: {where}" and told[0] == 1


def test_a_metric_that_fails_costs_its_own_row_alone_and_names_its_line(gen: Gen) -> None:
    gen.write(("def distance(*, generated, real):", "def distance(*, generated, real):\n    raise ValueError('no such size')"))
    assert gen(*TRAIN)[0] == 0
    code, _, out = gen(*EVALUATE)
    assert code == 0 and f"dots.distance (ValueError: no such size (dots.py:{gen.line_of('raise ValueError')}))" in out


def test_an_error_in_a_library_that_a_plugin_calls_is_told_with_the_plugins_line(gen: Gen) -> None:
    gen.write((NOISE, NOISE + ".repeat(1, 2)"))
    code, err, _ = gen(*TRAIN)
    line = gen.line_of("return Sample(self.layers")
    assert code == 1 and f"unexpected RuntimeError in plugin 'dots' (dots.py:{line}, in forward): mat1 and mat2" in one_line(
        err
    )


def test_an_error_in_the_core_is_told_with_its_own_line(gen: Gen, monkeypatch: pytest.MonkeyPatch) -> None:
    gen.write()
    monkeypatch.setattr("advgen.training.checkpoint.save", lambda *arguments: {}["no such part"])  # type: ignore[index]
    code, err, _ = gen(*TRAIN)
    assert code == 1
    assert re.search(
        r"unexpected KeyError in advgen \(advgen/training\.py:\d+, in save\): 'no such part'; ADVGEN", one_line(err)
    )


def test_an_error_from_python_is_raised_as_it_is_with_a_note(gen: Gen) -> None:
    path = gen.write((NOISE, NOISE + ".repeat(1, 2)"))
    with pytest.raises(RuntimeError, match="mat1 and mat2") as raised:
        advgen.train(str(path), out=gen.folder / "run", device="cpu", progress=False)
    line = gen.line_of("return Sample(self.layers")
    assert raised.value.__notes__ == [f"in plugin 'dots' (dots.py:{line}, in forward)"]


SPEC = '        name="dots",'

BROKEN: dict[str, tuple[Change, str]] = {
    "a syntax error": (
        ("class DotsConfig(PluginConfig):", "class DotsConfig(PluginConfig)"),
        "SyntaxError: expected ':' (dots.py:{class DotsConfig})",
    ),
    "a missing module": (
        ("from torch import nn", "import no_such_library"),
        "ModuleNotFoundError: No module named 'no_such_library' (dots.py:{import no_such})",
    ),
    "an error at the top": (
        ("SIDES = (", "WIDTH = 1 / 0\nSIDES = ("),
        "ZeroDivisionError: division by zero (dots.py:{WIDTH = 1})",
    ),
    "a table instead of a spec": (
        ("return PluginSpec(\n        name", "return dict(\n        name"),
        "advgen_register() returned dict, expected a PluginSpec (dots.py:{def advgen_register})",
    ),
    "an unknown field": ((SPEC, '        nmae="dots",'), "unexpected keyword argument 'nmae' (dots.py:{return PluginSpec})"),
    "a number for a name": ((SPEC, "        name=3,"), "spec.name is 3, expected a string"),
    "no name": ((SPEC, '        name="",'), "spec.name is '', expected a name for --plugin"),
    "options without a module": (
        ('config="__plugin__:DotsConfig"', 'config="DotsConfig"'),
        "spec.config is 'DotsConfig', expected 'module:attribute'",
    ),
    "sampling without a module": (
        ('sampling="__plugin__:DotsSampling"', 'sampling="DotsSampling"'),
        "spec.sampling is 'DotsSampling', expected 'module:attribute'",
    ),
    "the class of a loss": (
        ('losses={"soft": "__plugin__:SOFT"}', 'losses={"soft": SOFT}'),
        "spec.losses.soft is Loss(",
    ),
    "a list of losses": (
        ('losses={"soft": "__plugin__:SOFT"}', 'losses=["soft"]'),
        "spec.losses is ['soft'], expected a mapping",
    ),
    "a number as a preset": (
        ('            "default": {', '            "small": 3,\n            "default": {'),
        "spec.presets.small is 3, expected a mapping",
    ),
    "nothing to read": ((SPEC, SPEC + " reads=None,"), "spec.reads is None, expected a tuple of patterns such as '*.png'"),
    "one pattern": ((SPEC, SPEC + ' reads="*.csv",'), "spec.reads is '*.csv', expected a tuple of patterns such as '*.png'"),
    "a path as a data set": (
        (SPEC, SPEC + ' datasets={"ring": "ring.csv"},'),
        "spec.datasets.ring is 'ring.csv', expected a DataSet",
    ),
    "a text for a switch": ((SPEC, SPEC + ' reads_zip="yes",'), "spec.reads_zip is 'yes', expected true or false"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_file_that_is_no_plugin_is_broken_with_its_reason(fault: str, gen: Gen) -> None:
    change, reason = BROKEN[fault]
    gen.write(change)
    if code := re.search(r"\{(.*)\}", reason):
        reason = reason.replace(code[0], str(gen.line_of(code[1])))
    for command in (TRAIN, SHOW):
        exit_code, err, _ = gen(*command)
        line = one_line(err)
        assert exit_code == 3 and f"plugin 'dots' of {gen.folder / 'dots.py'} is broken: " in line and reason in line, line


RESOLVED: dict[str, tuple[Change, str]] = {
    "no such class": (
        ('modality="__plugin__:DotsModality"', 'modality="__plugin__:DotModality"'),
        "names no attribute 'DotModality'; did you mean 'DotsModality'",
    ),
    "a modality that is none": (
        ('modality="__plugin__:DotsModality"', 'modality="__plugin__:DotsJudge"'),
        "plugin 'dots': '…:DotsJudge' is the class DotsJudge, expected a sub-class of advgen.Modality",
    ),
    "options that are none": (
        ('config="__plugin__:DotsConfig"', 'config="__plugin__:DotsJudge"'),
        "plugin 'dots': '…:DotsJudge' is …DotsJudge…, expected a sub-class of PluginConfig",
    ),
    "a loss that is none": (
        ('losses={"soft": "__plugin__:SOFT"}', 'losses={"soft": "__plugin__:FLAT"}'),
        "plugin 'dots': losses.soft, '…:FLAT', is Penalty, expected an advgen.Loss",
    ),
    "a loss of the core's name": (
        ('losses={"soft": "__plugin__:SOFT"}', 'losses={"soft": "__plugin__:SOFT", "hinge": "__plugin__:SOFT"}'),
        "plugin 'dots': losses.hinge, '…:SOFT', has the name of a loss of the core, which is taken; rename it",
    ),
    "a penalty of a controller's name": (
        ('penalties={"flat": "__plugin__:FLAT"}', 'penalties={"flat": "__plugin__:FLAT", "lecam": "__plugin__:FLAT"}'),
        "plugin 'dots': penalties.lecam, '…:FLAT', has the name of a penalty of the core, which is taken; rename it",
    ),
    "a loss of places": (
        ("def soft_generator(*, real, fake):", "def soft_generator(scores):"),
        "plugin 'dots': loss 'soft': generator (dots.py:…) takes (scores), expected (*, real, fake)",
    ),
    "a loss of the mean": (
        ("    return -fake\n", "    return -fake.mean()\n"),
        "plugin 'dots': loss 'soft': generator (dots.py:…) returned float32 (), expected floats (2, 3) …: one cost per score",
    ),
    "a penalty without a weight": (
        (
            "def flat(*, judge_real, judge_fake, real, fake, weight, noise):\n    return weight * ",
            "def flat(*, judge_real, judge_fake, real, fake):\n    return ",
        ),
        "plugin 'dots': penalty 'flat': compute (dots.py:…) takes (*, judge_real, judge_fake, real, fake), expected (…noise)",
    ),
    "a penalty of the mean": (
        (
            "    return weight * judge_real(real).heads[0].scores.square()\n",
            "    return weight * judge_real(real).heads[0].scores.square().mean()\n",
        ),
        "plugin 'dots': penalty 'flat' (dots.py:…) returned float32 (), expected floats (8,): one number per sample",
    ),
}


@pytest.mark.parametrize("fault", RESOLVED)
def test_a_string_of_the_spec_that_names_something_else_is_told(fault: str, gen: Gen) -> None:
    change, message = RESOLVED[fault]
    gen.write(change)
    exit_code, err, _ = gen(*TRAIN)
    line = one_line(err)
    assert exit_code == 3 and re.search(pattern(message), line), line


def test_a_changed_file_takes_the_place_of_its_older_self_with_all_that_it_brings(gen: Gen) -> None:
    costs = []
    for size in ("1", "2", "1"):
        path = gen.write(("    return -fake\n", f"    return -{size} * fake\n"))
        found = advgen.train(str(path), out=gen.folder / f"run-{len(costs)}", device="cpu", progress=False)
        rows = [json.loads(line) for line in (found.folder / "metrics.jsonl").read_text().splitlines()]
        costs.append(rows[0]["generator/loss"] / rows[0]["discriminator/fake_score"])
    assert costs[0] == costs[2] and costs[1] / costs[0] > 1.5


def test_what_one_plugin_brings_is_unknown_to_another_and_may_share_its_names(gen: Gen) -> None:
    gen.write()
    assert gen(*TRAIN, "--stop-after", "1")[0] == 0
    code, err, _ = gen("train", "--plugin", "image", "--set", "loss=soft", "--device", "cpu")
    known = ", ".join(sorted(LOSSES))
    assert code == 2 and one_line(err) == f"error: loss 'soft' is unknown; known: {known}"
    code, err, _ = gen("train", "--plugin", "image", "--set", "penalties.flat.weight=1", "--device", "cpu")
    assert code == 2 and "penalty 'flat' is unknown; known: dragan, lecam, path_length, r1, r2, wgan_gp" in one_line(err)
    other = gen.write((SPEC, SPEC.replace("dots", "rings")), ("    return -fake\n", "    return -3 * fake\n"))
    table = losses_of(find_plugin(str(other)))
    assert table["soft"].generator(real=torch.zeros(1), fake=torch.ones(1)).item() == -3
    assert set(table) == {*LOSSES, "soft"} and "soft" not in LOSSES
