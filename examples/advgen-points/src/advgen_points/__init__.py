"""Points in the plane for advgen. This module is imported to list plugins, so it must not import torch."""

from advgen import PluginSpec, hookimpl

_ADAM = {"optimizer": "adam", "learning_rate": 1e-3, "betas": (0.0, 0.9)}

DEFAULT = {
    "loss": "relativistic",
    "penalties": {"r1": {"weight": 0.02, "interval": 1}, "r2": {"weight": 0.02, "interval": 1}},
    "generator": _ADAM,
    "discriminator": _ADAM,
    "average": {"enabled": True, "half_life_steps": 100.0},
    "schedules": {
        "generator.learning_rate": {"kind": "linear", "start": 1.0, "end": 0.0},
        "discriminator.learning_rate": {"kind": "linear", "start": 1.0, "end": 0.0},
    },
    "train": {"steps": 10_000, "batch_size": 256, "log_every": 100, "sample_every": 2_500, "checkpoint_every": 2_500},
}

_TEXTBOOK = {"optimizer": "adam", "learning_rate": 2e-4, "betas": (0.5, 0.999)}

CLASSIC = {
    "loss": "nonsaturating",
    "penalties": {},
    "generator": _TEXTBOOK,
    "discriminator": _TEXTBOOK,
    "average": {"enabled": False},
    "schedules": {},
}


@hookimpl
def advgen_register() -> PluginSpec:
    """Declare the plugin: names and strings only."""
    return PluginSpec(
        name="points",
        summary="Points in the plane: the ring of 8 and the grid of 25 Gaussians, or a CSV file of your own.",
        config="advgen_points.config:PointsConfig",
        modality="advgen_points.modality:PointsModality",
        presets={"default": DEFAULT, "classic": CLASSIC},
    )
