"""Vocoders: networks that turn a mel spectrogram into the waveform it was made of."""

from advgen_audio.vocoders.base import Vocoder, stream, upsampling_strides
from advgen_audio.vocoders.bigvgan import Bigvgan, BigvganShape, bigvgan_shape
from advgen_audio.vocoders.hifigan import Hifigan, HifiganShape, hifigan_shape
from advgen_audio.vocoders.retrieval import RetrievalShape, RetrievalVocoder
from advgen_audio.vocoders.vocos import Vocos, VocosShape

__all__ = [
    "Bigvgan",
    "BigvganShape",
    "Hifigan",
    "HifiganShape",
    "RetrievalShape",
    "RetrievalVocoder",
    "Vocoder",
    "Vocos",
    "VocosShape",
    "bigvgan_shape",
    "hifigan_shape",
    "stream",
    "upsampling_strides",
]
