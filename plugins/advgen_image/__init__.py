"""Images of any size, 1, 3 or 4 channels, class-conditional or not. This module stays torch-free."""

from __future__ import annotations

from advgen import PluginSpec, hookimpl
from advgen_image.presets import PRESETS


@hookimpl
def advgen_register() -> PluginSpec:
    """Declare the image plugin."""
    return PluginSpec(
        name="image",
        summary="Images: embedded shapes, idx files or a folder; class-conditional or not.",
        config="advgen_image.config:ImageConfig",
        modality="advgen_image.modality:ImageModality",
        presets=PRESETS,
    )
