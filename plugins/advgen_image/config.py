"""Options of the image plugin. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advgen import PluginConfig

Norm = Literal["batch", "none"]
GeneratorNorm = Literal["pixel", "batch", "none"]


class ImageConfig(PluginConfig):
    """What a user may set under ``options``."""

    image_height: int | None = Field(
        None, ge=4, le=4096, description="Resize and crop to this height; empty takes the data's own."
    )
    image_width: int | None = Field(
        None, ge=4, le=4096, description="Resize and crop to this width; empty takes the data's own."
    )
    channels: Literal[1, 3, 4] | None = Field(None, description="Grey, RGB or RGBA; empty takes what the files have.")
    width: int = Field(16, ge=4, le=1024, description="Channels of the layer next to the image; doubles at each halving.")
    depth: int | None = Field(None, ge=1, le=8, description="Number of strided layers; empty fits it to the image's size.")
    noise_size: int = Field(16, ge=1, le=4096, description="Length of the generator's noise vector.")
    conditional: bool = Field(True, description="Condition both players on the class where the data has classes.")
    modulation: bool = Field(True, description="Let noise and class scale and shift every layer of the generator.")
    generator_norm: GeneratorNorm = Field("pixel", description="pixel: unit length of the channels at each place.")
    discriminator_norm: Norm = Field("none", description="batch couples the batch and does not go with gradient penalties.")
    initialization: Literal["scaled", "normal"] = Field("scaled", description="normal: N(0, 0.02), as in DCGAN.")
