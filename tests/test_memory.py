"""Memory does not grow with steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from conftest import environment

STEPS = (2_000, 10_000)
MOST_GROWTH_MB = 8.0
SCRIPT = """
import gc, json, resource, sys
import torch
import advgen
from advgen import training
torch.set_num_threads(1)
marks, original = {{}}, training.train_step

def resident_mb():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

def watched(players, objective, draw, step, progress):
    if step + 1 in {steps}:
        marks[step + 1] = resident_mb()
    return original(players, objective, draw, step, progress)

training.train_step = watched
overrides = ["train.batch_size=16", "train.log_every=10", "train.sample_every=500", "train.checkpoint_every=500"]
overrides += ["generator.clip={{kind='quantile', limit=0.9}}", "train.evaluate_every=1000"]
advgen.train({plugin!r}, out={out!r}, overrides=overrides, steps={last}, device="cpu", progress=False)
print(json.dumps(marks))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_ten_thousand_steps_take_no_more_memory_than_two_thousand(root: Path, tmp_path: Path) -> None:
    """A tiny run that logs, saves, draws samples and validates all along."""
    page = (root / "docs" / "writing-a-plugin.md").read_text(encoding="utf-8")
    plugin = tmp_path / "my_plugin.py"
    plugin.write_text(page.split("```python\n")[1].split("```")[0], encoding="utf-8")
    script = SCRIPT.format(plugin=str(plugin), out=str(tmp_path / "run"), steps=STEPS, last=STEPS[-1])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment(root), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    early, late = (json.loads(done.stdout.splitlines()[-1])[str(step)] for step in STEPS)
    print(f"resident memory: {early:.1f} MB after {STEPS[0]} steps, {late:.1f} MB after {STEPS[1]}")
    assert late - early < MOST_GROWTH_MB
