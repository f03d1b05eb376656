"""What ``gen evaluate`` measures of a vocoder: copies of held-out clips against the clips, each measure in its own module."""

from __future__ import annotations

from advgen_audio.measures.cepstra import mel_cepstral_distortion
from advgen_audio.measures.copies import CopyMeasures
from advgen_audio.measures.listening import listen
from advgen_audio.measures.pitch import Pitch, track_pitch
from advgen_audio.measures.voice import compare_pitch, voice_errors

__all__ = ["CopyMeasures", "Pitch", "compare_pitch", "listen", "mel_cepstral_distortion", "track_pitch", "voice_errors"]
