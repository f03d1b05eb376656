"""Presets that make sound of noise: WaveGAN as published, the large networks; and the costs that vocoder presets may use."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from pydantic import ValidationError

import advgen
from advgen import Batch, Sample
from advgen.config.load import load_config
from advgen.registry import find_plugin
from advgen.runs import checkpoint
from advgen_audio.config import AudioConfig
from advgen_audio.data.segments import pack_clips
from advgen_audio.modality import AudioModality
from advgen_audio.networks.critics import AudioDiscriminator
from advgen_audio.networks.spectral import SpectralGenerator
from advgen_audio.networks.wavegan import WaveganDiscriminator
from advgen_audio.spectra.front_ends import MelSpec
from advgen_audio.vocoding.modality import VocodingModality

sys.path.insert(0, str(Path(__file__).parent))
from test_vocoding import SMALL, tone

TINY = {
    "wavegan": ["options.channels=2", "options.noise_size=8"],
    "large": [
        "options.channels=8",
        "options.blocks=2",
        "options.noise_size=8",
        "options.wave_critic_channels=2",
        "options.spectral_critic_channels=2",
    ],
}


def preset(name: str) -> Any:
    return load_config(find_plugin("audio"), preset=name).config


def run(name: str, out: Path, *more: str, **options: Any) -> Path:
    given = [*TINY[name], "train.batch_size=8", "train.log_every=1", *more]
    advgen.train("audio", preset=name, out=out, overrides=given, progress=False, device="cpu", **options)
    return out


def test_wavegan_is_trained_as_published() -> None:
    config = preset("wavegan")
    assert (config.loss, config.train.batch_size, config.discriminator.steps, config.generator.steps) == (
        "wasserstein",
        64,
        5,
        1,
    )
    assert {name: penalty.weight for name, penalty in config.penalties.items()} == {"wgan_gp": 10.0}
    for player in (config.generator, config.discriminator):
        assert (player.optimizer, player.learning_rate, player.betas, player.weight_decay) == ("adam", 1e-4, (0.5, 0.9), 0.0)
    assert not config.average.enabled and not config.schedules


@pytest.mark.parametrize(
    ("name", "conditional"),
    [
        ("wavegan", True),
        ("large", False),
        pytest.param("wavegan", False, marks=pytest.mark.slow),
        pytest.param("large", True, marks=pytest.mark.slow),
    ],
)
def test_a_preset_trains_resumes_to_the_bit_and_is_sampled_with_and_without_classes(
    name: str, conditional: bool, tmp_path: Path
) -> None:
    options = [f"options.conditional={str(conditional).lower()}", "train.keep=9"]
    whole, parts = (
        run(name, tmp_path / "whole", *options, steps=2),
        run(name, tmp_path / "parts", *options, steps=2, stop_after=1),
    )
    advgen.resume(parts, progress=False, device="cpu")
    one, other = (checkpoint.load(folder / "checkpoints", 2)[0] for folder in (whole, parts))
    assert all(torch.equal(value, other["generator"][key]) for key, value in one["generator"].items())
    drawn = advgen.load_generator(whole, device="cpu").draw(3, label=2 if conditional else None)
    assert drawn.values.shape == (3, 1, 2048) and drawn.values.isfinite().all()
    assert drawn.condition.get("label", torch.tensor([])).tolist() == [2] * (3 if conditional else 0)


def test_the_whole_batch_is_shifted_alike_in_a_run() -> None:
    config = AudioConfig(networks="wavegan", channels=2, noise_size=4)
    critic = AudioModality(config, {"sample_rate_hz": 8000, "length": 1024, "classes": []}).discriminator()
    assert isinstance(critic, WaveganDiscriminator) and critic.shape.phase_shuffle == 2
    twice = torch.randn(1, 1, 1024).expand(2, 1, 1024)
    for seed in range(5):
        torch.manual_seed(seed)
        one, other = critic(twice, {}).heads[0].scores
        assert one.item() == pytest.approx(other.item(), abs=1e-6)


def test_networks_of_noise_are_refused_for_a_vocoder() -> None:
    with pytest.raises(ValidationError, match="leave out networks=wavegan"):
        AudioConfig(task="vocode", networks="wavegan")


@pytest.mark.parametrize(("rate_hz", "length"), [(16000, 16000), (22050, 22050), (24000, 24000)])
def test_the_large_networks_hold_a_second(rate_hz: int, length: int) -> None:
    options = AudioConfig(**preset("large").options)
    facts = {"sample_rate_hz": rate_hz, "length": length, "classes": ["a", "b"], "class_counts": [1, 1]}
    modality = AudioModality(options, facts)
    generator, critic = modality.generator(), modality.discriminator()
    assert isinstance(generator, SpectralGenerator) and isinstance(critic, AudioDiscriminator)
    with torch.no_grad():
        made = generator(torch.randn(1, 128), {"label": torch.tensor([1])})
        verdict = critic(critic.embed(made), {"label": torch.tensor([1])})
    assert made.values.shape == (1, 1, length) and len(verdict.heads) == 5
    millions = [sum(parameter.numel() for parameter in network.parameters()) / 1e6 for network in (generator, critic)]
    assert 15 < millions[0] < 30 and millions[1] < 60


def vocoding(**options: Any) -> VocodingModality:
    spec = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=64)
    facts = {"mel": spec.to_facts(), "examples": pack_clips(torch.zeros(1, 1024)), "sample_rate_hz": 8000}
    return VocodingModality(AudioConfig(task="vocode", **options), facts)


@pytest.mark.parametrize("scales", ["one", "many"])
def test_costs_are_nothing_at_equality_and_fall_on_the_way_there(scales: str) -> None:
    real = torch.from_numpy(tone(2048))[None, None] + 0.01 * torch.randn(2, 1, 2048, generator=torch.Generator().manual_seed(0))
    asked = vocoding(mel_scales=scales)
    for name in ("mel", "stft"):
        near, far = (real * scale for scale in (1.1, 1.5))
        costs = [float(asked.auxiliary(Batch(real), Sample(fake))[name]()) for fake in (real, near, far)]
        assert costs[0] < 1e-3 < costs[1] < costs[2], name
        silent = torch.zeros_like(real).requires_grad_()
        (slope,) = torch.autograd.grad(asked.auxiliary(Batch(real), Sample(silent))[name](), silent)
        assert slope.isfinite().all()


def test_many_scales_are_the_sum_of_seven() -> None:
    real, fake = torch.randn(2, 1, 1, 4096, generator=torch.Generator().manual_seed(0)) * 0.1
    many, one = (vocoding(mel_scales=scales) for scales in ("many", "one"))
    assert len(many._mel_distance().mels) == 7 and len(one._mel_distance().mels) == 1
    parts = [type(many._mel_distance())(mel.spec)(real[:, 0], fake[:, 0]) for mel in many._mel_distance().mels]
    found = many.auxiliary(Batch(real), Sample(fake))["mel"]()
    torch.testing.assert_close(found, torch.stack(parts).sum())


@pytest.mark.parametrize("name", ["vocos-small", "hifigan-v2"])
def test_any_vocoder_preset_takes_the_costs_by_weight(name: str, tmp_path: Path) -> None:
    for index in range(40):
        soundfile.write(tmp_path / f"{index}.wav", tone(1500, 200 + 10 * index), 8000)
    given = [*SMALL, "options.mel_scales=many", "auxiliary={mel=15.0, stft=2.5}"]
    advgen.train(
        "audio",
        data=tmp_path,
        preset=name,
        out=tmp_path / "run",
        overrides=[*given, "unset=['options.mel']"],
        steps=1,
        progress=False,
        device="cpu",
    )
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {"generator/loss", "generator/mel", "generator/stft", "generator/feature_matching"} <= set(row)
