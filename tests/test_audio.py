"""The audio plugin: its corpus, its data reading, its networks, its files and its judge."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pydantic import ValidationError

import advgen_audio
from advgen import Batch, Corpus, DataError, DataRequest, Sample
from advgen_audio.config import AudioConfig
from advgen_audio.data import loading as audio_data
from advgen_audio.data import notes
from advgen_audio.data.files import to_int16
from advgen_audio.modality import AudioModality
from advgen_audio.networks.critics import AudioDiscriminator, CriticShape, shuffle_phase
from advgen_audio.spectra.fourier import InverseShortTimeFourier, PhaseAdvance

SMALL = {"channels": 8, "blocks": 1, "noise_size": 8, "wave_critic_channels": 2, "spectral_critic_channels": 4}


@pytest.fixture(scope="module")
def notes_corpus() -> Corpus:
    return AudioModality.read(AudioConfig(), DataRequest(None))


@pytest.fixture(scope="module")
def rendered() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return notes.make_notes()


def tone(num_samples: int, rate_hz: int = 8000, frequency_hz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / rate_hz).astype(np.float32)


def fill(folder: Path, count: int = 40, num_samples: int = 1500, suffix: str = "wav") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        soundfile.write(folder / f"{index % 2}_me_{index}.{suffix}", tone(num_samples, frequency_hz=300 + 10 * index), 8000)
    return folder


def small_modality(length: int = 2048, num_classes: int = 3) -> AudioModality:
    names = [f"c{index}" for index in range(num_classes)]
    facts = {"corpus": "folder", "sample_rate_hz": 8000, "length": length, "classes": names, "class_counts": [1] * num_classes}
    return AudioModality(AudioConfig(**SMALL), facts)


def test_the_reader_reads_every_factor_of_the_corpus(rendered):
    waveforms, factors = rendered
    reading = notes.read_notes(waveforms)
    assert reading.valid.double().mean() >= 0.98
    assert not reading.between.any()
    for name, levels in factors.items():
        assert (reading.factors[name] == levels).double().mean() >= 0.98, name


def test_a_note_of_middling_loudness_is_between_the_levels(rendered):
    waveforms, factors = rendered
    soft = waveforms[(factors["loudness"] == 0).nonzero()[0, 0]]
    reading = notes.read_notes(torch.stack([soft, soft * 5**0.5, soft * 5]))
    assert reading.between.tolist() == [False, True, False]
    assert reading.factors["loudness"][[0, 2]].tolist() == [0, 1]


def test_noise_silence_and_chords_are_not_notes(rendered):
    waveforms, _ = rendered
    chord = waveforms[-1] + waveforms[-1 - 8 * 4]
    clips = torch.stack([0.1 * torch.randn(2048, generator=torch.Generator().manual_seed(0)), torch.zeros(2048), chord])
    assert not notes.read_notes(clips).valid.any()


def test_the_corpus_is_the_same_at_every_call_and_uniform_in_every_factor(rendered):
    waveforms, factors = rendered
    assert torch.equal(notes.make_notes()[0], waveforms)
    for name, levels in factors.items():
        assert notes.total_variation(levels, notes.FACTOR_SIZES[name]) == 0.0


def test_metrics_of_held_out_notes_are_near_perfect(notes_corpus):
    modality = AudioModality(AudioConfig(), notes_corpus.facts)
    source = notes_corpus.splits["test"]
    batch = source.batch(torch.arange(len(source)), torch.Generator())
    found = modality.metrics(batch, batch)
    assert found["valid_share"] >= 0.98
    assert max(value for name, value in found.items() if name.startswith("factor_tv/")) < 0.15


def test_total_variation_of_one_level_among_four_is_three_quarters():
    assert notes.total_variation(torch.zeros(10, dtype=torch.int64), 4) == pytest.approx(0.75)


def test_any_rate_channel_count_and_format_becomes_mono_at_the_common_rate(tmp_path):
    fill(tmp_path)
    soundfile.write(tmp_path / "0_stereo_1.flac", np.stack([tone(3000, 16000), tone(3000, 16000)], 1), 16000)
    soundfile.write(tmp_path / "1_other_1.ogg", tone(3000, 22050), 22050)
    soundfile.write(tmp_path / "1_other_2.mp3", tone(3000, 22050), 22050)
    loaded = audio_data.load_folder(AudioConfig(), DataRequest(tmp_path))
    assert (len(loaded.names), loaded.rate_hz, loaded.source.length, loaded.bad) == (43, 8000, 2048, ())
    size = int(loaded.source.sizes[loaded.names.index("0_stereo_1.flac")])
    assert size == 1500
    assert float(loaded.source.batch(torch.arange(43), torch.Generator()).values.abs().max()) == pytest.approx(0.95, abs=0.01)


def test_resampling_keeps_the_frequency(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(16000, 16000, 500.0), 16000)
    file = audio_data.scan(tmp_path, AudioConfig(), audio_data.Rejects(tmp_path, 0))[0]
    clip = audio_data.load_clip(file, 8000, True)
    assert int(torch.fft.rfft(clip).abs().argmax()) == 500


def test_labels_come_from_sub_folders_or_from_a_pattern(tmp_path):
    fill(tmp_path / "a" / "cat")
    fill(tmp_path / "a" / "dog")
    corpus = AudioModality.read(AudioConfig(), DataRequest(tmp_path / "a"))
    assert corpus.facts["classes"] == ["cat", "dog"]
    fill(tmp_path / "b")
    by_pattern = AudioModality.read(AudioConfig(label_pattern="^(?P<label>[^_]+)_"), DataRequest(tmp_path / "b"))
    assert by_pattern.facts["classes"] == ["0", "1"]
    assert sum(by_pattern.facts["class_counts"]) == len(by_pattern.splits["train"])
    assert AudioModality.read(AudioConfig(conditional=False), DataRequest(tmp_path / "a")).facts["classes"] == []


def test_a_test_pattern_fixes_the_test_split(tmp_path):
    config = AudioConfig(test_pattern=r"_[0-4]\.wav$")
    loaded = audio_data.load_folder(config, DataRequest(fill(tmp_path)))
    splits = audio_data.split_clips(loaded.names, config, DataRequest(tmp_path))
    assert {loaded.names[i].split("_")[2] for i in splits["test"].tolist()} == {f"{k}.wav" for k in range(5)}
    assert sum(len(part) for part in splits.values()) == 40
    with pytest.raises(DataError, match="matches 0 of 40 files"):
        audio_data.split_clips(loaded.names, AudioConfig(test_pattern="nothing"), DataRequest(tmp_path))


def test_bad_files_are_named_and_skipped_up_to_a_limit(tmp_path):
    fill(tmp_path)
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("not a sound file")
    soundfile.write(tmp_path / "nan.wav", np.full(1000, np.nan, np.float32), 8000, subtype="FLOAT")
    soundfile.write(tmp_path / "silent.wav", np.zeros(1000, np.float32), 8000)
    loaded = audio_data.load_folder(AudioConfig(), DataRequest(tmp_path, max_bad=4))
    assert len(loaded.names) == 40
    reasons = "\n".join(loaded.bad)
    for part in (
        "empty.wav: 0 bytes",
        "text.wav: not readable",
        "nan.wav: holds samples that are not",
        "silent.wav: is silent",
    ):
        assert part in reasons
    with pytest.raises(DataError, match="more than 3 files that cannot be used"):
        audio_data.load_folder(AudioConfig(), DataRequest(tmp_path, max_bad=3))


@pytest.mark.parametrize("kind", ["missing", "file", "empty", "other"])
def test_a_folder_without_sound_is_refused(tmp_path, kind):
    folder = tmp_path / kind
    if kind == "file":
        folder.write_text("x")
    elif kind != "missing":
        folder.mkdir()
        if kind == "other":
            (folder / "a.png").touch()
    expected = {"missing": "does not exist", "file": "is a file", "empty": "holds no files", "other": "holds 1 .png"}[kind]
    with pytest.raises(DataError, match=expected):
        AudioModality.read(AudioConfig(), DataRequest(folder))


def test_long_clips_are_cut_by_the_generator_passed_in_and_short_ones_padded(tmp_path):
    soundfile.write(tmp_path / "long.wav", tone(9000), 8000)
    soundfile.write(tmp_path / "short.wav", tone(500), 8000)
    source = audio_data.load_folder(AudioConfig(length=1024), DataRequest(tmp_path)).source
    first, again, other = (source.batch(torch.tensor([0, 1]), torch.Generator().manual_seed(s)).values for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], other[0])
    assert not first[1, 0, 500:].any()


def test_a_large_folder_is_memory_mapped_and_gives_the_same_clips(tmp_path, monkeypatch):
    folder = fill(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    in_memory = audio_data.load_folder(AudioConfig(), DataRequest(folder))
    monkeypatch.setattr(audio_data, "MAX_MEMORY_BYTES", 0)
    mapped = audio_data.load_folder(AudioConfig(), DataRequest(folder))
    assert isinstance(mapped.source.samples, np.memmap)
    a, b = (loaded.source.batch(torch.arange(40), torch.Generator()).values for loaded in (in_memory, mapped))
    torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_a_mapped_folder_is_decoded_once_and_its_bad_files_stay_named(tmp_path, monkeypatch):
    folder = fill(tmp_path / "data")
    soundfile.write(folder / "0_silent_1.wav", np.zeros(1500, np.float32), 8000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(audio_data, "MAX_MEMORY_BYTES", 0)
    first = audio_data.load_folder(AudioConfig(), DataRequest(folder))
    monkeypatch.setattr(audio_data, "load_clip", lambda *_: pytest.fail("decoded again"))
    second = audio_data.load_folder(AudioConfig(), DataRequest(folder))
    assert (second.names, second.bad, second.classes) == (first.names, first.bad, first.classes)
    assert len(second.bad) == 1 and "0_silent_1.wav" in second.bad[0]
    assert torch.equal(second.source.sizes, first.source.sizes)
    assert np.array_equal(second.source.samples, first.source.samples)


def test_too_few_clips_are_told_with_what_was_left_out_and_why(tmp_path):
    soundfile.write(tmp_path / "good.wav", 0.1 * np.sin(np.arange(2000) / 9), 8000)
    opposite = 0.1 * np.sin(np.arange(2000) / 9)
    soundfile.write(tmp_path / "opposite.wav", np.stack([opposite, -opposite], 1), 8000)
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(DataError) as refusal:
        AudioModality.read(AudioConfig(), DataRequest(tmp_path))
    assert "1 sample leaves nothing for validation and test; bring more data; " in str(
        refusal.value
    ) and "2 files were left out: empty.wav: 0 bytes" in str(refusal.value)
    assert "opposite.wav: is silent once its 2 channels are averaged" in str(refusal.value)


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(audio_data, "MAX_MEMORY_BYTES", 0)
    with pytest.raises(DataError, match=r"decoded sound cannot be kept in .*XDG_CACHE_HOME"):
        audio_data.load_folder(AudioConfig(), DataRequest(fill(tmp_path / "data")))


def test_a_pattern_without_a_label_or_that_does_not_compile_is_refused():
    with pytest.raises(ValidationError, match="no group"):
        AudioConfig(label_pattern="^[0-9]")
    with pytest.raises(ValidationError, match="not a regular expression"):
        AudioConfig(test_pattern="(")


def test_the_inverse_transform_inverts_the_transform():
    waveform = torch.randn(1, 640, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    window = torch.hann_window(64, dtype=torch.float64)
    frames = torch.nn.functional.pad(waveform, (24, 24)).unfold(-1, 64, 16) * window / window.sum()
    bins = torch.fft.rfft(frames)
    inverse = InverseShortTimeFourier(64, 16, 40).double()
    torch.testing.assert_close(inverse(bins.real, bins.imag), waveform, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1024, 3000, 6144])
def test_the_generator_gives_clips_of_exactly_the_length(length):
    modality = small_modality(length)
    rng = torch.Generator().manual_seed(0)
    made = modality.generator()(modality.noise(3, rng), modality.condition(3, rng))
    assert made.values.shape == (3, 1, length)
    assert torch.isfinite(made.values).all()
    assert modality.generator()(modality.noise(2, rng), {}).values.shape == (2, 1, length)


def test_noise_of_sample_seven_does_not_depend_on_the_batch():
    modality = small_modality()
    many, few = (modality.noise(n, torch.Generator().manual_seed(3)) for n in (20, 8))
    assert torch.equal(many[7], few[7])


@pytest.mark.parametrize("num_classes", [0, 3])
def test_critics_score_silence_with_finite_first_and_second_gradients(num_classes):
    modality = small_modality(num_classes=num_classes)
    critic = modality.discriminator()
    clips = torch.cat([torch.zeros(1, 1, 2048), torch.randn(1, 1, 2048)]).requires_grad_()
    condition = {"label": torch.tensor([0, 2])} if num_classes else {}
    verdict = critic(critic.embed(Sample(clips)), condition)
    assert sum(head.weight for head in verdict.heads) == pytest.approx(1.0)
    assert all(head.scores.shape[0] == 2 for head in verdict.heads)
    score = sum(head.scores.sum() for head in verdict.heads)
    (gradient,) = torch.autograd.grad(score, clips, create_graph=True)
    gradient.square().sum().backward()
    moved = [p.grad for p in critic.parameters() if p.grad is not None]
    assert moved and all(torch.isfinite(g).all() for g in moved)


def test_one_score_of_each_critic_hears_the_label_and_one_does_not():
    critic = small_modality().discriminator().eval()
    seen = critic.embed(Sample(torch.randn(1, 1, 2048, generator=torch.Generator().manual_seed(0))))
    for index in range(2):
        torch.manual_seed(0)
        first = critic(seen, {"label": torch.tensor([0])}).heads[index].scores
        torch.manual_seed(0)
        second = critic(seen, {"label": torch.tensor([1])}).heads[index].scores
        assert first[0, 0] == second[0, 0]
        assert first[0, 1] != second[0, 1]


def test_without_labels_each_critic_gives_one_score():
    critic = small_modality(num_classes=0).discriminator()
    verdict = critic(critic.embed(Sample(torch.zeros(3, 1, 2048))), {})
    assert [head.scores.shape for head in verdict.heads] == [(3, 1), (3, 1)]


def test_the_critics_do_not_hear_the_phase_of_a_steady_tone():
    time = torch.arange(4096) / 8000
    first, second = (PhaseAdvance(256, 128)(torch.sin(2 * torch.pi * 440 * time + phase)[None]) for phase in (0.0, 1.0))
    torch.testing.assert_close(first[:, :, 2:-2], second[:, :, 2:-2], atol=0.02, rtol=0)
    assert float((first - PhaseAdvance(256, 128)(torch.sin(2 * torch.pi * 455 * time)[None])).abs().max()) > 0.3


def test_different_noise_gives_different_samples_from_the_start():
    torch.manual_seed(0)
    generator = small_modality().generator()
    with torch.no_grad():
        clips = generator(torch.randn(32, 8), {"label": torch.zeros(32, dtype=torch.int64)}).values
    assert float(clips.std(0).mean()) > 0.3 * float(clips.std())


def test_phase_shuffle_moves_the_whole_batch_by_one_shift():
    hidden = torch.arange(10.0).expand(4, 2, 10)
    shifts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        moved = shuffle_phase(hidden, 2)
        assert moved.shape == hidden.shape and torch.equal(moved[0], moved[3])
        shifts.add(int(moved[0, 0, 5]) - 5)
    assert shifts == {-2, -1, 0, 1, 2}


def test_written_samples_are_clipped_and_never_wrap():
    assert to_int16(torch.tensor([1.5, 1.0, -3.0, 0.0, float("nan")])).tolist() == [32767, 32767, -32767, 0, 0]


def test_one_wav_per_sample_and_one_overview(tmp_path):
    modality = small_modality()
    batch = Batch(0.3 * torch.randn(5, 1, 2048, generator=torch.Generator().manual_seed(0)))
    paths = modality.write(batch, tmp_path / "out", start=7)
    assert [path.name for path in paths] == [f"{index:05d}.wav" for index in range(7, 12)]
    values, rate = soundfile.read(paths[0], dtype="int16")
    assert rate == 8000 and np.array_equal(values, to_int16(batch.values[0, 0]))
    sound, picture = modality.overview(batch, tmp_path / "overview")
    assert (sound.suffix, picture.suffix) == (".wav", ".png") and picture.stat().st_size > 100


def test_the_judge_hears_the_pitch_and_is_loaded_the_second_time(notes_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("advgen_audio.measures.judge.NUM_STEPS", 40)
    monkeypatch.setattr("advgen_audio.measures.judge.MAX_CLIPS", 600)
    modality = AudioModality(AudioConfig(), notes_corpus.facts)
    before = torch.get_rng_state()
    judge = modality.judge(notes_corpus, tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    source = notes_corpus.splits["test"]
    batch = source.batch(torch.arange(64), torch.Generator())
    assert (judge.classify(batch) == batch.condition["label"]).double().mean() >= 0.9
    again = modality.judge(notes_corpus, tmp_path)
    assert torch.equal(judge.features(batch), again.features(batch)) and judge.features(batch).shape == (64, 64)
    (file,) = tmp_path.iterdir()
    assert judge.protocol["weights"] == f"sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert "64 rectified numbers" in judge.protocol["layer"] and "8000 Hz" in judge.protocol["spectrogram"]


def test_a_judge_without_labels_has_features_and_no_opinion(notes_corpus, tmp_path):
    config = AudioConfig(conditional=False)
    corpus = AudioModality.read(config, DataRequest(None))
    judge = AudioModality(config, corpus.facts).judge(corpus, tmp_path)
    batch = corpus.splits["test"].batch(torch.arange(4), torch.Generator())
    assert judge.features(batch).shape == (4, 64) and judge.classify(batch) is None
    assert set(judge.protocol) == {"layer", "spectrogram", "weights"}


def test_facts_rebuild_the_modality_without_the_data(notes_corpus):
    facts = json.loads(json.dumps(notes_corpus.facts))
    a, b = (AudioModality(AudioConfig(), own).generator().state_dict() for own in (notes_corpus.facts, facts))
    assert {name: value.shape for name, value in a.items()} == {name: value.shape for name, value in b.items()}


def test_the_spec_names_presets_that_end_in_five_minutes():
    spec = advgen_audio.advgen_register()
    assert spec.presets["default"]["train"]["minutes"] == 5.0
    assert AudioConfig(**spec.presets["digits"]["options"]).length == 6144


def test_a_deep_critic_fits_any_length():
    shape = CriticShape(16384, (512, 128), 2, 4, 2, 0)
    for length in (1024, 5000, 16384):
        critic = AudioDiscriminator(replace(shape, length=length))
        assert critic(critic.embed(Sample(torch.zeros(1, 1, length))), {}).heads[2].scores.shape == (1, 1)
