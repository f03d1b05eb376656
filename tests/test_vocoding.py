"""Vocoders as runs: trained, resumed, heard, measured, and used on files."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import advgen
from advgen import ConfigError, DataError, DataRequest
from advgen.cli import main
from advgen.errors import GenError
from advgen.evaluation import evaluate_run
from advgen.runs import checkpoint
from advgen.sampling import convert_run, load_run
from advgen_audio.config import AudioConfig
from advgen_audio.data.segments import pack_clips
from advgen_audio.measures.griffin_lim import GriffinLim
from advgen_audio.modality import AudioModality
from advgen_audio.spectra.front_ends import MelMismatchError, MelSpec, MelSpectrogram
from advgen_audio.vocoding import copy_synthesis
from advgen_audio.vocoding.copy_synthesis import save_mel

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

SMALL = [
    "options.vocoder_channels=16",
    "options.vocoder_blocks=1",
    "options.critics='small'",
    "options.segment=1024",
    "train.batch_size=4",
    "train.log_every=1",
    "data.max_bad=0",
]

SPEC = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=64)


def tone(num_samples: int, frequency_hz: float = 440.0, rate_hz: int = 8000) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(num_samples) / rate_hz).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for index in range(120):
        soundfile.write(folder / f"clip-{index}.wav", tone(1500 + 3 * index, 200 + 10 * index), 8000)
    return folder


def run(clips: Path, out: Path, *more: str, **options: object) -> advgen.api.RunResult:
    given = [*SMALL, *more]
    return advgen.train(
        "audio", data=clips, preset="vocos-small", out=out, overrides=given, progress=False, device="cpu", **options
    )


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    run(clips, out, steps=2)
    return out


@pytest.mark.parametrize("vocoder", ["vocos", "retrieval", "hifigan-v3", "bigvgan-base"])
def test_every_family_trains_with_finite_costs_and_resumes_to_the_bit(vocoder: str, clips: Path, tmp_path: Path) -> None:
    more = [f"options.vocoder='{vocoder}'", "train.keep=9"]
    run(clips, tmp_path / "whole", *more, steps=3)
    run(clips, tmp_path / "parts", *more, steps=3, stop_after=2)
    advgen.resume(tmp_path / "parts", progress=False, device="cpu")
    whole, parts = (checkpoint.load(tmp_path / name / "checkpoints", 3)[0] for name in ("whole", "parts"))
    for part, tensors in whole.items():
        assert all(
            torch.equal(tensor.nan_to_num(7.5), parts[part][name].nan_to_num(7.5)) for name, tensor in tensors.items()
        ), part
    rows = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert {"generator/mel", "generator/feature_matching"} <= set(rows[0])


def test_retrieval_learns_by_likelihood_then_against_critics_and_copies_in_chunks(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [*SMALL, "options.vocoder_rounds=3", "phases=[{kind='likelihood', share=0.6}, {kind='adversarial', share=0.4}]"]
    advgen.train(
        "audio", data=clips, preset="cpu", out=tmp_path / "run", overrides=given, steps=5, progress=False, device="cpu"
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    learned = [sorted({"generator/likelihood", "discriminator/loss"} & set(row)) for row in rows]
    assert learned[0] == ["generator/likelihood"] and learned[-1] == ["discriminator/loss", "generator/likelihood"]
    copies = list[np.ndarray]()
    for frames in (1, 10_000):
        monkeypatch.setattr(copy_synthesis, "CHUNK_FRAMES", frames)
        out = tmp_path / f"{frames}"
        convert_run(tmp_path / "run", [long_file(tmp_path)], out=out, device="cpu")
        copies.append(soundfile.read(out / "long.wav")[0])
    assert np.abs(copies[0] - copies[1]).max() <= 1e-4 and np.abs(copies[0]).max() > 0.1


def long_file(folder: Path) -> Path:
    """A tone of 4 seconds, longer than two receptive fields."""
    soundfile.write(folder / "long.wav", tone(32_000, 300), 8000)
    return folder / "long.wav"


def test_a_vocoder_without_a_likelihood_says_so(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"options\.vocoder vocos has no likelihood: take retrieval"):
        run(clips, tmp_path / "run", "phases=[{kind='likelihood', share=1.0}]", steps=1)


def test_critics_are_any_set_by_weight(clips: Path, tmp_path: Path) -> None:
    config = AudioConfig.model_validate({"task": "vocode", "critics": {"resolution": 0.5, "period": 1.0}})
    critics = AudioModality(config, {"mel": SPEC.to_facts(), "examples": pack_clips(torch.zeros(1, 1024))}).discriminator()
    heads = critics(torch.zeros(1, 1, 2048), {}).heads
    assert [head.weight for head in heads] == [0.5] * 3 + [1.0] * 5
    for asked, said in (({"pitch": 1.0}, "period"), ({"band": 0.0}, "each a number, above 0"), ({}, "no critics")):
        with pytest.raises(ConfigError, match=said):
            run(clips, tmp_path / "run", f"options.critics={{{', '.join(f'{k}={v}' for k, v in asked.items())}}}", steps=1)


def test_segments_are_the_same_whatever_else_is_asked_for_and_know_their_padding(clips: Path) -> None:
    config = AudioConfig(task="vocode", segment=1856, gain_db=(-6.0, -1.0), peak_normalise=False)
    source = AudioModality.read(config, DataRequest(clips)).splits["train"]
    many = source.batch(torch.arange(len(source)), torch.Generator().manual_seed(3))
    one = source.batch(torch.arange(1), torch.Generator().manual_seed(3))
    assert torch.equal(many.values[0], one.values[0])
    lengths = many.condition["length"]
    assert lengths.min() < 1856 == lengths.max()
    assert all(not value[0, length:].any() for value, length in zip(many.values, lengths, strict=True))
    peaks = many.values.abs().amax((1, 2))
    assert 0.5 * 10 ** (-6 / 20) * 0.97 < peaks.min() < peaks.max() <= 0.5 * 10 ** (-1 / 20)


def test_facts_are_enough_to_sample_without_the_data(trained: Path) -> None:
    facts = json.loads((trained / "facts.json").read_text())
    assert MelSpec.from_facts(facts["mel"]) == SPEC
    drawn = advgen.load_generator(trained, device="cpu").draw(10)
    assert drawn.values.shape == (10, 1, 1024)
    assert torch.equal(drawn.values[0], drawn.values[len(facts["examples"])])


def test_a_class_is_refused(trained: Path) -> None:
    with pytest.raises(GenError, match="class"):
        advgen.load_generator(trained, device="cpu").draw(1, label=0)


def test_a_segment_that_is_no_multiple_of_the_hop_is_refused_with_the_nearest(clips: Path) -> None:
    with pytest.raises(ConfigError, match=r"multiple of the hop 64; nearest: 1024"):
        AudioModality.read(AudioConfig(task="vocode", segment=1030), DataRequest(clips))


def test_a_published_front_end_brings_its_rate(clips: Path) -> None:
    facts = AudioModality.read(AudioConfig(task="vocode", mel="hifigan"), DataRequest(clips)).facts
    assert facts["sample_rate_hz"] == 22050 == facts["mel"]["rate_hz"]
    with pytest.raises(ConfigError, match="22050 Hz"):
        AudioModality.read(AudioConfig(task="vocode", mel="hifigan", sample_rate_hz=8000), DataRequest(clips))


@pytest.mark.parametrize("padding", ["same", "center"])
def test_griffin_lim_rebuilds_mels_of_a_tone(padding: str) -> None:
    spec = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=64, padding=padding)
    mel, waveform = MelSpectrogram(spec), torch.from_numpy(tone(2048, 500.0))[None]
    rebuilt = GriffinLim(spec)(mel(waveform))
    assert rebuilt.shape == waveform.shape
    assert (mel(rebuilt).exp() - mel(waveform).exp()).norm() < 0.2 * mel(waveform).exp().norm()


def test_evaluation_measures_copies_of_the_held_out_clips_beside_griffin_lim(trained: Path) -> None:
    found = evaluate_run(trained, device="cpu")
    assert found["protocol"]["num_generated"] == found["protocol"]["num_real"]
    measures = found["modality"]
    assert {f"{way}{name}" for way in ("", "griffin_lim/") for name in ("stft_distance", "mel_l1", "mcd_db")} <= set(measures)
    assert 0 < measures["griffin_lim/mel_l1"] < measures["mel_l1"]
    assert found["real_modality"] == {}


def test_a_copy_is_at_no_distance_from_itself(clips: Path) -> None:
    corpus = AudioModality.read(AudioConfig(task="vocode"), DataRequest(clips))
    modality = AudioModality(AudioConfig(task="vocode"), corpus.facts)
    real = modality.prepare(corpus.splits["test"].batch(torch.arange(3), torch.Generator()))
    measures = modality.metrics(real, real)
    assert measures["mel_l1"] == 0 and measures["stft_distance"] < 1e-3


def test_the_best_checkpoint_is_chosen_by_a_paired_metric(clips: Path, tmp_path: Path) -> None:
    result = run(clips, tmp_path / "run", "train.evaluate_every=1", "stop.metric='mel_l1'", steps=1)
    assert result.best is not None and result.best["metric"] == "mel_l1"


def copies(run: Path, *sources: Path, out: Path) -> list[Path]:
    return convert_run(run, sources, out, device="cpu").files


@pytest.mark.parametrize("num_samples", [1, 63, 64, 1501, 40_000])
def test_a_copy_has_exactly_the_length_of_its_file(num_samples: int, trained: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "own.flac", tone(num_samples), 8000)
    (copy,) = copies(trained, tmp_path / "own.flac", out=tmp_path / "out")
    assert copy == tmp_path / "out" / "own.wav"
    assert (soundfile.info(copy).frames, soundfile.info(copy).samplerate) == (num_samples, 8000)


def test_a_copy_in_chunks_is_the_copy_of_the_whole(trained: Path, tmp_path: Path) -> None:
    clip = tone(40_000)
    soundfile.write(tmp_path / "own.wav", clip, 8000, subtype="FLOAT")
    (copy,) = copies(trained, tmp_path / "own.wav", out=tmp_path / "out")
    loaded = load_run(trained, "cpu")
    mel = MelSpectrogram(MelSpec.from_facts(loaded.modality.facts["mel"]))(torch.from_numpy(clip)[None])
    with torch.no_grad():
        whole = loaded.generator(torch.zeros(1, 0), {"mel": mel}).values[0, 0]
    written = torch.from_numpy(soundfile.read(copy, dtype="float32")[0])
    assert (written - whole.clamp(-1, 1)).abs().max() < 1e-4


def test_stereo_at_another_rate_and_silence_are_copied(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    soundfile.write(folder / "stereo.wav", np.stack([tone(2000, rate_hz=16000)] * 2, axis=1), 16000, subtype="PCM_24")
    soundfile.write(folder / "silence.wav", np.zeros(999, np.float32), 8000)
    found = copies(trained, tmp_path / "in", out=tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in found] == ["deep/silence.wav", "deep/stereo.wav"]
    assert [soundfile.info(path).frames for path in found] == [999, 1000]


def test_saved_mels_sound_as_their_file_does(trained: Path, tmp_path: Path) -> None:
    spec, clip = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=64), tone(1280)
    mel = MelSpectrogram(spec)(torch.from_numpy(clip)[None])[0]
    soundfile.write(tmp_path / "a.wav", clip, 8000, subtype="FLOAT")
    save_mel(tmp_path / "b.safetensors", mel, spec)
    np.save(tmp_path / "c.npy", mel.numpy())
    found = copies(trained, *(tmp_path / name for name in ("a.wav", "b.safetensors", "c.npy")), out=tmp_path / "out")
    sounds = [soundfile.read(path)[0] for path in found]
    assert len(sounds[0]) == 1280
    assert all(np.abs(sounds[0] - other).max() < 1e-4 for other in sounds[1:])


def test_mels_of_another_front_end_are_refused_with_both_side_by_side(trained: Path, tmp_path: Path) -> None:
    other = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=64, log="10")
    save_mel(tmp_path / "other.safetensors", torch.zeros(64, 9), other)
    with pytest.raises(MelMismatchError, match=r"(?s)the run.*other\.safetensors.*! log +e +\| 10"):
        copies(trained, tmp_path / "other.safetensors", out=tmp_path / "out")
    np.save(tmp_path / "plain.npy", np.zeros((64, 9), np.float32))
    (tmp_path / "plain.json").write_text(json.dumps(other.to_facts()))
    with pytest.raises(MelMismatchError, match=r"! log"):
        copies(trained, tmp_path / "plain.npy", out=tmp_path / "out")
    np.save(tmp_path / "bands.npy", np.zeros((80, 9), np.float32))
    with pytest.raises(MelMismatchError, match="80 bands"):
        copies(trained, tmp_path / "bands.npy", out=tmp_path / "out")


BAD = {
    "empty.wav": (b"", "0 bytes"),
    "text.wav": (b"no sound at all", "not readable as sound"),
    "text.npy": (b"no array", "not readable as an array"),
    "text.safetensors": (b"no tensors at all", "not readable as safetensors"),
    "notes.txt": (b"words", "expected .wav"),
}


@pytest.mark.parametrize("name", BAD)
def test_files_of_another_kind_are_named(name: str, trained: Path, tmp_path: Path) -> None:
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"(?s){name}.*{message}"):
        copies(trained, tmp_path / name, out=tmp_path / "out")
    with pytest.raises(DataError, match="does not exist"):
        copies(trained, tmp_path / "nowhere.wav", out=tmp_path / "out")


def test_the_command_line_takes_any_number_of_files_after_from(trained: Path, tmp_path: Path, capsys: Any) -> None:
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", tone(700), 8000)
    files = [str(tmp_path / f"{name}.wav") for name in "ab"]
    with pytest.raises(SystemExit) as ended:
        main(["sample", str(trained), "--from", *files, "--out", str(tmp_path / "out"), "--device", "cpu", "--json"])
    assert ended.value.code in (0, None)
    assert [Path(path).name for path in json.loads(capsys.readouterr().out)["files"]] == ["a.wav", "b.wav"]
    with pytest.raises(SystemExit):
        main(["sample", str(trained), *files])
    assert "--from" in capsys.readouterr().err


def test_a_run_that_starts_from_noise_refuses_files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(700), 8000)
    advgen.train("audio", out=tmp_path / "run", overrides=tiny("audio"), steps=1, progress=False, device="cpu")
    with pytest.raises(ConfigError, match="noise"):
        copies(tmp_path / "run", tmp_path / "a.wav", out=tmp_path / "out")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "advgen"]


def test_mels_that_say_nothing_of_their_front_end_are_taken_with_a_word_on_it(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=64)
    np.save(tmp_path / "plain.npy", np.zeros((64, 9), np.float32))
    np.save(tmp_path / "told.npy", np.zeros((1, 64, 9), np.float32))
    (tmp_path / "told.json").write_text(json.dumps(spec.to_facts()))
    (tmp_path / "words.txt").write_text("no mel")
    found = copies(trained, tmp_path, out=tmp_path / "out")
    assert [path.name for path in found] == ["plain.wav", "told.wav"]
    assert said(caplog) == ["plain.npy says nothing of its mel front end; only its number of bands is checked"]


NOT_FINITE = {"nan.wav": "samples that are not finite", "nan.npy": "no mel; expected finite floats", "none.wav": "no samples"}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_files_without_finite_content_are_named(name: str, trained: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".wav":
        soundfile.write(path, np.full(0 if "none" in name else 900, np.nan, np.float32), 8000, subtype="FLOAT")
    else:
        np.save(path, np.full((64, 5), np.nan, np.float32))
    with pytest.raises(DataError, match=f"{name}.*{NOT_FINITE[name]}"):
        copies(trained, path, out=tmp_path / "out")


def test_a_folder_of_other_things_is_refused_with_what_was_expected(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "words.txt").write_text("no sound")
    with pytest.raises(DataError, match=r"expected \.wav.*or a folder of them"):
        copies(trained, tmp_path / "in", out=tmp_path / "out")


def test_gen_runs_show_states_the_receptive_field(trained: Path, capsys: Any) -> None:
    vocoder = load_run(trained, "cpu").generator.vocoder
    with pytest.raises(SystemExit):
        main(["runs", "show", str(trained)])
    shown = capsys.readouterr().out
    frames = vocoder.receptive_field
    assert f"receptive_field: {frames} frames ({64 * frames} samples, {8 * frames} ms)" in shown
    assert "generator_parameters: " in shown and "64 bands of 256 samples every 64, 8000 Hz" in shown


def notes_of(run: Path) -> str:
    return (run / "log.txt").read_text()


def test_a_warm_start_at_another_width_and_rate_takes_what_fits_and_says_what_differs(
    trained: Path, clips: Path, tmp_path: Path
) -> None:
    more = ["options.vocoder_channels=24", "options.sample_rate_hz=16000", "options.segment=2048"]
    run(clips, tmp_path / "warm", *more, steps=2, from_run=trained)
    after = checkpoint.load(tmp_path / "warm" / "checkpoints", 0)[0]
    weights = checkpoint.load_newest(trained / "checkpoints")[0]["discriminator"]
    assert set(weights) == set(after["discriminator"])
    assert all(torch.equal(after["discriminator"][name], tensor) for name, tensor in weights.items())
    said = notes_of(tmp_path / "warm")
    assert "discriminator took" in said and "left 0" in said and "generator took" in said
    for row in (r"! rate_hz +16000 +\| 8000", r"! n_fft +512 +\| 256", r"! num_mels +128 +\| 64", r"  log +e +\| e"):
        assert re.search(row, said)
    assert "the rates differ: 8000 Hz there, 16000 Hz here" in said
    rows = [json.loads(line) for line in (tmp_path / "warm" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]


def test_a_warm_start_on_the_same_front_end_says_nothing_of_it_and_takes_all(
    trained: Path, clips: Path, tmp_path: Path
) -> None:
    run(clips, tmp_path / "warm", steps=1, from_run=trained)
    said = notes_of(tmp_path / "warm")
    assert said.count("left 0") == 2 and "differ" not in said
    taken = checkpoint.load(tmp_path / "warm" / "checkpoints", 0)[0]["generator"]
    source = checkpoint.load_newest(trained / "checkpoints")[0]["average"]
    assert all(torch.equal(taken[name], tensor) for name, tensor in source.items())


def test_a_front_end_of_equal_shape_and_other_numbers_is_told(trained: Path) -> None:
    modality = load_run(trained, "cpu").modality
    other = MelSpec(rate_hz=8000, n_fft=256, hop=64, num_mels=64, log="10")
    (said,) = modality.differences({**modality.facts, "mel": other.to_facts()})
    assert "this run" in said and "that run" in said and "! log        e        | 10" in said
    assert modality.differences(modality.facts) == []


@pytest.mark.parametrize("plugin_preset", ["vocos-small", "digits"])
def test_digital_silence_trains_and_is_measured_without_a_value_that_is_not_finite(plugin_preset: str, tmp_path: Path) -> None:
    (folder := tmp_path / "data").mkdir()
    for index in range(90):
        clip = np.zeros(4000 + index)
        clip[index] = 0.5  # a clip of zeros alone would be left out; nearly every segment is one
        soundfile.write(folder / f"{index % 2}_{index}_{index % 10}.wav", clip, 8000)
    own = ["options.length=2048", "train.batch_size=4", "train.log_every=1"]
    if plugin_preset == "vocos-small":
        own = [*SMALL, "options.mel_scales='many'", "auxiliary={mel=15.0, stft=1.0, feature_matching=1.0}"]
    out = tmp_path / "run"
    advgen.train(
        "audio", data=folder, preset=plugin_preset, out=out, overrides=own, steps=3, minutes=None, progress=False, device="cpu"
    )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(math.isfinite(value) for row in rows for value in row.values())
    for tensors in checkpoint.load(out / "checkpoints", 3)[0].values():
        assert all(bool(torch.isfinite(tensor).all()) for name, tensor in tensors.items() if not name.endswith("norms"))
    found = evaluate_run(out, num_samples=8, device="cpu")
    assert all(value is not None for part in ("generated", "real", "modality") for value in found[part].values())


def test_a_free_front_end_is_free_in_every_field(clips: Path, tmp_path: Path) -> None:
    fields = "options.mel_fields={scale='htk', norm='none', power=2.0, log='10', floor=1e-6, padding='center'}"
    run(clips, tmp_path / "run", fields, "options.num_mels=20", steps=1)
    spec = MelSpec.from_facts(json.loads((tmp_path / "run" / "facts.json").read_text())["mel"])
    assert (spec.scale, spec.norm, spec.power, spec.log, spec.floor, spec.padding) == ("htk", "none", 2.0, "10", 1e-6, "center")
    assert (spec.rate_hz, spec.n_fft, spec.hop, spec.num_mels) == (8000, 256, 64, 20)
    assert "griffin_lim/mel_l1" in evaluate_run(tmp_path / "run", num_samples=6, device="cpu")["modality"]


def test_a_front_end_that_is_not_possible_is_refused_by_field(clips: Path) -> None:
    for fields, message in (
        ({"scale": "bark"}, "not possible: scale = 'bark': expected 'htk' or 'slaney'"),
        ({"power": 1.0, "epsilon": 0.0}, "needs an epsilon above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            AudioModality.read(AudioConfig(task="vocode", mel_fields=fields), DataRequest(clips))
    with pytest.raises(ValueError, match="hop is not among scale, norm"):
        AudioConfig(mel_fields={"hop": 64})
    with pytest.raises(ValueError, match="leave out mel_fields, or mel"):
        AudioConfig(mel="vocos", mel_fields={"scale": "htk"})
