"""The audio plugin: what it is and how it likes to be trained. Imports no torch."""

from __future__ import annotations

from typing import Any

from advgen import DataSet, PluginSpec, RemoteFile, hookimpl
from advgen_audio.presets import LARGE, VOCODERS, WAVEGAN

DEFAULT: dict[str, Any] = {
    "loss": "relativistic",
    "penalties": {"r1": {"weight": 3.0, "interval": 1}, "r2": {"weight": 3.0, "interval": 1}},
    "generator": {"learning_rate": 3e-3, "betas": (0.0, 0.99)},
    "discriminator": {"learning_rate": 3e-3, "betas": (0.0, 0.99)},
    # A longer average moves the shares of loud and soft notes: the generator still turns while it is averaged.
    "average": {"enabled": True, "half_life_steps": 40.0},
    "schedules": {
        "generator.learning_rate": {"kind": "cosine", "end": 0.05},
        "discriminator.learning_rate": {"kind": "cosine", "end": 0.05},
        # A smooth critic spreads the samples over the data first, a sharp one then cleans them.
        "penalties.r1.weight": {"kind": "cosine", "end": 0.5},
        "penalties.r2.weight": {"kind": "cosine", "end": 0.5},
    },
    "train": {"minutes": 5.0, "batch_size": 16},
}
CLASSIC: dict[str, Any] = {
    "loss": "nonsaturating",
    "penalties": {},
    "generator": {"learning_rate": 2e-4, "betas": (0.5, 0.999)},
    "discriminator": {"learning_rate": 2e-4, "betas": (0.5, 0.999)},
    "average": {"enabled": False},
    "schedules": {},
}
# File names such as 7_theo_12.wav: digit, speaker, take; takes 0 to 4 are the official test split.
DIGITS: dict[str, Any] = {
    # The relativistic pair alone tells real from generated long before it tells one digit from another.
    "discriminator": {"mismatch": 1.0},
    "schedules": {"penalties.r1.weight": False, "penalties.r2.weight": False},
    "options": {
        "label_pattern": r"^(?P<label>[^_]+)_",
        "test_pattern": r"_[0-4]\.wav$",
        "length": 6144,
        # Samples vary a little less than speech does; so far from the mean they are hardly worse.
        "truncation": 1.15,
    },
    "train": {"minutes": 10.0, "batch_size": 16},
}


FSDD = DataSet(
    summary="spoken digits: 3,000 clips, 6 speakers, 8 kHz; train with --preset digits",
    home="https://github.com/Jakobovski/free-spoken-digit-dataset",
    licence="CC BY-SA 4.0",
    terms="Name its authors; share adapted recordings under the same license. They are voices of six people.",
    # The host packs the archive anew at times, so its hash is not fixed.
    files=(RemoteFile("fsdd.zip", "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.zip"),),
    inside="recordings",
)


@hookimpl
def advgen_register() -> PluginSpec:
    """Name the plugin's parts."""
    return PluginSpec(
        name="audio",
        summary="Waveforms, unconditional or by class, from an inverse-STFT generator; vocoders.",
        config="advgen_audio.config:AudioConfig",
        modality="advgen_audio.modality:AudioModality",
        presets={
            "default": DEFAULT,
            "classic": CLASSIC,
            "digits": DIGITS,
            "large": LARGE,
            "wavegan": WAVEGAN,
            "cpu": VOCODERS["retrieval"],
            **VOCODERS,
        },
        reads=("*.wav", "*.flac", "*.ogg", "*.mp3"),
        datasets={"fsdd": FSDD},
        intended_use="Research, teaching and creative work with generated sound like that in the training data.",
        out_of_scope="Speech passed off as that of a real person; bypassing of speaker verification.",
        importers={"hifigan": "advgen_audio.vocoding.imports:import_hifigan"},
        requires={"numpy": "numpy", "PIL": "pillow", "soundfile": "soundfile"},
        optional={"torchaudio.functional": "resampling and mel filters are computed without it, with the same numbers"},
    )
