"""Options of the text plugin. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from advgen import PluginConfig

# 256 bytes and the four special tokens.
NUM_BYTES = 260


class TextConfig(PluginConfig):
    """Data, tokenizer, networks and their widths."""

    tokenizer: Literal["word", "bpe", "character", "byte"] = Field(
        "word", description="Whole words; byte-pair pieces, single characters or bytes for any language."
    )
    vocabulary_size: int = Field(5000, ge=8, le=65536, description="At most so many tokens, special ones included.")
    lower_case: bool = Field(True, description="Lower-case all text.")
    max_length: int = Field(32, ge=2, le=1024, description="Tokens a sample, end mark included.")
    long_lines: Literal["cut", "pack"] = Field(
        "cut", description="Longer lines lose their end, or are packed into as many samples as they need."
    )
    field: str = Field("text", description="Name of the text field in .jsonl files, or column in tables.")
    label_field: str | None = Field(None, description="Name of their label field; makes the run conditional.")
    prompt_field: str | None = Field(
        None, description="Name of their field with how each sample starts; only the rest is learned and judged."
    )
    subset: str | None = Field(None, description="Configuration of a Hugging Face data set, where it has several.")
    phrases: int = Field(10_000, ge=100, le=1_000_000, description="Sentences in the embedded corpus.")
    phrase_labels: bool = Field(False, description="Label the embedded corpus with the subject's class.")
    generator: Literal["lstm", "relational", "transformer"] = Field(
        "lstm", description="LSTM, relational memory (RelGAN), or causal transformer (needs advgen[transformers])."
    )
    critic: Literal["recurrent", "cnn", "multi", "transformer", "mediator"] = Field(
        "recurrent",
        description="A logit a token (ScratchGAN); convolutions with highway (SeqGAN); many representations (RelGAN); a "
        "causal transformer, which starts as the generator that likelihood has trained; or a language model of the generator's "
        "kind (CoT), for loss=cooperative.",
    )
    generator_embedding: int = Field(96, ge=1, description="Of the LSTM and the relational memory.")
    generator_hidden: int = Field(192, ge=1, description="State of the LSTM; width of transformers.")
    critic_embedding: int = Field(64, ge=1, description="Of recurrent, cnn and an LSTM mediator; representations of multi.")
    critic_hidden: int = Field(128, ge=1, description="State of the recurrent critic or an LSTM mediator.")
    critic_filters: float = Field(1.0, gt=0, le=4, description="Filters of cnn and multi, as a share of the published numbers.")
    critic_dropout: float = Field(0.25, ge=0, lt=1, description="Before the output layers of cnn and multi.")
    dropout: float = Field(0.0, ge=0, lt=1, description="In the generator, in likelihood training only.")
    memory_slots: int = Field(1, ge=1, le=64, description="Of the relational memory.")
    memory_heads: int = Field(2, ge=1, le=64, description="Of the relational memory.")
    memory_head_size: int = Field(256, ge=1, le=4096, description="Of the relational memory; heads times it is its width.")
    transformer: Literal["gpt2", "llama"] = Field("gpt2", description="Kind of transformer, generator's and critic's.")
    transformer_layers: int = Field(4, ge=1, le=128)
    transformer_heads: int = Field(4, ge=1, le=128)
    pretrained: str | None = Field(
        None, description="Local folder of a GPT-2 or Llama to start from, safetensors; brings tokenizer and sizes."
    )

    @model_validator(mode="after")
    def _bytes_need_room(self) -> TextConfig:
        if self.tokenizer == "byte" and self.vocabulary_size < NUM_BYTES:
            raise ValueError(f"tokenizer=byte has {NUM_BYTES} tokens, more than vocabulary_size={self.vocabulary_size}")
        if self.prompt_field is not None and self.long_lines == "pack":
            raise ValueError(f"prompt_field={self.prompt_field} gives each sample a start, which long_lines=pack would cut off")
        if self.pretrained is not None and self.generator != "transformer":
            raise ValueError(f"pretrained={self.pretrained} is for generator=transformer, not {self.generator}")
        return self


class SampleReading(TextConfig):
    """How other text is read beside a corpus: line by line, in the tokens of the corpus."""

    known: str = Field("", description="The corpus's tokenizer, as JSON.")


class TextSampling(PluginConfig):
    """Options of ``gen sample`` for runs of the text plugin."""

    temperature: float = Field(1.0, gt=0, le=100, description="Of the softmax: below 1 safer, above 1 more varied.")
    top_k: int | None = Field(None, ge=1, description="Draw from the so many likeliest tokens.")
    top_p: float | None = Field(None, gt=0, le=1, description="Draw from the likeliest tokens that hold this probability.")
    beam: int | None = Field(
        None, ge=1, le=1024, description="Search with so many beams in place of drawing: the likeliest samples, best first."
    )
    prompt: str | None = Field(None, description="How every sample starts.")
    prompts: str | None = Field(
        None, description="File with a prompt on each line; sample i takes the next, from the first on."
    )
    watermark: str | None = Field(None, min_length=1, description="Key of a watermark that gen verify finds again.")
    watermark_share: float = Field(0.25, gt=0, lt=1, description="Share of the vocabulary that the watermark favours.")
    watermark_strength: float = Field(2.0, gt=0, le=50, description="What it adds to their logits.")

    @model_validator(mode="after")
    def _fit_together(self) -> TextSampling:
        if self.prompt is not None and self.prompts is not None:
            raise ValueError("--prompt and --prompts exclude each other; give one of the two")
        drawing = [name for name in ("top_k", "top_p", "watermark") if getattr(self, name) is not None]
        if self.beam is not None and (drawing or self.temperature != 1.0):
            surplus = ", ".join(f"--{name.replace('_', '-')}" for name in drawing or ["temperature"])
            raise ValueError(f"--beam draws nothing at random; leave {surplus} out")
        return self
