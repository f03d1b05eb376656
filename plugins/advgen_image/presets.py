"""Named run configurations of the image plugin, in the same tree as a TOML file."""

from __future__ import annotations

from typing import Any

_COSINE = {"kind": "cosine", "start": 1.0, "end": 0.05, "until": 1.0}
_CONSTANT = {"kind": "constant", "start": 1.0, "end": 1.0, "until": 1.0}

DEFAULT: dict[str, Any] = {
    "loss": "relativistic",
    "penalties": {"r1": {"weight": 0.3, "interval": 1}, "r2": {"weight": 0.3, "interval": 1}},
    "generator": {"optimizer": "adam", "learning_rate": 4e-3, "betas": (0.0, 0.99)},
    "discriminator": {"optimizer": "adam", "learning_rate": 4e-3, "betas": (0.0, 0.99)},
    "average": {"enabled": True, "half_life_steps": 300.0, "ramp_up": 0.05},
    "schedules": {"generator.learning_rate": _COSINE, "discriminator.learning_rate": _COSINE},
    "train": {"minutes": 5.0, "batch_size": 16},
}

# The textbook networks and algorithm (DCGAN), pinned: a yardstick, not a recommendation.
CLASSIC: dict[str, Any] = {
    "options": {
        "width": 64,
        "noise_size": 100,
        "modulation": False,
        "generator_norm": "batch",
        "discriminator_norm": "batch",
        "initialization": "normal",
    },
    "loss": "nonsaturating",
    "penalties": {},
    "generator": {"optimizer": "adam", "learning_rate": 2e-4, "betas": (0.5, 0.999)},
    "discriminator": {"optimizer": "adam", "learning_rate": 2e-4, "betas": (0.5, 0.999)},
    "average": {"enabled": False},
    "schedules": {"generator.learning_rate": _CONSTANT, "discriminator.learning_rate": _CONSTANT},
    "train": {"batch_size": 64},
}

PRESETS: dict[str, dict[str, Any]] = {"default": DEFAULT, "classic": CLASSIC}
