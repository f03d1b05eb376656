"""Critics of text: recurrent, convolutional, multi-representation, transformer; and a mediator, a language model."""

from .base import Reader, Sight
from .convolutional import ConvolutionalCritic, MultiCritic
from .mediator import Mediator
from .recurrent import RecurrentCritic
from .transformer import TransformerCritic

__all__ = ["ConvolutionalCritic", "Mediator", "MultiCritic", "Reader", "RecurrentCritic", "Sight", "TransformerCritic"]
