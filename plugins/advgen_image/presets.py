"""Named run configurations of the image plugin, in the same tree as a TOML file."""

from __future__ import annotations

from typing import Any

_COSINE = {"kind": "cosine", "start": 1.0, "end": 0.05, "until": 1.0}
_CONSTANT = {"kind": "constant", "start": 1.0, "end": 1.0, "until": 1.0}

DEFAULT: dict[str, Any] = {
    "loss": "relativistic",
    "penalties": {"r1": {"weight": 0.1, "interval": 1}, "r2": {"weight": 0.1, "interval": 1}},
    "generator": {"optimizer": "adam", "learning_rate": 4e-3, "betas": (0.0, 0.99)},
    # More of mismatch, and classes are surer and their samples less varied (docs/results.md).
    "discriminator": {"optimizer": "adam", "learning_rate": 4e-3, "betas": (0.0, 0.99), "mismatch": 0.03},
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
    "discriminator": {"optimizer": "adam", "learning_rate": 2e-4, "betas": (0.5, 0.999), "mismatch": 0.0},
    "average": {"enabled": False},
    "schedules": {"generator.learning_rate": _CONSTANT, "discriminator.learning_rate": _CONSTANT},
    "train": {"batch_size": 64},
}

# The schedules and the penalties of ``default``, taken out.
_OWN_SCHEDULES: dict[str, Any] = {"generator.learning_rate": False, "discriminator.learning_rate": False}


def _both(learning_rate: float, betas: tuple[float, float], **discriminator: Any) -> dict[str, Any]:
    player = {"optimizer": "adam", "learning_rate": learning_rate, "betas": betas}
    return {"generator": player, "discriminator": player | {"mismatch": 0.0} | discriminator}


# Huang et al. 2024, table 9, CIFAR-10: 250 million images, the first 20 million with the burn-in.
R3: dict[str, Any] = {
    "options": {
        "family": "r3",
        "width": 768,
        "doublings": 0,
        "noise_size": 64,
        "augment": "ada",
        "augment_ops": ("blit", "geometry", "color:0.5", "cutout"),
        "augment_probability": 0.55,
    },
    "loss": "relativistic",
    "penalties": {"r1": {"weight": 0.05, "interval": 1}, "r2": {"weight": 0.05, "interval": 1}},
    **_both(2e-4, (0.0, 0.99)),
    "average": {"enabled": True, "half_life_steps": 9766.0, "ramp_up": 0.0},
    "schedules": {**_OWN_SCHEDULES, "burn_in": {"kind": "cosine", "until": 0.08}},
    "train": {"steps": 488_282, "batch_size": 512},
}

# Miyato et al. 2018, CIFAR-10, with the projection and hinge of SAGAN, and the average and noise in every norm of BigGAN.
RESNET: dict[str, Any] = {
    "options": {
        "family": "resnet",
        "width": 256,
        "doublings": 0,
        "discriminator_width": 128,
        "noise_size": 128,
        "generator_norm": "batch",
    },
    "loss": "hinge",
    "penalties": {"r1": False, "r2": False},
    **_both(2e-4, (0.0, 0.9), steps=5),
    "average": {"enabled": True, "half_life_steps": 6931.0, "ramp_up": 0.05},
    "schedules": {
        player: {"kind": "linear", "start": 1.0, "end": 0.0, "until": 1.0}
        for player in ("generator.learning_rate", "discriminator.learning_rate")
    },
    "train": {"steps": 100_000, "batch_size": 64},
}

# Karras et al. 2019 and 2020, 256x256: 25 million images, batches of 64, gamma from the size.
STYLEGAN2: dict[str, Any] = {
    "options": {
        "family": "stylegan2",
        "width": 64,
        "doublings": 3,
        "noise_size": 512,
        "mapping_layers": 8,
        "style_mixing": 0.9,
        "minibatch_group": 4,
    },
    "loss": "nonsaturating",
    "penalties": {
        "r1": {"weight": "auto", "interval": 16, "own_step": True},
        "r2": False,
        "path_length": {"weight": 2.0, "interval": 4, "own_step": True},
    },
    **_both(2.5e-3, (0.0, 0.99)),
    "average": {"enabled": True, "half_life_steps": 312.5, "ramp_up": 0.05},
    "schedules": _OWN_SCHEDULES,
    "train": {"steps": 390_625, "batch_size": 64},
}


def _small(preset: dict[str, Any], options: dict[str, Any], channels_last: bool = False, **more: Any) -> dict[str, Any]:
    """The same algorithm in a size that two cores train in minutes."""
    own = {"augment": "none", "augment_ops": None, "augment_probability": None} if preset is R3 else {}
    train = {"minutes": 5.0, "batch_size": 16, "channels_last": channels_last}
    found = preset | more | {"options": preset["options"] | own | options, "train": train}
    return found | {"average": {"enabled": True, "half_life_steps": 300.0, "ramp_up": 0.05}}


R3_SMALL = _small(
    R3,
    {"width": 16, "doublings": 2, "blocks": 1},
    penalties={"r1": {"weight": 0.3, "interval": 1}, "r2": {"weight": 0.3, "interval": 1}},
    schedules={**_OWN_SCHEDULES, "burn_in": {"kind": "cosine", "until": 0.5}},
    **_both(1e-3, (0.0, 0.99), one_pass=False),  # on a CPU a tenth faster
)
RESNET_SMALL = _small(
    RESNET,
    {"width": 16, "doublings": 2, "discriminator_width": 16, "noise_size": 64, "generator_norm": "pixel"},
    **_both(1e-3, (0.0, 0.9), steps=1),
    channels_last=True,  # on a CPU a third faster
)
STYLEGAN2_SMALL = _small(STYLEGAN2, {"width": 8, "noise_size": 64, "mapping_layers": 2})

PRESETS: dict[str, dict[str, Any]] = {
    "default": DEFAULT,
    "classic": CLASSIC,
    "r3": R3,
    "r3-small": R3_SMALL,
    "resnet": RESNET,
    "resnet-small": RESNET_SMALL,
    "stylegan2": STYLEGAN2,
    "stylegan2-small": STYLEGAN2_SMALL,
}
