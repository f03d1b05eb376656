"""The options of the points plugin. No torch here."""

from typing import Literal

from pydantic import Field

from advgen import PluginConfig


class PointsConfig(PluginConfig):
    """What a user may set with ``--set options.name=value``."""

    mode: Literal["ring", "grid"] = Field("ring", description="Which mixture to generate when no CSV file is given.")
    num_points: int = Field(100_000, ge=1, description="Training points to generate.")
    noise_size: int = Field(2, ge=1, description="Length of the noise vector.")
    width: int = Field(128, ge=1, description="Units in every hidden layer of both networks.")
    depth: int = Field(3, ge=1, description="Hidden layers of both networks.")
