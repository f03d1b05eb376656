"""Small runs for every plugin, and a home of their own for caches."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Before torch is imported: networks of this size lose time to a second thread. What the user has set is kept.
os.environ.setdefault("OMP_NUM_THREADS", "1")

TINY = {
    "image": ["options.width=4", "options.noise_size=8"],
    "audio": ["options.channels=8", "options.blocks=1", "options.wave_critic_channels=2", "options.spectral_critic_channels=2"],
    "text": [
        "options.phrases=300",
        "options.generator_hidden=16",
        "options.generator_embedding=8",
        "options.critic_hidden=8",
        "options.critic_embedding=8",
    ],
}


def tiny(plugin: str, *more: str) -> list[str]:
    """Overrides that make a plugin's default a matter of seconds."""
    return [*TINY[plugin], "train.batch_size=8", "train.log_every=1", *more]


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches go to a shared folder of this test session, relative paths to a fresh one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    for name in (
        "ADVGEN_PLUGINS",
        "ADVGEN_DISABLE_PLUGINS",
        "ADVGEN_STRICT_PLUGINS",
        "ADVGEN_DEBUG",
        "ADVGEN_MAX_UNPACKED_GIB",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent


def environment(root: Path, *more: Path) -> dict[str, str]:
    """Variables for a child process that runs the checkout."""
    paths = [str(root / "core"), str(root / "plugins"), *map(str, more)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@contextmanager
def peak_below(mebibytes: int) -> Iterator[None]:
    """Fail if the memory of this process grows by more during a block; not looked at where the system does not tell."""
    about, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def figure(name: str) -> int:
        return int(about.read_text().split(f"{name}:")[1].split()[0]) // 1024

    if not reset.exists():
        yield
        return
    gc.collect()
    reset.write_text("5")  # the peak counts from here
    before = figure("VmRSS")
    yield
    assert figure("VmHWM") - before <= mebibytes, f"{figure('VmHWM') - before} MiB"
