"""A vocoder whose network gives magnitudes, and whose phases are retrieved: for front ends that say nearly all, on a laptop.

Legend: B batch, M mel bands, K bins (n_fft // 2 + 1), F frames, C channels, T samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from advgen import ConfigError
from advgen_audio.spectra.front_ends import MelSpec
from advgen_audio.spectra.inverse import Consistency
from advgen_audio.vocoders.vocos import ConvNextVocoder, initialise

MOMENTUM = 0.97
# A band's error is corrected twice over, in the last round once: more diverges, less is slower.
RELAXATION = 2.0
# What the network's magnitudes weigh against the waveform's own, in the first round and in the last.
TRUST = (0.4, 0.05)
# No round corrects a band by more than this, in nats.
LARGEST_STEP = 2.3
TRAINING_ROUNDS = 16
EPSILON = 1e-9
# Squared magnitude below which there is no direction.
TINY = 1e-12
# Least magnitude, and least squared magnitude of what the network learns: quieter is silence.
LEAST = 1e-4
LEAST_POWER = 1e-7
# Brings log mels of speech near 0 and 1; the scale of an error before it is learned, in nats.
CENTRE, SPREAD = -5.0, 3.0
FIRST_SCALE = 0.5


@dataclass(frozen=True)
class RetrievalShape:
    """Sizes of the network, and rounds of retrieval: more are better and slower.

    Args:
        widened: channels between a block's two linear layers.
    """

    channels: int = 192
    widened: int = 576
    blocks: int = 6
    rounds: int = 256


class RetrievalVocoder(ConvNextVocoder):
    """mel (B, M, F) -> waveform (B, 1, F * hop): the network's magnitudes, and phases that agree with them.

    Each round makes the spectrum one of a waveform, carries it on in the direction in which it went, and corrects its
    magnitudes: towards those that the network expects, the less the later, and so that they have the given mel. The network
    learns magnitudes by likelihood; a cost of the waveform reaches them through the last round alone.

    While it trains there are 16 rounds, in evaluation mode as many as the shape says. Rounding errors grow from round to
    round, a thousandfold in 256 of them, so ``for_inference`` is in double precision: there, chunks equal whole files.

    Source: momentum, Perraudin et al. 2013, https://doi.org/10.1109/WASPAA.2013.6701851; networks for magnitudes before
    rounds, Masuyama et al. 2019, https://arxiv.org/abs/1903.03971
    """

    unmix: Tensor
    spread: Tensor

    def __init__(self, spec: MelSpec, shape: RetrievalShape) -> None:
        consistency = Consistency(spec)
        context = shape.rounds * consistency.context_frames + consistency.inverse.context_frames
        super().__init__(spec.num_mels, spec.hop, shape.channels, shape.widened, shape.blocks, context)
        self.shape, self.consistency = shape, consistency
        bins, filters = spec.n_fft // 2 + 1, consistency.mel.filters
        self.out = nn.Linear(shape.channels, bins)
        self.apply(initialise)
        nn.init.zeros_(self.out.weight)
        self.log_scale = nn.Parameter(torch.full((bins,), log(FIRST_SCALE)))
        self.register_buffer("unmix", torch.linalg.pinv(filters), persistent=False)
        # A bin takes the correction of the bands that it belongs to, by their weights in it.
        self.register_buffer("spread", filters / (filters.sum(0) + EPSILON), persistent=False)

    def for_inference(self) -> RetrievalVocoder:
        """Return a copy in evaluation mode and double precision."""
        return super().for_inference().double()

    def synthesise(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) -> waveform (B, 1, F * hop).

        Raises:
            ConfigError: where it is traced for a format without complex numbers.
        """
        if torch.compiler.is_exporting():
            raise ConfigError("rounds of retrieval are of complex numbers, which the format lacks")
        with torch.autocast(mel.device.type, enabled=False):
            expected = self.log_magnitudes(mel)
            return self.consistency.inverse.of_frames(self._retrieve(expected, self._linear(mel)))[:, None].to(expected.dtype)

    def log_magnitudes(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) -> expected log magnitudes (B, F, K), in nats."""
        linear = self._linear(mel)
        power = self.consistency.mel.spec.power
        # Lobes of the pseudo-inverse cancel, which half precision cannot.
        with torch.autocast(mel.device.type, enabled=False):
            blurred = (self.unmix.to(linear) @ linear).clamp_min(LEAST**power).log().transpose(1, 2) / power
        seen = self.see(((linear.log() - CENTRE) / SPREAD).to(self.embed.weight.dtype))
        magnitudes: Tensor = blurred + self.out(seen).to(linear.dtype)
        return magnitudes

    def nats(self, mel: Tensor, waveform: Tensor) -> Tensor:
        """Negative log-likelihood (B, F, K) of a waveform (B, T)'s magnitudes: Laplace, with a learned scale for each bin."""
        spectrum = self.consistency.analyse(waveform)
        target = (spectrum.real.square() + spectrum.imag.square() + LEAST_POWER).log() / 2
        return (self.log_magnitudes(mel) - target).abs() / self.log_scale.exp() + self.log_scale + log(2)

    def _linear(self, mel: Tensor) -> Tensor:
        """The mel without its logarithm, (B, M, F), in the network's precision, but full."""
        return self.consistency.mel.linear(mel.to(torch.promote_types(self.embed.weight.dtype, torch.float32)))

    def _retrieve(self, expected: Tensor, linear: Tensor) -> Tensor:
        """Expected log magnitudes (B, F, K) and the mel (B, M, F) -> complex spectrum (B, F, K); phases begin at 0."""
        rounds = min(self.shape.rounds, TRAINING_ROUNDS) if self.training else self.shape.rounds
        bands, gradients = linear.transpose(1, 2).log(), torch.is_grad_enabled()
        start = expected.detach()
        spectrum = torch.complex(start.exp(), torch.zeros_like(start))
        before = spectrum
        for index in range(rounds):
            with torch.set_grad_enabled(gradients and index == rounds - 1):
                now = self.consistency(spectrum)
                trust = TRUST[0] + (TRUST[1] - TRUST[0]) * index / max(1, rounds - 1)
                relaxation = 1.0 if index == rounds - 1 else RELAXATION
                magnitude = self._corrected(torch.lerp(_log_magnitude(now), expected, trust), bands, relaxation)
                carried = torch.lerp(before, now, 1 + MOMENTUM)
                spectrum, before = carried * (magnitude - _log_magnitude(carried)).exp(), now
        return spectrum

    def _corrected(self, magnitude: Tensor, bands: Tensor, relaxation: float) -> Tensor:
        """Log magnitudes (B, F, K), nearer to having the given log bands (B, F, M)."""
        power, filters = self.consistency.mel.spec.power, self.consistency.mel.filters.to(magnitude)
        found = (magnitude * power).exp() @ filters.T
        missing = (bands - (found + EPSILON).log()).clamp(-LARGEST_STEP, LARGEST_STEP)
        return magnitude + relaxation / power * (missing @ self.spread.to(magnitude))


def _log_magnitude(spectrum: Tensor) -> Tensor:
    return (spectrum.real.square() + spectrum.imag.square() + TINY).log() / 2
