"""Critics of text: recurrent, convolutional, multi-representation, causal transformer; all judge relaxed tokens too."""

from .base import Reader, Sight
from .convolutional import ConvolutionalCritic, MultiCritic
from .recurrent import RecurrentCritic
from .transformer import TransformerCritic

__all__ = ["ConvolutionalCritic", "MultiCritic", "Reader", "RecurrentCritic", "Sight", "TransformerCritic"]
