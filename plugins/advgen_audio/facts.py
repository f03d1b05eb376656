"""Facts of the audio plugin, checked when they are read from a run's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

HIGHEST_RATE_HZ = 384_000
LONGEST_CLIP = 2**25
MOST_EXAMPLES = 64


class AudioFacts(BaseModel):
    """Everything that rebuilds the modality without data."""

    model_config = ConfigDict(strict=True, extra="allow")

    sample_rate_hz: int | None = Field(None, ge=1, le=HIGHEST_RATE_HZ)
    length: int | None = Field(None, ge=1, le=LONGEST_CLIP)
    classes: list[str] = []
    corpus: str = ""
    end_level: Annotated[FiniteFloat, Field(ge=0)] | None = None
    mel: dict[str, Any] | None = None
    examples: list[str] | None = Field(None, min_length=1, max_length=MOST_EXAMPLES)


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse facts that no data can have.

    Raises:
        ValueError: naming each entry.
    """
    AudioFacts.model_validate({**facts, "classes": list(facts.get("classes") or ())})
