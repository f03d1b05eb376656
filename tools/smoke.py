"""A trial of an installed advgen: five steps of every plugin and samples of each run, in a temporary folder.

    python tools/smoke.py            # try the advgen of this Python; `gen` has to stand next to it
    python tools/smoke.py --tests    # then run a few quick tests of the checkout

The last line says whether the trial passed, and with which packages.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As small as the plugins allow: the trial asks whether they run, never how well.
OVERRIDES = {
    "image": ["options.width=4", "options.noise_size=8"],
    "audio": ["options.channels=8", "options.blocks=1", "options.wave_critic_channels=2", "options.spectral_critic_channels=2"],
    "text": ["options.phrases=300", "options.generator_hidden=16", "options.critic_hidden=8"],
}
TESTS = ["test_losses.py", "test_config.py", "test_registry.py", "test_manifest.py", "test_audio_files.py"]
# Seconds that one command may take.
LIMIT = 240


def commands() -> list[list[str]]:
    """Return the commands of the trial, without the leading `gen`, to be run in one folder and in this order."""
    listed = [["--version"], ["plugins", "list"], ["env"]]
    for plugin, overrides in OVERRIDES.items():
        settings = [part for override in [*overrides, "train.batch_size=8"] for part in ("--set", override)]
        listed += [["train", "--plugin", plugin, "--steps", "5", "--out", plugin, *settings], ["sample", plugin, "-n", "2"]]
    return listed


def run(command: list[str], folder: Path) -> str:
    """Run a command in `folder`; return a sentence if it failed, else an empty string."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "NO_COLOR": "1"}
    shown = " ".join(["gen" if Path(command[0]).stem == "gen" else Path(command[0]).name, *command[1:]])
    try:
        answer = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"`{shown}` took more than {LIMIT} seconds"
    if answer.returncode == 0:
        return ""
    print(answer.stdout[-4000:], answer.stderr[-4000:], sep="\n")
    return f"`{shown}` ended with exit code {answer.returncode}"


def gen() -> str:
    """Return the path of this Python's `gen`."""
    if path := shutil.which("gen", path=sysconfig.get_path("scripts")):
        return path
    raise SystemExit(f"trial failed: {sys.executable} has no `gen` next to it; install advgen there first")


def trial(*, tests: bool) -> str:
    """Run the trial; return a sentence about the first command that failed, else an empty string."""
    command = gen()
    with tempfile.TemporaryDirectory() as folder:
        for arguments in commands():
            if fault := run([command, *arguments], Path(folder)):
                return fault
    if not tests:
        return ""
    files = [str(ROOT / "tests" / name) for name in TESTS]
    return run([sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *files], ROOT)


def main() -> int:
    """Print how the trial ended; return 1 if it failed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--tests", action="store_true", help="run a few quick tests of the checkout too")
    fault = trial(tests=options.parse_args().tests)
    packages = ", ".join(f"{name} {version(name)}" for name in ("advgen", "torch", "torchaudio", "numpy"))
    print(f"trial {'failed: ' + fault if fault else 'passed'} (Python {platform.python_version()}, {packages})")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
