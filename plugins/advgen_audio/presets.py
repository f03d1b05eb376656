"""How networks other than the default's are trained: published recipes by name, and others for more or fewer processors than
two cores. Imports no torch.

The core's least squares cost is half of the published one, so the weights beside it are half of the published 45 and 2.
"""

from __future__ import annotations

from typing import Any

SQUARES = {"mel": 22.5, "feature_matching": 1.0}


def player(learning_rate: float, betas: tuple[float, float], **more: Any) -> dict[str, Any]:
    """AdamW of both players, with PyTorch's weight decay."""
    return {"optimizer": "adamw", "learning_rate": learning_rate, "betas": betas, "weight_decay": 0.01, **more}


def falling(kind: str, end: float) -> dict[str, Any]:
    """Both learning rates along one curve, and none of the default preset's schedules of penalties."""
    curve = {"kind": kind, "end": end}
    unset = dict.fromkeys(("penalties.r1.weight", "penalties.r2.weight"), False)
    return {"generator.learning_rate": curve, "discriminator.learning_rate": curve, **unset}


def vocoder(settings: dict[str, Any], options: dict[str, Any], train: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A preset of the vocoding task; published recipes keep no average."""
    return {
        "options": {"task": "vocode", **options},
        "penalties": {},
        "average": {"enabled": False},
        "generator": settings,
        "discriminator": settings,
        "train": train,
        **more,
    }


def hifigan(version: int) -> dict[str, Any]:
    """Version 1, 2 or 3; the rate falls to what 0.999 an epoch makes of it in 2.5 million steps of LJ Speech.

    Source: Kong et al. 2020, https://arxiv.org/abs/2010.05646
    """
    options = {"vocoder": f"hifigan-v{version}", "mel": "hifigan", "critics": "hifigan", "segment": 8192}
    fall = falling("cosine", 0.05)
    settings = player(2e-4, (0.8, 0.99))
    return vocoder(
        settings, options, {"steps": 2_500_000, "batch_size": 16}, loss="least_squares", auxiliary=SQUARES, schedules=fall
    )


def bigvgan(name: str) -> dict[str, Any]:
    """The 14M or the 112M generator. Source: Lee et al. 2023, https://arxiv.org/abs/2206.04658"""
    options = {"vocoder": name, "mel": "bigvgan", "critics": "bigvgan", "segment": 8192}
    settings = player(1e-4, (0.8, 0.99), clip={"kind": "norm", "limit": 1000.0})
    fall = falling("linear", 0.67)
    return vocoder(
        settings, options, {"steps": 1_000_000, "batch_size": 32}, loss="least_squares", auxiliary=SQUARES, schedules=fall
    )


VOCOS: dict[str, Any] = vocoder(
    # Source: Siuzdak 2023, https://arxiv.org/abs/2306.00814; numbers of its repository where the paper has others.
    player(5e-4, (0.8, 0.9)),
    {"vocoder": "vocos", "mel": "vocos", "critics": "vocos", "segment": 16384, "gain_db": (-6.0, -1.0)},
    {"steps": 1_000_000, "batch_size": 16},
    loss="hinge",
    auxiliary={"mel": 45.0, "feature_matching": 1.0},
    schedules=falling("cosine", 0.0),
)
VOCOS_SMALL: dict[str, Any] = vocoder(
    player(1e-3, (0.8, 0.9)),
    {"vocoder": "vocos", "vocoder_channels": 128, "vocoder_blocks": 4, "critics": "small"},
    {"minutes": 20.0, "batch_size": 16},
    loss="hinge",
    auxiliary={"mel": 45.0, "feature_matching": 1.0},
    schedules=falling("cosine", 0.0),
    average={"enabled": True, "half_life_steps": 100.0},
)
# By likelihood alone: turns against critics made its copies no better (docs/results.md).
RETRIEVAL: dict[str, Any] = vocoder(
    player(2e-3, (0.8, 0.99)),
    {"vocoder": "retrieval", "critics": "small"},
    {"minutes": 20.0, "batch_size": 16},
    loss="hinge",
    auxiliary={"likelihood": 1.0},
    phases=[{"kind": "likelihood", "share": 1.0}],
    schedules=falling("cosine", 0.0),
    average={"enabled": True, "half_life_steps": 100.0},
)
VOCODERS: dict[str, dict[str, Any]] = {
    "retrieval": RETRIEVAL,
    "vocos-small": VOCOS_SMALL,
    "vocos": VOCOS,
    **{f"hifigan-v{version}": hifigan(version) for version in (1, 2, 3)},
    **{name: bigvgan(name) for name in ("bigvgan-base", "bigvgan")},
}
WAVEGAN: dict[str, Any] = {
    # Source: Donahue et al. 2019, https://arxiv.org/abs/1802.04208; 200,000 updates are what it trained for on spoken digits.
    "options": {"networks": "wavegan", "channels": 64, "noise_size": 100, "phase_shuffle": 2},
    "loss": "wasserstein",
    "penalties": {"r1": False, "r2": False, "wgan_gp": {"weight": 10.0}},
    "generator": {"learning_rate": 1e-4, "betas": (0.5, 0.9)},
    "discriminator": {"learning_rate": 1e-4, "betas": (0.5, 0.9), "steps": 5},
    "average": {"enabled": False},
    "schedules": {},
    "train": {"steps": 200_000, "batch_size": 64},
}
# The default's networks, wide and deep enough for a second at 16 to 24 kHz, with a critic each for clicks, pitch and phrase.
LARGE: dict[str, Any] = {
    "options": {
        "noise_size": 128,
        "channels": 256,
        "blocks": 8,
        "critic_windows": (256, 512, 1024, 2048),
        "wave_critic_channels": 32,
        "spectral_critic_channels": 32,
    },
    "generator": {"learning_rate": 1e-3},
    "discriminator": {"learning_rate": 1e-3},
    "average": {"half_life_steps": 2000.0},
    "train": {"steps": 200_000, "batch_size": 64},
}
