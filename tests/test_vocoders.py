"""Vocoders: published sizes, exact lengths, stated reach, streaming, inference without weight norm, values."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advgen import ConfigError
from advgen_audio.measures.griffin_lim import GriffinLim
from advgen_audio.spectra.front_ends import SPECS, MelSpec, MelSpectrogram
from advgen_audio.spectra.inverse import InverseFourier
from advgen_audio.vocoders import (
    Bigvgan,
    BigvganShape,
    Hifigan,
    HifiganShape,
    RetrievalShape,
    RetrievalVocoder,
    Vocoder,
    Vocos,
    VocosShape,
    bigvgan_shape,
    hifigan_shape,
    stream,
    upsampling_strides,
)
from advgen_audio.vocoders.bigvgan import AliasFreeActivation, Snake, lowpass_filter

SPEC = MelSpec(rate_hz=8000, n_fft=64, hop=16, num_mels=8)
CENTRED = SPEC.model_copy(update={"padding": "center", "log": "10", "power": 2.0})
ODD = MelSpec(rate_hz=8000, n_fft=50, hop=15, num_mels=8)
SMALL: dict[str, Callable[[], Vocoder]] = {
    "vocos center": lambda: Vocos(VocosShape(8, 64, 16, 16, 32, 2)),
    "vocos same": lambda: Vocos(VocosShape(8, 64, 16, 16, 32, 2, alignment="same")),
    "vocos odd hop": lambda: Vocos(VocosShape(8, 50, 15, 16, 32, 2)),
    "hifigan paired": lambda: Hifigan(HifiganShape(8, 16, 16, 2)),
    "hifigan single": lambda: Hifigan(HifiganShape(8, 16, 16, 2, (), False, (3, 5), ((1, 2), (2, 6)))),
    "hifigan odd hop": lambda: Hifigan(HifiganShape(8, 15, 16, 2, kernels=(3,), dilations=((1, 3),))),
    "bigvgan": lambda: Bigvgan(BigvganShape(8, 16, 16, 2, kernels=(3, 7), dilations=((1, 3), (1, 3)))),
    "bigvgan version 2": lambda: Bigvgan(
        BigvganShape(8, 15, 16, 2, activation="snake", final="clamp", kernels=(3,), dilations=((1, 3),))
    ),
    "retrieval same": lambda: RetrievalVocoder(SPEC, RetrievalShape(16, 32, 2, 2)),
    "retrieval center": lambda: RetrievalVocoder(CENTRED, RetrievalShape(16, 32, 2, 1)),
    "retrieval odd hop": lambda: RetrievalVocoder(ODD, RetrievalShape(16, 32, 1, 2)),
}
NORMED = [name for name in SMALL if not name.startswith(("vocos", "retrieval"))]


def small(name: str) -> Vocoder:
    """A small vocoder whose weights are large enough that everything it looks at shows."""
    torch.manual_seed(0)
    vocoder = SMALL[name]()
    for parameter in vocoder.parameters():
        nn.init.normal_(parameter, std=0.2)
    return vocoder


def mel(num_frames: int, num_mels: int = 8, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, num_mels, num_frames, generator=torch.Generator().manual_seed(num_frames))


def count(build: Callable[[], nn.Module]) -> int:
    """Parameters as published: weights, without weight norm's extra lengths. Nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().for_inference().parameters())


@pytest.mark.parametrize(("version", "millions"), [(1, 13.926), (2, 0.926), (3, 1.462)])
def test_hifigan_has_the_published_number_of_parameters(version, millions):
    assert round(count(lambda: Hifigan(hifigan_shape(version))) / 1e6, 3) == millions


@pytest.mark.parametrize(("size", "millions"), [("base", 14), ("large", 112)])
def test_bigvgan_has_the_published_number_of_parameters(size, millions):
    assert round(count(lambda: Bigvgan(bigvgan_shape(size))) / 1e6) == millions


def test_vocos_has_the_published_number_of_parameters():
    assert round(count(lambda: Vocos(VocosShape())) / 1e6, 2) == 13.53


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("num_frames", [1, 2, 7, 33])
def test_every_number_of_frames_gives_exactly_that_many_hops(name, num_frames):
    vocoder = small(name)
    found = vocoder(mel(num_frames))
    assert found.shape == (2, 1, num_frames * vocoder.hop) and found.isfinite().all()


@pytest.mark.parametrize("name", SMALL)
def test_a_frame_reaches_as_far_as_stated_and_no_further(name):
    vocoder = small(name).double()
    middle = vocoder.context_frames + 2
    frames = mel(2 * middle + 1, batch=1).double().requires_grad_()
    own = vocoder(frames)[..., middle * vocoder.hop : (middle + 1) * vocoder.hop]
    if isinstance(vocoder, RetrievalVocoder):
        # Its rounds let no gradient through.
        reached = torch.tensor([at - middle for at in range(2 * middle + 1) if shifts(vocoder, frames, at, own)])
    else:
        (slope,) = torch.autograd.grad(own.square().sum(), frames)
        reached = slope.abs().amax(dim=(0, 1)).nonzero()[:, 0] - middle
    assert max(-reached.min(), reached.max()) == vocoder.context_frames
    assert vocoder.receptive_field == 2 * vocoder.context_frames + 1


@torch.no_grad()
def shifts(vocoder: Vocoder, frames: torch.Tensor, at: int, own: torch.Tensor) -> bool:
    """Whether another mel in one frame changes the middle frame's samples."""
    other, middle = frames.clone(), frames.shape[-1] // 2
    other[..., at] += 0.5
    return not torch.equal(vocoder(other)[..., middle * vocoder.hop : (middle + 1) * vocoder.hop], own)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("chunk_frames", [1, 5, 64])
def test_streaming_equals_synthesis_of_the_whole_file(name, chunk_frames):
    vocoder, frames = small(name), mel(41)
    if isinstance(vocoder, RetrievalVocoder):
        vocoder, frames = vocoder.for_inference(), frames.double()
    whole = vocoder(frames).detach()
    chunks = list(stream(vocoder, frames, chunk_frames))
    assert all(chunk.shape[-1] == chunk_frames * vocoder.hop for chunk in chunks[:-1])
    torch.testing.assert_close(torch.cat(chunks, dim=-1), whole, atol=1e-4 * float(whole.abs().max().clamp(max=1)), rtol=0)


def test_streaming_leaves_the_callers_gradients_on():
    for _ in stream(small("vocos center"), mel(4), 2):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", SMALL)
def test_folding_weight_norm_keeps_the_output_and_the_original(name):
    vocoder, frames = small(name), mel(9)
    before = vocoder(frames)
    folded = vocoder.for_inference()
    found = folded(frames.to(next(folded.parameters()).dtype)).to(before.dtype)
    # Rounds of retrieval magnify what double precision changes.
    close = 1e-3 * float(before.detach().abs().max()) if isinstance(vocoder, RetrievalVocoder) else 1e-5
    torch.testing.assert_close(found, before, atol=close, rtol=1e-4)
    assert not [key for key in folded.state_dict() if "parametrizations" in key]
    assert (name not in NORMED) or [key for key in vocoder.state_dict() if "parametrizations" in key]
    assert all(parameter.requires_grad for parameter in vocoder.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_is_trained(name):
    vocoder, frames = small(name), mel(5)
    vocoder(frames).square().mean().backward()
    if isinstance(vocoder, RetrievalVocoder):
        spec = vocoder.consistency.mel.spec
        vocoder.nats(frames, torch.randn(2, (5 - (spec.padding == "center")) * spec.hop)).mean().backward()
    for key, parameter in vocoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize(
    ("hop", "num_stages", "strides"),
    [
        (256, 4, (8, 8, 2, 2)),
        (256, 3, (8, 8, 4)),
        (300, 4, (6, 5, 5, 2)),
        (441, 4, (7, 7, 3, 3)),
        (512, 4, (8, 8, 4, 2)),
        (7, 4, (7,)),
    ],
)
def test_strides_follow_from_the_hop_and_are_the_published_ones_at_256(hop, num_stages, strides):
    assert upsampling_strides(hop, num_stages) == strides


def test_the_large_bigvgan_has_the_published_strides():
    assert upsampling_strides(256, 6, largest=4) == (4, 4, 2, 2, 2, 2)


def test_hops_and_shapes_that_cannot_work_are_refused():
    with pytest.raises(ConfigError, match="hop 257"):
        upsampling_strides(257, 4)
    with pytest.raises(ConfigError, match="multiply to 64"):
        Hifigan(HifiganShape(strides=(8, 8)))
    with pytest.raises(ConfigError, match="halved 4 times"):
        Hifigan(HifiganShape(channels=24))
    with pytest.raises(ConfigError, match="no window"):
        Vocos(VocosShape(n_fft=512, hop=256))
    with pytest.raises(ConfigError, match=r"\(2, 9, 5\), expected \(B, 8, F\)"):
        small("hifigan paired")(mel(5, num_mels=9))
    with pytest.raises(ConfigError, match="F >= 1"):
        small("vocos center")(mel(0))
    with pytest.raises(ConfigError, match="chunks of 0"):
        next(stream(small("vocos center"), mel(5), 0))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("hifigan paired", {"conv_pre.weight_g", "ups.0.weight_v", "resblocks.5.convs2.2.bias", "conv_post.bias"}),
        ("hifigan single", {"resblocks.3.convs.1.weight_v"}),
        ("bigvgan", {"ups.1.0.weight_g", "resblocks.3.activations.3.act.beta", "activation_post.act.alpha", "conv_post.bias"}),
    ],
)
def test_published_checkpoints_load_as_they_are(name, keys):
    vocoder, frames = small(name), mel(6)
    old = {
        key.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): value
        for key, value in vocoder.state_dict().items()
    }
    assert keys <= set(old)
    fresh = SMALL[name]()
    fresh.load_state_dict(old)
    torch.testing.assert_close(fresh(frames), vocoder(frames))


@pytest.mark.parametrize("alignment", ["same", "center"])
@pytest.mark.parametrize("hop", [256, 300])
def test_the_inverse_transform_returns_the_waveform_the_spectrum_was_made_of(alignment, hop):
    waveform = torch.randn(2, 12 * hop)
    left = 512 if alignment == "center" else (1024 - hop) // 2
    padded = F.pad(waveform, (left, 1024))
    spectrum = torch.stft(padded, 1024, hop, window=torch.hann_window(1024), center=False, return_complex=True)[..., :12]
    found = InverseFourier(1024, hop, alignment)(spectrum.real, spectrum.imag)
    kept = 12 * hop - 1024  # the last samples' later frames are cut off, and with them nothing but their own weight
    torch.testing.assert_close(found[:, :kept], waveform[:, :kept], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found, waveform, atol=1e-3, rtol=1e-3)


def test_the_inverse_transform_equals_torchs_where_torch_has_one():
    spectrum = torch.randn(2, 513, 9, dtype=torch.complex64)
    spectrum.imag[:, [0, -1]] = 0
    expected = torch.istft(spectrum, 1024, 256, window=torch.hann_window(1024), center=True)
    torch.testing.assert_close(
        InverseFourier(1024, 256, "center")(spectrum.real, spectrum.imag)[:, : 8 * 256], expected, atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("name", ["vocos center", "vocos same", "vocos odd hop"])
@pytest.mark.parametrize("num_frames", [1, 9])
def test_the_network_for_export_has_the_same_output_without_complex_numbers(name, num_frames, monkeypatch):
    vocoder, frames = small(name), mel(num_frames)
    expected = vocoder(frames)
    exported = vocoder.for_export()
    monkeypatch.delattr(torch, "complex")
    monkeypatch.delattr(torch.fft, "irfft")
    torch.testing.assert_close(exported(frames), expected, atol=1e-5, rtol=1e-4)


def test_vocos_aligns_frames_with_those_of_its_mels():
    spec = SPECS["vocos"]
    num_samples = 5 * spec.hop + 17
    frames = MelSpectrogram(spec)(0.1 * torch.randn(1, num_samples))
    vocoder = Vocos(VocosShape(channels=16, widened=16, blocks=1, alignment=spec.padding))
    assert vocoder(frames).shape[-1] >= num_samples


def test_a_loud_vocos_is_finite_and_so_is_its_gradient():
    vocoder = SMALL["vocos center"]()
    nn.init.constant_(vocoder.out.bias, 1e4)
    vocoder(mel(3)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in vocoder.parameters())


def test_snake_is_x_plus_the_squared_sine():
    x = torch.linspace(-3, 3, 20)[None, None]
    torch.testing.assert_close(Snake(1, beta=False)(x), x + x.sin() ** 2)
    snake = Snake(1, beta=True)
    nn.init.constant_(snake.alpha, math.log(2.0))
    nn.init.constant_(snake.beta, math.log(4.0))
    torch.testing.assert_close(snake(x), x + (2 * x).sin() ** 2 / 4)


def test_the_alias_free_activation_equals_its_definition_with_inserted_zeros():
    activation = AliasFreeActivation(3, "snakebeta")
    hidden, taps = torch.randn(2, 3, 21), lowpass_filter().float().expand(3, 1, 12)
    doubled = 2 * F.conv_transpose1d(F.pad(hidden, (5, 5), mode="replicate"), taps, stride=2, groups=3)[..., 15:-15]
    bent = doubled + doubled.sin() ** 2
    expected = F.conv1d(F.pad(bent, (5, 6), mode="replicate"), taps, stride=2, groups=3)
    torch.testing.assert_close(activation(hidden), expected)


def test_the_filter_passes_low_and_stops_high_frequencies():
    response = torch.fft.rfft(lowpass_filter(), 1024).abs()
    assert abs(response[0] - 1) < 1e-12 and abs(response[256] - 0.5) < 0.02 and response[430:].max() < 10 ** (-45 / 20)


def test_vocoders_run_in_half_precision_under_autocast():
    for name in ("vocos center", "hifigan paired", "bigvgan"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert SMALL[name]()(mel(3)).isfinite().all()


@pytest.mark.parametrize("name", ["vocos center", "hifigan paired", "bigvgan"])
def test_a_vocoder_cast_to_half_precision_is_near_the_full_one(name):
    vocoder, frames = small(name).for_inference(), mel(3)
    full = vocoder(frames)
    half = vocoder.bfloat16()(frames.bfloat16()).float()
    assert (half - full).square().mean() < 0.1 * full.square().mean()


def voice(spec: MelSpec, seconds: float = 0.5) -> torch.Tensor:
    """(1, T): a gliding tone with harmonics over quiet noise."""
    time = torch.arange(int(seconds * spec.rate_hz)) / spec.rate_hz
    tone = torch.stack([(2 * torch.pi * harmonic * (150 + 80 * time) * time).sin() / harmonic for harmonic in range(1, 9)])
    noise = 0.003 * torch.randn(time.shape, generator=torch.Generator().manual_seed(0))
    return (0.2 * tone.sum(0) + noise)[None]


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_retrieval_rebuilds_mels_better_than_griffin_lim_even_untrained(power: float) -> None:
    spec = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=64, power=power)
    mel_of, waveform = MelSpectrogram(spec), voice(spec)
    frames = mel_of(waveform)
    with torch.no_grad():
        copy = RetrievalVocoder(spec, RetrievalShape(16, 32, 1, 64)).eval()(frames)[:, 0]
    other = GriffinLim(spec, iterations=64)(frames)
    assert (mel_of(copy) - frames).abs().mean() < 0.7 * (mel_of(other) - frames).abs().mean()


def test_likelihood_teaches_magnitudes_and_a_cost_of_the_waveform_reaches_them() -> None:
    torch.manual_seed(0)
    spec = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=32)
    vocoder, waveform = RetrievalVocoder(spec, RetrievalShape(32, 64, 1, 4)), voice(spec)
    frames = MelSpectrogram(spec)(waveform)
    optimizer = torch.optim.Adam(vocoder.parameters(), 5e-3)
    costs = list[float]()
    for _ in range(40):
        cost = vocoder.nats(frames, waveform).mean()
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        costs.append(cost.item())
    assert vocoder.nats(frames, waveform).shape == (1, frames.shape[-1], 129) and costs[-1] < costs[0] - 0.3
    optimizer.zero_grad()
    vocoder(frames).square().sum().backward()
    assert vocoder.out.bias.grad is not None and vocoder.out.bias.grad.isfinite().all() and vocoder.out.bias.grad.any()


def test_silence_and_full_scale_are_finite_through_retrieval() -> None:
    spec = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=32)
    vocoder, mel_of = RetrievalVocoder(spec, RetrievalShape(16, 32, 1, 8)), MelSpectrogram(spec)
    for waveform in (torch.zeros(1, 640), torch.ones(1, 640), voice(spec).sign()):
        copy = vocoder(mel_of(waveform))
        (copy.square().mean() + vocoder.nats(mel_of(waveform), waveform).mean()).backward()
        assert copy.isfinite().all() and all(p.grad.isfinite().all() for p in vocoder.parameters() if p.grad is not None)
    assert vocoder(mel_of(torch.zeros(1, 640))).abs().max() < 1e-3
