"""The kernels of an update, recorded once on a GPU and launched together from then on.

A step of a small network is thousands of tiny kernels, which Python takes ten times as long to launch as the GPU to run. A CUDA
graph launches them at once. Python is not asked again on a replay, so what changes from update to update comes through
buffers that are filled before it: samples and noise, scheduled scalars, what the players remember. What decides which kernels
there are at all (penalties that are due, shapes) is the recording's key; a new phase of the plan begins with no recordings.

The first update of a key runs as it is, the second is watched: work that waits for the device, or draws random numbers on the
CPU, cannot be recorded, and goes on as it is. The third is recorded. Values are those of the same kernels either way.
"""

from __future__ import annotations

from advgen.config.model import RunConfig
from advgen.players import Players
from advgen.recording.graphs import CudaGraphs
from advgen.recording.recorder import Recorder
from advgen.recording.update import Update, Worked
from advgen.schedules import schedules_of

__all__ = ["Recorder", "Update", "Worked", "make_recorder", "recorded"]


def make_recorder(players: Players, config: RunConfig) -> Recorder | None:
    """A recorder where recordings can be had: on one GPU, with networks that say nothing against it.

    Shares of a balance are divided, which a buffer does otherwise than a number; nothing else that schedules drive is.
    """
    world, able = players.world, players.generates.recordable and players.judges.recordable
    wanted = config.train.cuda_graphs and world.device.type == "cuda" and world.size == 1
    divided = any(path.startswith("balance.") for path in schedules_of(config))
    return Recorder(CudaGraphs()) if wanted and able and not divided else None


def recorded(update: Update) -> Worked:
    """The update's work, recorded where the players have a recorder."""
    recorder = update.players.recorder
    return update.run() if recorder is None else recorder.run(update)
