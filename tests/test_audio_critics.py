"""Critics of waveforms and the distances that train vocoders: sizes, shapes, one pass, slopes, values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from advgen import ConfigError, Head, Sample, Verdict
from advgen_audio.discriminators import (
    BandCritic,
    CriticSet,
    MultiBandCritic,
    MultiPeriodCritic,
    MultiResolutionCritic,
    MultiScaleCritic,
    PeriodCritic,
    ResolutionCritic,
    ScaleCritic,
    WaveformCritic,
    bigvgan_critics,
    hifigan_critics,
    vocos_critics,
)
from advgen_audio.discriminators.spectral import normalise
from advgen_audio.reconstruction import (
    MelDistance,
    SpectralDistance,
    feature_matching,
    loss_spec,
    multi_scale_specs,
)
from advgen_audio.spectra.front_ends import SPECS, MelSpec

SMALL_RESOLUTIONS = ((64, 16, 48), (128, 30, 128))
SMALL: dict[str, Callable[[], WaveformCritic]] = {
    "period": lambda: MultiPeriodCritic(2, (2, 3, 5)),
    "scale": lambda: MultiScaleCritic(8),
    "resolution": lambda: MultiResolutionCritic(4, SMALL_RESOLUTIONS),
    "rectangular": lambda: MultiResolutionCritic(4, SMALL_RESOLUTIONS, rectangular=True),
    "band": lambda: MultiBandCritic(4, (128, 64)),
}
LENGTH = 500


def small(name: str) -> WaveformCritic:
    torch.manual_seed(0)
    return SMALL[name]()


def every_critic() -> CriticSet:
    return CriticSet({name: small(name) for name in SMALL})


def waveforms(num_samples: int = LENGTH, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(batch, 1, num_samples, generator=torch.Generator().manual_seed(seed))


def count(build: Callable[[], nn.Module]) -> int:
    """Parameters as published: weights, without weight norm's extra lengths. Nothing is allocated."""
    with torch.device("meta"):
        module = build()
    for part in module.modules():
        if parametrize.is_parametrized(part, "weight") and hasattr(part.parametrizations.weight, "original1"):
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_multi_period_critic_has_the_published_number_of_parameters():
    assert round(count(MultiPeriodCritic) / 1e6, 1) == 41.1
    assert round(count(lambda: MultiPeriodCritic(2)) / 1e6, 2) == 0.16


def test_the_multi_scale_critic_has_the_published_number_of_parameters():
    assert round(count(lambda: MultiScaleCritic(spectral_first=False)) / 1e6, 1) == 29.6


def test_the_spectral_critics_have_the_number_of_parameters_their_layers_have():
    layers = (3 * 9 * 32 + 32) + 3 * (3 * 9 * 32 * 32 + 32) + (9 * 32 * 32 + 32)
    assert count(MultiResolutionCritic) == 3 * (layers + 9 * 32 + 1) == 280_419
    layers_of_two = layers + 3 * 9 * 32
    assert count(MultiBandCritic) == 3 * (5 * layers_of_two + 9 * 32 + 1) == 1_411_587


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("num_samples", [1, 2, 7, 63, 500, 777])
def test_any_length_gives_finite_scores_and_features(name, num_samples):
    for head in small(name)(waveforms(num_samples)):
        assert head.scores.dim() >= 2 and head.scores.shape[0] == 2 and head.scores.numel() > 0
        assert len(head.features) >= 5
        assert all(tensor.isfinite().all() and len(tensor) == 2 for tensor in (head.scores, *head.features))


def test_published_critics_have_the_published_positions():
    batch = torch.zeros(1, 1, 8192)
    shapes = {
        "period": (PeriodCritic(3), (1, 34, 3)),
        "scale": (ScaleCritic(), (1, 128)),
        "resolution": (ResolutionCritic((1024, 120, 600)), (1, 513, 9)),
        "band": (BandCritic(1024), (1, 33, 7 + 10 + 16 + 16 + 17)),
    }
    for name, (critic, shape) in shapes.items():
        assert critic(batch)[0].scores.shape == shape, name


def test_a_length_that_divides_by_the_period_is_not_padded():
    critic, waveform = PeriodCritic(5, 2), waveforms(500)
    torch.testing.assert_close(critic(waveform)[0].features[0], F.leaky_relu(critic.convs[0](waveform.view(2, 1, 100, 5)), 0.1))


@pytest.mark.parametrize("build", [lambda **kw: PeriodCritic(3, 2, **kw), lambda **kw: BandCritic(64, 2, **kw)])
def test_first_layers_can_be_left_out_of_the_features(build):
    whole, part = build(), build(skip_first=True)
    part.load_state_dict(whole.state_dict())
    (one,), (other,) = whole(waveforms()), part(waveforms())
    kept = [feature for index, feature in enumerate(one.features) if index % 5]
    assert len(other.features) == len(kept) == 4 * len(one.features) // 5
    assert all(torch.equal(left, right) for left, right in zip(kept, other.features, strict=True))
    assert torch.equal(one.scores, other.scores)


def test_periods_are_columns():
    """A change of every fifth sample shows in one column of the first layer only."""
    critic, waveform = PeriodCritic(5, 2), waveforms(100)
    changed = waveform.clone()
    changed[..., 3::5] += 1
    difference = (critic(changed)[0].features[0] - critic(waveform)[0].features[0]).abs().amax(dim=(0, 1, 2))
    assert difference[3] > 0 and difference[[0, 1, 2, 4]].max() == 0


def test_each_scale_sees_half_the_rate():
    lengths = [head.features[0].shape[-1] for head in small("scale")(waveforms(512))]
    assert lengths == [512, 257, 129]


def test_bands_cover_every_bin_once():
    for window in (64, 512, 2048):
        bands = BandCritic(window, 1).bands
        assert [bin for low, high in bands for bin in range(low, high)] == list(range(window // 2 + 1))


def test_normalised_clips_have_no_mean_and_one_peak_whatever_their_level():
    waveform = waveforms()[:, 0]
    found = normalise(waveform + 0.1)
    torch.testing.assert_close(found.abs().amax(-1), torch.full((2,), 0.8), atol=1e-3, rtol=0)
    torch.testing.assert_close(normalise(0.5 * waveform), found, atol=1e-4, rtol=1e-3)
    assert normalise(torch.zeros(1, 9)).abs().max() == 0


def test_real_and_fake_in_one_pass_equal_two_passes():
    critics, real, fake = every_critic().eval(), waveforms(seed=1), waveforms(seed=2, batch=3)
    pair = critics.judge_pair(real, fake)
    for found, waveform in zip(pair, (real, fake), strict=True):
        expected = critics(waveform, {})
        for one, other in zip(found.heads, expected.heads, strict=True):
            assert one.weight == other.weight
            for left, right in zip((one.scores, *one.features), (other.scores, *other.features), strict=True):
                torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-4)


def test_a_set_is_a_discriminator_of_every_head_with_its_weight():
    summed = CriticSet({"period": small("period"), "band": small("band")}, {"band": 0.1})
    shared = CriticSet({"period": small("period"), "band": small("band")}, {"band": 0.1}, share="mean")
    sample = Sample(waveforms())
    assert [head.weight for head in summed(summed.embed(sample), {}).heads] == [1.0, 1.0, 1.0, 0.1, 0.1]
    weights = [head.weight for head in shared(shared.embed(sample), {}).heads]
    assert weights == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0.05, 0.05])


def test_a_set_names_what_it_cannot_use():
    with pytest.raises(ConfigError, match="weights for bands"):
        CriticSet({"period": small("period")}, {"bands": 0.1})
    with pytest.raises(ConfigError, match="none"):
        CriticSet({})
    with pytest.raises(ConfigError, match=r"\(2, 500\), expected \(B, 1, T\)"):
        every_critic()(waveforms()[:, 0], {})
    with pytest.raises(ConfigError, match="shorter than its hop"):
        ResolutionCritic((64, 80, 64))


def test_the_published_sets_have_their_heads():
    with torch.device("meta"):
        sets = {"hifigan": hifigan_critics(), "bigvgan": bigvgan_critics(), "vocos": vocos_critics()}
    assert {name: list(found.critics) for name, found in sets.items()} == {
        "hifigan": ["period", "scale"],
        "bigvgan": ["period", "resolution"],
        "vocos": ["period", "band"],
    }
    assert sets["vocos"].weights == {"period": 1.0, "band": 0.1} and sets["vocos"].share == "mean"


@pytest.mark.parametrize("name", SMALL)
def test_a_gradient_penalty_reaches_every_weight_also_on_silence(name):
    critics = CriticSet({name: small(name)})
    for waveform in (waveforms(), torch.zeros(2, 1, LENGTH)):
        critics.zero_grad()
        seen = waveform.clone().requires_grad_()
        scores = sum(head.scores.square().sum() for head in critics(seen, {}).heads)
        (slope,) = torch.autograd.grad(scores, seen, create_graph=True)
        slope.square().sum().backward()
        weights = [parameter for key, parameter in critics.named_parameters() if "weight" in key]
        assert slope.isfinite().all() and weights
        assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights)


@pytest.mark.parametrize("name", ["period", "resolution", "band"])
def test_slopes_and_their_slopes_equal_finite_differences(name):
    torch.manual_seed(0)
    critic = {
        "period": lambda: PeriodCritic(3, 1),
        "resolution": lambda: ResolutionCritic((32, 8, 24), 1),
        "band": lambda: BandCritic(32, 1),
    }[name]().double()
    seen = waveforms(40, batch=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: critic(x)[0].scores.sum(), seen)
    assert torch.autograd.gradgradcheck(lambda x: critic(x)[0].scores.square().sum(), seen)


def test_critics_run_in_half_precision_under_autocast():
    # On some CPUs the library's half-precision convolution reads beyond a band of one or two bins, which (512,) does not make.
    critics = CriticSet({name: small(name) for name in SMALL if name != "band"} | {"band": MultiBandCritic(4, (512,))})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        heads = critics(waveforms(), {}).heads
    assert all(head.scores.isfinite().all() for head in heads)


def verdict(*heads: tuple[float, list[list[float]], list[float]]) -> Verdict:
    return Verdict(
        tuple(
            Head(torch.tensor(scores)[None], weight=weight, features=tuple(torch.tensor(layer)[None] for layer in layers))
            for weight, layers, scores in heads
        )
    )


def test_feature_matching_adds_mean_differences_of_layers_by_weight():
    real = verdict((1.0, [[1.0, 2.0], [0.0]], [5.0]), (0.5, [[1.0]], [0.0]))
    fake = verdict((1.0, [[2.0, 4.0], [3.0]], [4.0]), (0.5, [[2.0]], [4.0]))
    # first head: (1 + 2) / 2 = 1.5, then 3, then 1 for the scores; second: half of 1, then half of 4.
    assert feature_matching(real=real, fake=fake).item() == pytest.approx(1.5 + 3 + 1 + 0.5 + 2)
    assert feature_matching(real=real, fake=fake, include_scores=False).item() == pytest.approx(1.5 + 3 + 0.5)


def test_feature_matching_trains_the_fake_side_alone():
    critics = every_critic()
    real, fake = waveforms(seed=1).requires_grad_(), waveforms(seed=2).requires_grad_()
    feature_matching(real=critics(real, {}), fake=critics(fake, {})).backward()
    assert real.grad is None and fake.grad is not None and fake.grad.abs().max() > 0
    same = critics.eval()(real, {})
    assert feature_matching(real=same, fake=same).item() == 0


def test_feature_matching_refuses_verdicts_without_a_match():
    one, two = verdict((1.0, [], [1.0])), verdict((1.0, [], [1.0]), (1.0, [], [1.0]))
    with pytest.raises(ConfigError, match="1 real and 2 fake"):
        feature_matching(real=one, fake=two)
    with pytest.raises(ConfigError, match="without features"):
        feature_matching(real=one, fake=one, include_scores=False)


def test_twice_the_amplitude_is_log_two_away_in_each_mel():
    waveform = waveforms(4096)[:, 0]
    natural = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=20)
    assert MelDistance(natural)(waveform, 2 * waveform).item() == pytest.approx(math.log(2), rel=1e-4)
    decimal = natural.model_copy(update={"log": "10"})
    assert MelDistance(natural, decimal)(waveform, 2 * waveform).item() == pytest.approx(math.log(2) + math.log10(2), rel=1e-4)
    assert MelDistance(natural)(waveform, waveform).item() == 0


def test_the_many_scales_are_the_published_ones():
    specs = multi_scale_specs(24000)
    assert [spec.n_fft for spec in specs] == [32, 64, 128, 256, 512, 1024, 2048]
    assert [spec.num_mels for spec in specs] == [5, 10, 20, 40, 80, 160, 320]
    assert all(spec.hop * 4 == spec.n_fft and spec.log == "10" for spec in specs)


def test_a_vocoder_is_trained_up_to_half_the_rate():
    assert loss_spec(SPECS["hifigan"]).highest_hz == 11025.0 and SPECS["hifigan"].highest_hz == 8000.0


@pytest.mark.parametrize("over", ["batch", "clip"])
def test_twice_the_amplitude_has_a_convergence_of_one_and_log_two(over):
    waveform = waveforms(4096)[:, 0]
    convergence, logarithm = SpectralDistance(over=over)(waveform, 2 * waveform)
    assert convergence.item() == pytest.approx(1.0, rel=1e-4)
    assert logarithm.item() == pytest.approx(math.log(2), rel=1e-4)


def test_the_spectral_distance_is_parallel_wavegans():
    real, fake = waveforms(3000, seed=1)[:, 0], waveforms(3000, seed=2)[:, 0]
    expected = []
    for n_fft, hop, window in ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)):
        magnitudes = [
            torch.stft(x, n_fft, hop, window, torch.hann_window(window), return_complex=True).abs().square().clamp(1e-7).sqrt()
            for x in (real, fake)
        ]
        convergence = torch.linalg.vector_norm(magnitudes[0] - magnitudes[1]) / torch.linalg.vector_norm(magnitudes[0])
        expected.append((convergence, F.l1_loss(magnitudes[0].log(), magnitudes[1].log())))
    found = SpectralDistance()(real, fake)
    for index in range(2):
        torch.testing.assert_close(found[index], torch.stack([pair[index] for pair in expected]).mean())


def test_a_loud_clip_hides_a_quiet_one_over_the_batch_but_not_over_clips():
    real = waveforms(4096)[:, 0] * torch.tensor([[1.0], [0.01]])
    fake = torch.stack([real[0], 2 * real[1]])
    assert SpectralDistance()(real, fake)[0] < 0.02
    assert SpectralDistance(over="clip")(real, fake)[0].item() == pytest.approx(0.5, rel=1e-2)


@pytest.mark.parametrize("silent", ["real", "fake", "both"])
def test_silence_gives_finite_distances_and_slopes(silent):
    real, fake = waveforms(3000, seed=1)[:, 0], waveforms(3000, seed=2)[:, 0]
    real = torch.zeros_like(real) if silent != "fake" else real
    fake = (torch.zeros_like(fake) if silent != "real" else fake).requires_grad_()
    distances = [MelDistance(SPECS["vocos"])(real, fake), MelDistance(*multi_scale_specs(8000))(real, fake)]
    distances += [*SpectralDistance()(real, fake), *SpectralDistance(over="clip")(real, fake)]
    for distance in distances:
        (slope,) = torch.autograd.grad(distance, fake, retain_graph=True)
        assert distance.isfinite() and slope.isfinite().all()
        if silent == "both":
            assert distance < 1e-4
