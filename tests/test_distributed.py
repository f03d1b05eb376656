"""Two real ranks end where one process ends."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import advgen
from advgen.runs import checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from conftest import environment, tiny

EXACT = ["train.precision='float64'", "train.log_every=1"]
NO_NORM = ["options.generator_norm='none'"]
VOCODER = [
    "options.task=vocode",
    "options.vocoder_channels=16",
    "options.vocoder_blocks=1",
    "options.critics=small",
    "options.segment=1024",
    "penalties=none",
    "schedules=none",
]
FROZEN = "frozen.py"
"""The plugin of ``dots.py`` with parts that do not train, written for the test."""
# Every rank draws the same dropout, where one process has another for each sample.
WHOLE = "options.dropout=0.0"
SCORED = [WHOLE, "options.max_length=6", "phases=[{kind='critic', share=0.4}, {kind='adversarial', share=0.6}]"]
CASES = {
    "r1_r2_every_step": ("image", NO_NORM),
    "lazy_penalty": ("image", [*NO_NORM, "penalties.r1.interval=2", "penalties.r2.interval=2"]),
    "accumulation": ("image", [*NO_NORM, "train.accumulate=2"]),
    "relativistic_average": ("image", [*NO_NORM, "loss='relativistic_average'"]),
    "lecam": ("image", [*NO_NORM, "penalties.lecam.weight=0.3"]),
    "r3": ("image", ["options.family='r3'", "options.doublings=1", "options.blocks=1"]),
    "dragan": ("image", [*NO_NORM, "penalties={r1=false, r2=false, dragan={weight=1.0}}"]),
    "penalties_on_a_share": ("image", [*NO_NORM, "train.accumulate=2", "penalties.r1.share=0.25", "penalties.r2.share=0.375"]),
    "dragan_on_a_share": ("image", [*NO_NORM, "penalties={r1=false, r2=false, dragan={weight=1.0, share=0.125}}"]),
    "mismatch": ("image", [*NO_NORM, "discriminator.mismatch=1.0"]),
    "balance": ("audio", [*VOCODER, "balance={loss=1.0, mel=2.0, feature_matching=1.0}", "train.accumulate=2"]),
    "retrieval": (
        "audio",
        [
            *VOCODER,
            "options.vocoder=retrieval",
            "phases=[{kind='likelihood', share=0.4}, {kind='adversarial', share=0.6}]",
            "auxiliary={likelihood=1.0, mel=1.0}",
        ],
    ),
    "rollouts": ("text", [*SCORED, "estimator.rewards='rollout'", "estimator.rollouts=2", "train.accumulate=2"]),
    "importance": ("text", [*SCORED, "loss='nonsaturating'", "estimator.rewards='importance'"]),
    "ppo": (
        "text",
        [
            *SCORED,
            "estimator={name='ppo', epochs=2, reference_weight=0.1, real_share=0.25, entropy_floor=9.0, entropy_weight=0.01}",
            "train.accumulate=2",
        ],
    ),
    "mediator": (
        "text",
        [
            WHOLE,
            "penalties=none",
            "options.critic=mediator",
            "loss='cooperative'",
            "estimator={name='expectation', entropy_weight=1.0}",
        ],
    ),
    "frozen_parts": (FROZEN, []),
    "text": ("text", [WHOLE, "phases=[{kind='likelihood', share=0.4}, {kind='adversarial', share=0.6}]"]),
}

FREEZING = r"        self.layers[0].requires_grad_(False)\n"

STYLES = """
import os, pathlib, torch, advgen
from advgen_image.families.stylegan2 import StyleGenerator

seen, follow = [], StyleGenerator.follow

def followed(self, noise, condition):
    follow(self, noise, condition)
    seen.append(self.means.clone())

StyleGenerator.follow = followed
advgen.train("image", out={out!r}, overrides={overrides!r}, steps=3, progress=False, device="cpu")
StyleGenerator.follow = follow
torch.save(seen, pathlib.Path({out!r}) / f"means-{{os.environ.get('RANK', 'alone')}}.pt")
"""
STYLED = ["options.family=stylegan2", "options.doublings=1", "options.style_mixing=0.0"]


def ranks(root: Path, *program: str) -> None:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", *launcher, *program]
    done = subprocess.run(command, cwd=root, env=environment(root), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{done.stderr[:6000]}\n...\n{done.stderr[-3000:]}"


def assert_same(one: Path, two: Path, step: int) -> None:
    alone, _ = checkpoint.load(one / "checkpoints", step)
    together, _ = checkpoint.load(two / "checkpoints", step)
    for part in ("generator", "discriminator", "average"):
        for name, tensor in alone[part].items():
            difference = (together[part][name].double() - tensor.double()).abs().max().item() if tensor.numel() else 0.0
            assert difference < 1e-9, f"{part} {name} differs by {difference}"
            assert torch.isfinite(tensor.double()).all()
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    for expected, found in zip(*rows, strict=True):
        for name in [name for name in expected if name.partition("/")[2] not in ("", "non_finite")]:
            assert abs(expected[name] - found[name]) < 1e-9, f"step {expected['step']}: {name} is logged differently"


def assert_same_styles(one: Path, two: Path) -> None:
    """Ranks have the same mean styles; after the first update those of one process, later ones draw noise of their own."""
    alone, first, second = (torch.load(run / f"means-{name}.pt") for run, name in ((one, "alone"), (two, "0"), (two, "1")))
    assert len(first) == 3 and all(torch.equal(*each) for each in zip(first, second, strict=True))
    assert first[0].abs().max() > 0 and torch.allclose(first[0], alone[0], rtol=0, atol=1e-9)


@pytest.mark.slow
def test_two_ranks_end_with_the_weights_of_one_process(root: Path, tmp_path: Path) -> None:
    """All cases in one launch, because starting ranks costs more than training them."""
    lines = ["import advgen", ""]
    frozen = (tmp_path / FROZEN).resolve()
    text = (root / "tests" / "dots.py").read_text()
    frozen.write_text(re.sub(r"(self\.layers = .*\n)", r"\1" + FREEZING, text))
    for name, (plugin, more) in CASES.items():
        plugin, overrides = (str(frozen), EXACT) if plugin == FROZEN else (plugin, tiny(plugin, *EXACT, *more))
        advgen.train(plugin, out=tmp_path / "one" / name, overrides=overrides, steps=5, progress=False, device="cpu")
        target = str(tmp_path / "two" / name)
        lines += [f"advgen.train({plugin!r}, out={target!r}, overrides={overrides!r}, steps=5, progress=False, device='cpu')"]
    styles = tiny("image", *EXACT, *STYLED)
    exec(STYLES.format(out=str(tmp_path / "one" / "styles"), overrides=styles), {})
    lines += STYLES.format(out=str(tmp_path / "two" / "styles"), overrides=styles).splitlines()
    # Under load the backend's threads now and then abort a rank while its interpreter ends; the command ends before that.
    lines += ["import os, sys", "sys.stdout.flush()", "sys.stderr.flush()", "os._exit(0)"]
    script = tmp_path / "ranks.py"
    script.write_text("\n".join(lines))
    ranks(root, str(script))
    for name in CASES:
        assert_same(tmp_path / "one" / name, tmp_path / "two" / name, 5)
    assert_same_styles(tmp_path / "one" / "styles", tmp_path / "two" / "styles")


def test_a_run_of_two_ranks_is_resumed_by_one(root: Path, tmp_path: Path) -> None:
    overrides = tiny("image", *EXACT, *NO_NORM)
    advgen.train("image", out=tmp_path / "one", overrides=overrides, steps=4, progress=False, device="cpu")
    given = [word for override in overrides for word in ("--set", override)]
    plan = ["--steps", "4", "--stop-after", "2", "--device", "cpu", "--out", str(tmp_path / "two")]
    ranks(root, "-m", "advgen", "train", "--plugin", "image", *given, *plan)
    assert advgen.resume(tmp_path / "two", progress=False, device="cpu").step == 4
    assert_same(tmp_path / "one", tmp_path / "two", 4)


@pytest.mark.parametrize("batch", [7])
def test_a_batch_that_cannot_be_cut_is_refused(batch: int, tmp_path: Path) -> None:
    with pytest.raises(advgen.ConfigError, match="nearest: 6"):
        overrides = tiny("image", f"train.batch_size={batch}", "train.accumulate=2")
        advgen.train("image", out=tmp_path / "run", overrides=overrides, steps=1, progress=False, device="cpu")
