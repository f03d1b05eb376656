"""Facts of the text plugin, checked when they are read from a run's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

LONGEST = 2**20
MOST_PROMPTS = 256
"""Number of prompts from training samples that a run keeps."""


class TextFacts(BaseModel):
    """Everything that rebuilds the modality without data."""

    model_config = ConfigDict(strict=True, extra="allow")

    tokenizer: str
    length: int = Field(ge=1, le=LONGEST)
    prompt_length: int = Field(0, ge=0, le=LONGEST)
    classes: list[str] = []
    grammar: bool = False
    prompts: list[list[int]] = Field([], max_length=MOST_PROMPTS)
    pretrained: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _prompts_fit(self) -> TextFacts:
        if any(len(prompt) > self.prompt_length for prompt in self.prompts):
            raise ValueError(f"a prompt is longer than prompt_length {self.prompt_length}")
        return self


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse facts that no data can have.

    Raises:
        ValueError: naming each entry.
    """
    given = {**facts, "classes": list(facts.get("classes") or ())}
    given |= {"prompts": [list(prompt) for prompt in facts.get("prompts") or ()]}
    TextFacts.model_validate(given)


def check_tokens(facts: Mapping[str, Any], vocabulary: int) -> None:
    """Refuse prompts with tokens that the tokenizer does not have.

    Raises:
        ValueError: naming the first.
    """
    for prompt in facts.get("prompts") or ():
        for token in prompt:
            if not 0 <= token < vocabulary:
                raise ValueError(f"prompts hold the token {token}, expected 0 to {vocabulary - 1}")
