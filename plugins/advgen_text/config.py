"""Options of the text plugin. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from advgen import PluginConfig


class TextConfig(PluginConfig):
    """Data, tokenizer and widths of the text plugin."""

    tokenizer: Literal["word", "bpe"] = Field("word", description="Whole words, or byte-pair pieces for any language.")
    vocabulary_size: int = Field(5000, ge=8, le=65536, description="At most so many tokens, special ones included.")
    lower_case: bool = Field(True, description="Lower-case all text.")
    max_length: int = Field(32, ge=2, le=1024, description="Tokens a sample, end mark included; longer lines are cut.")
    field: str = Field("text", description="Name of the text field in .jsonl files.")
    label_field: str | None = Field(None, description="Name of the label field in .jsonl files; makes the run conditional.")
    phrases: int = Field(10_000, ge=100, le=1_000_000, description="Sentences in the embedded corpus.")
    phrase_labels: bool = Field(False, description="Label the embedded corpus with the subject's class.")
    generator_embedding: int = Field(96, ge=1)
    generator_hidden: int = Field(192, ge=1)
    critic_embedding: int = Field(64, ge=1)
    critic_hidden: int = Field(128, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1, description="On the generator's inputs and outputs, in likelihood training only.")
