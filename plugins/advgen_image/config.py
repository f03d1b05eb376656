"""Options of the image plugin. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from advgen import PluginConfig

Norm = Literal["batch", "none"]
GeneratorNorm = Literal["pixel", "batch", "none"]
Augment = Literal["none", "diffaugment", "ada"]
Family = Literal["dcgan", "r3", "resnet", "stylegan2"]

# Operations of each augmentation; those that are on by default come first.
OPERATIONS: dict[Augment, tuple[str, ...]] = {
    "none": (),
    "diffaugment": ("color", "translation", "cutout"),
    "ada": ("blit", "geometry", "color", "noise", "cutout"),
}
NUM_DEFAULT: dict[Augment, int] = {"none": 0, "diffaugment": 3, "ada": 3}

# Options that mean something to some families alone.
OWN_OPTIONS: dict[str, tuple[Family, ...]] = {
    "modulation": ("dcgan", "resnet"),
    "generator_norm": ("dcgan", "resnet"),
    "discriminator_norm": ("dcgan",),
    "initialization": ("dcgan",),
    "blocks": ("r3", "resnet"),
    "group_size": ("r3",),
    "mapping_layers": ("stylegan2",),
    "style_mixing": ("stylegan2",),
    "truncation": ("stylegan2",),
    "minibatch_group": ("stylegan2",),
    "attention": ("resnet",),
    "spectral_norm": ("resnet",),
}


class ImageConfig(PluginConfig):
    """What a user may set under ``options``."""

    image_height: int | None = Field(
        None, ge=4, le=4096, description="Resize and crop to this height; empty takes the data's own."
    )
    image_width: int | None = Field(
        None, ge=4, le=4096, description="Resize and crop to this width; empty takes the data's own."
    )
    channels: Literal[1, 2, 3, 4] | None = Field(
        None, description="Grey, grey with transparency, RGB or RGBA; empty takes what the files have."
    )
    animation: Literal["first", "every"] = Field("first", description="Which pictures of an animated file are samples.")
    flip: bool = Field(False, description="Mirror half of the training images, from left to right.")
    crop_margin: int = Field(
        0, ge=0, le=1024, description="Read images so many pixels higher and wider, and train on random windows of them."
    )
    memory_mib: int = Field(512, ge=0, description="Decoded images beyond it go to a file in the cache, which is mapped.")
    image_column: str | None = Field(None, description="Column of a Hugging Face data set; empty: the one that has images.")
    label_column: str | None = Field(None, description="Its column of classes; empty: label or the like; none: no classes.")
    subset: str | None = Field(None, description="Configuration of a Hugging Face data set, where it has several.")
    family: Family = Field("dcgan", description="Networks: strided, residual without or with norms, or styled.")
    width: int = Field(16, ge=4, le=2048, description="Channels of the layer next to the image; doubles at each halving.")
    doublings: int = Field(3, ge=0, le=8, description="How often the width doubles at most; 0: the same everywhere.")
    discriminator_width: int | None = Field(None, ge=4, le=2048, description="The discriminator's width; empty: as width.")
    depth: int | None = Field(None, ge=1, le=8, description="Number of halvings; empty fits it to the image's size.")
    blocks: int | None = Field(None, ge=1, le=16, description="Residual blocks at each resolution; empty: r3 2, resnet 1.")
    group_size: int = Field(16, ge=1, le=1024, description="Channels in each group of the 3x3 convolutions (r3).")
    noise_size: int = Field(16, ge=1, le=4096, description="Length of the generator's noise vector.")
    attention: int | None = Field(None, ge=2, le=256, description="Shorter side at which both players have self-attention.")
    spectral_norm: Literal["discriminator", "both", "none"] = Field("discriminator", description="Which players have it.")
    mapping_layers: int = Field(2, ge=1, le=16, description="Layers from noise to style.")
    style_mixing: float = Field(0.9, ge=0, le=1, description="Share of training samples with the styles of two noises.")
    truncation: float = Field(1.0, ge=0, le=2, description="Samples' distance from the mean style; 1: as trained.")
    minibatch_group: int = Field(4, ge=0, le=1024, description="Samples that the discriminator compares; 0: none.")
    conditional: bool = Field(True, description="Condition both players on the class where the data has classes.")
    modulation: bool = Field(True, description="Let noise and class scale and shift every layer of the generator.")
    generator_norm: GeneratorNorm = Field("pixel", description="pixel: unit length of the channels at each place.")
    discriminator_norm: Norm = Field("none", description="batch couples the batch and does not go with gradient penalties.")
    initialization: Literal["scaled", "normal"] = Field("scaled", description="normal: N(0, 0.02), as in DCGAN.")
    augment: Augment = Field("none", description="What D sees of real and generated images alike; for few data.")
    augment_ops: tuple[str, ...] | None = Field(
        None, description="Its operations, as name or name:factor; empty: color, translation, cutout, or blit, geometry, color."
    )
    augment_probability: float | None = Field(
        None, ge=0, le=1, description="Of each operation; empty: 1 for diffaugment, and ada finds it."
    )
    ada_target: float = Field(0.6, gt=-1, lt=1, description="How sure D may be of real images: mean sign of its scores.")
    ada_images: int = Field(500_000, ge=1, description="Images in which the probability may go from 0 to 1.")

    def operations(self) -> dict[str, float]:
        """The augmentation's operations, each with the factor of its probability."""
        known = OPERATIONS[self.augment]
        if self.augment_ops is None:
            return dict.fromkeys(known[: NUM_DEFAULT[self.augment]], 1.0)
        return {name: float(factor or 1.0) for name, _, factor in (each.partition(":") for each in self.augment_ops)}

    @model_validator(mode="after")
    def _operations_exist(self) -> ImageConfig:
        known = OPERATIONS[self.augment]
        try:
            named = self.operations()
        except ValueError as error:
            raise ValueError(f"augment_ops: {error}; expected name or name:factor, such as color:0.5") from error
        unknown = [name for name, factor in named.items() if name not in known or not 0 <= factor <= 1]
        if unknown:
            way = f"known: {', '.join(known)}, each with a factor from 0 to 1" if known else "choose options.augment first"
            way += "; a preset's are left out by --set 'unset=[\"options.augment_ops\"]'"
            raise ValueError(f"augment_ops: {unknown[0]!r} is no operation of augment={self.augment}; {way}")
        return self

    @model_validator(mode="after")
    def _fits_the_family(self) -> ImageConfig:
        for name, families in OWN_OPTIONS.items():
            if self.family not in families and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is an option of the family {' or '.join(families)}, not of {self.family}; "
                    f"leave {name} out, or choose that family"
                )
        return self
