"""Generators of text: an LSTM, a relational memory, a causal transformer; all write, read, score and continue alike."""

from .base import Sizes, Writer
from .drawing import Choose, content_mask, inverse_draw, longest, prompt_mask
from .lstm import LstmWriter
from .relational import RelationalWriter
from .transformer import TransformerWriter

__all__ = [
    "Choose",
    "LstmWriter",
    "RelationalWriter",
    "Sizes",
    "TransformerWriter",
    "Writer",
    "content_mask",
    "inverse_draw",
    "longest",
    "prompt_mask",
]
