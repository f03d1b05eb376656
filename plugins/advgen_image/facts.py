"""Facts of the image plugin, checked when they are read from a run's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LONGEST_SIDE = 2**15
MOST_CHANNELS = 64


class ImageFacts(BaseModel):
    """Everything that rebuilds the modality without data."""

    model_config = ConfigDict(strict=True, extra="allow")

    height: int = Field(ge=1, le=LONGEST_SIDE)
    width: int = Field(ge=1, le=LONGEST_SIDE)
    channels: int = Field(ge=1, le=MOST_CHANNELS)
    classes: list[str] = []
    bits: Literal[8, 16] = 8
    corpus: str = ""
    factors: dict[str, Any] = {}


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse facts that no data can have.

    Raises:
        ValueError: naming each entry.
    """
    ImageFacts.model_validate({**facts, "classes": list(facts["classes"])})
