"""All measures of a vocoder: its copies of held-out clips against those clips, without padding.

Legend: B clips, T samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advgen import Batch, MetricNote, content_hash
from advgen_audio.measures import cepstra, listening, pitch
from advgen_audio.measures.cepstra import mel_cepstral_distortion
from advgen_audio.measures.griffin_lim import GriffinLim
from advgen_audio.measures.listening import listen, missing
from advgen_audio.measures.voice import voice_errors
from advgen_audio.reconstruction import STFT_RESOLUTIONS, SpectralDistance
from advgen_audio.spectra.front_ends import MelSpec, MelSpectrogram

BLOCK = 32
HIGHER = ("voicing_f1", "pesq_nb", "pesq_wb", "stoi")
_FRAMES = f"frames of {pitch.WINDOW_SECONDS * 1000:.0f} ms every {pitch.HOP_SECONDS * 1000:.0f} ms"
_LISTENED = f"the first {listening.MAX_CLIPS} clips, {listening.MAX_SECONDS:g} s of each at most"


class CopyMeasures:
    """Measures of copies for one front end; what depends on the clips alone (Griffin-Lim's copies) is measured once."""

    def __init__(self, spec: MelSpec) -> None:
        self.spec, self.mel, self.stft = spec, MelSpectrogram(spec), SpectralDistance()
        self.griffin_lim = GriffinLim(spec) if spec.window_length == spec.n_fft else None
        self._known: dict[str, dict[str, float]] = {}

    def __call__(self, copies: Tensor, held_out: Batch) -> dict[str, float]:
        """Measures of (B, T) copies of ``held_out``, whose condition has their ``mel`` and ``length``; then Griffin-Lim's."""
        real, lengths = held_out.values[:, 0].float(), held_out.condition["length"].cpu()
        found = self.measure(copies.to(real), real, lengths)
        return found | {f"griffin_lim/{name}": value for name, value in self._baseline(real, held_out, lengths).items()}

    def measure(self, copies: Tensor, real: Tensor, lengths: Tensor) -> dict[str, float]:
        """Each measure by name, of (B, T) waveforms up to (B,) lengths; copies are clipped, as a file clips them."""
        copies, rate_hz = copies.clamp(-1, 1), self.spec.rate_hz
        return {
            **self._distances(copies, real, lengths),
            "mcd_db": mel_cepstral_distortion(real, copies, lengths, rate_hz),
            **voice_errors(real, copies, lengths, rate_hz),
            **listen(real, copies, lengths, rate_hz),
        }

    def notes(self) -> dict[str, MetricNote]:
        """How each is measured at this rate, in which direction it is better, and what keeps one from being measured."""
        absent = missing(self.spec.rate_hz)
        return {
            name: MetricNote(how, "higher" if name in HIGHER else "lower", absent.get(name, ""))
            for name, how in protocols(self.spec).items()
        }

    def _baseline(self, real: Tensor, held_out: Batch, lengths: Tensor) -> dict[str, float]:
        if self.griffin_lim is None:
            return {}
        key = content_hash([real.cpu().numpy().tobytes(), lengths.numpy().tobytes()])
        if key not in self._known:
            rebuild = self.griffin_lim.to(real.device)
            copies = torch.cat([rebuild(mels) for mels in held_out.condition["mel"].split(BLOCK)])
            self._known = {key: self.measure(copies, real, lengths)}
        return self._known[key]

    @torch.no_grad()
    def _distances(self, copies: Tensor, real: Tensor, lengths: Tensor) -> dict[str, float]:
        stft, mel = self.stft.to(real.device), self.mel.to(real.device)
        totals = torch.zeros(2, dtype=torch.float64)
        for copy, clip, length in zip(copies, real, lengths.tolist(), strict=True):
            one, other = clip[None, :length], copy[None, :length]
            convergence, logarithm = stft(one, other)
            totals += torch.stack([convergence + logarithm, (mel(one) - mel(other)).abs().mean()]).double().cpu()
        stft_distance, mel_distance = (totals / len(lengths)).tolist()
        return {"stft_distance": stft_distance, "mel_l1": mel_distance}


def protocols(spec: MelSpec) -> dict[str, str]:
    """How each measure is made, in words; all of clips without padding."""
    rate_hz = spec.rate_hz
    windows = ", ".join(str(window) for _, _, window in STFT_RESOLUTIONS)
    coefficients = f"c1 to c{cepstra.ORDER} of {cepstra.NUM_BANDS} HTK mel bands, 10 sqrt(2) / ln 10"
    found = {
        "stft_distance": f"spectral convergence + log-magnitude L1 in nats, {windows} samples at {rate_hz} Hz; of clips",
        "mel_l1": f"mean |difference| of the run's log mels (base {spec.log}) at {rate_hz} Hz; of clips",
        "mcd_db": f"mel cepstral distortion in dB: {coefficients}, 25 ms every 5 ms, frame by frame; of clips",
        "pitch_rmse_cents": f"f0 by autocorrelation, 50 to 550 Hz, {_FRAMES}; over frames voiced in both",
        "voicing_f1": "of those frames, voiced from a correlation of 0.45 and -60 dB on; over all clips",
        "periodicity_rmse": "of those frames' correlation in [0, 1]; of clips",
        "pesq_nb": f"ITU-T P.862 opinion score at 8000 Hz; of pesq_clips, those of 0.25 s or more among {_LISTENED}",
        "pesq_wb": "ITU-T P.862.2 opinion score at 16000 Hz; of the same clips as pesq_nb",
        "stoi": f"short-time intelligibility at 10000 Hz; {_LISTENED}, joined to stretches of 30 s",
    }
    return {name: how for name, how in found.items() if name != "pesq_wb" or rate_hz >= listening.WIDE_HZ}
