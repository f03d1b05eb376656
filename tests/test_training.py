"""Training as a whole: every loss in every plugin, exact resume, ends of a run."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import advgen
from advgen.errors import CheckpointError, ConfigError, DivergedError
from advgen.losses import LOSSES
from advgen.runs import RunFolder, checkpoint
from advgen.training import Clock
from advgen.updates import discriminator, judging

sys.path.insert(0, str(Path(__file__).parent))
from conftest import tiny

PLUGINS = ("image", "audio", "text")
ADVERSARIAL = ["phases=[{kind='adversarial'}]"]


def run(plugin: str, out: Path, *more: str, **options: object) -> advgen.api.RunResult:
    return advgen.train(plugin, out=out, overrides=tiny(plugin, *more), progress=False, device="cpu", **options)


def digest(parts: dict[str, dict[str, torch.Tensor]]) -> str:
    """One hash over every tensor of a checkpoint."""
    state = hashlib.sha256()
    for part in sorted(parts):
        for name in sorted(parts[part]):
            state.update(f"{part}/{name}".encode() + parts[part][name].contiguous().numpy().tobytes())
    return state.hexdigest()


def saved(folder: Path, step: int) -> dict[str, dict[str, torch.Tensor]]:
    return checkpoint.load(folder / "checkpoints", step)[0]


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_trains_every_plugin(plugin: str, loss: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(plugin, out, f"loss='{loss}'", "train.keep=9", *(ADVERSARIAL if plugin == "text" else ()), steps=2)
    before, after = saved(out, 0), saved(out, 2)
    for player in ("generator", "discriminator"):
        moved = [name for name in before[player] if not torch.equal(before[player][name], after[player][name])]
        assert moved, f"{player} did not move"
        assert all(torch.isfinite(tensor).all() for tensor in after[player].values() if tensor.is_floating_point())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())


BOTH = "penalties={r1={weight=0.1}, r2={weight=0.1}}"
HALVED = {
    "audio": ("audio", []),
    "text": ("text", []),
    "dcgan": ("image", [BOTH]),
    "stylegan2": ("image", [BOTH, "options.family=stylegan2", "options.doublings=1"]),
    "resnet": ("image", [BOTH, "options.family=resnet", "options.doublings=1"]),
    "r3": ("image", [BOTH, "options.family=r3", "options.doublings=1", "options.blocks=1"]),
}


@pytest.mark.parametrize("case", HALVED)
def test_half_precision_trains_and_judges_both_sides_in_one_pass(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart, judge_apart = list[Any](), judging.judge_apart

    def two_passes(*given: Any) -> Any:
        apart.append(given)
        return judge_apart(*given)

    for module in (judging, discriminator):
        monkeypatch.setattr(module, "judge_apart", two_passes)
    plugin, more = HALVED[case]
    run(plugin, tmp_path / "run", "train.precision=bfloat16", *more, *(ADVERSARIAL if plugin == "text" else ()), steps=3)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(math.isfinite(value) for row in rows for value in row.values())
    assert all(row[f"{player}/gradient_norm"] > 0 for row in rows for player in ("generator", "discriminator"))
    assert all(row[f"discriminator/{name}"] > 0 for row in rows for name in ("r1", "r2"))
    assert not apart


@pytest.mark.parametrize("plugin", PLUGINS)
def test_stopping_at_any_step_and_resuming_ends_as_the_uninterrupted_run(plugin: str, tmp_path: Path) -> None:
    more = ["train.keep=9", "train.checkpoint_every=1", "generator.clip={kind='quantile', limit=0.9}"]
    run(plugin, tmp_path / "whole", *more, steps=5)
    whole = [digest(saved(tmp_path / "whole", step)) for step in range(6)]
    run(plugin, tmp_path / "parts", *more, steps=5, stop_after=1)
    for stop in range(2, 6):
        advgen.resume(tmp_path / "parts", stop_after=stop, progress=False, device="cpu")
        assert digest(saved(tmp_path / "parts", stop)) == whole[stop], f"step {stop} differs"
    assert len(set(whole)) == 6
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5]


def test_the_last_step_of_a_run_is_logged_once_also_where_it_was_stopped_on_the_way(tmp_path: Path) -> None:
    ends = {"plan": [], "samples": ["stop.samples=24"], "metric": ["stop={metric='recall', target=-0.1}"]}
    for name, more in ends.items():
        more = [*more, *(["train.evaluate_every=3"] if name == "metric" else [])]
        for every, logged in ((50, [3]), (2, [2, 3]), (3, [3])) if name == "plan" else ((50, [3]),):
            out = tmp_path / f"{name}{every}"
            plugin = "text" if name == "metric" else "image"  # its judge is not trained
            run(plugin, out, f"train.log_every={every}", *more, steps=3 if name == "plan" else 9)
            rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            assert [row["step"] for row in rows if any(key.startswith("generator/") for key in row)] == logged, out
    run("image", tmp_path / "parts", "train.log_every=50", steps=3, stop_after=2)
    assert not (tmp_path / "parts" / "metrics.jsonl").exists()
    advgen.resume(tmp_path / "parts", progress=False, device="cpu")
    assert digest(saved(tmp_path / "parts", 3)) == digest(saved(tmp_path / "plan50", 3))


@pytest.mark.parametrize("other", ["train.channels_last=true", "discriminator.one_pass=false"])
def test_the_order_of_memory_and_the_number_of_passes_change_nothing_but_rounding(other: str, tmp_path: Path) -> None:
    for name, more in (("plain", []), ("other", [other])):
        run("image", tmp_path / name, "train.precision=float64", "options.width=8", "train.keep=9", *more, steps=4)
    one, two = (saved(tmp_path / name, 4) for name in ("plain", "other"))
    for player in ("generator", "discriminator"):
        for name, tensor in one[player].items():
            torch.testing.assert_close(two[player][name], tensor, rtol=1e-6, atol=1e-9)


def test_channels_last_holds_for_weights_gradients_and_optimizer_after_resuming(tmp_path: Path) -> None:
    more = ["train.channels_last=true", "options.width=8", "train.keep=9", "train.checkpoint_every=1"]
    run("image", tmp_path / "whole", *more, steps=4)
    run("image", tmp_path / "parts", *more, steps=4, stop_after=2)
    advgen.resume(tmp_path / "parts", progress=False, device="cpu")
    assert digest(saved(tmp_path / "parts", 4)) == digest(saved(tmp_path / "whole", 4))


@pytest.mark.parametrize("plugin", PLUGINS)
def test_sample_i_does_not_depend_on_how_many_are_asked_for(plugin: str, tmp_path: Path) -> None:
    run(plugin, tmp_path / "run", steps=1)
    generator = advgen.load_generator(tmp_path / "run", device="cpu")
    few, many, other = generator.draw(3, seed=5), generator.draw(70, seed=5), generator.draw(3, seed=6)
    assert torch.equal(few.values, many.values[:3])
    assert not torch.equal(few.values, other.values)


def test_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        run("image", tmp_path / name, steps=2, seed=seed)
    one, again, two = (digest(saved(tmp_path / name, 2)) for name in ("one", "again", "two"))
    assert one == again != two


def test_accumulated_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path: Path) -> None:
    exact = ["train.precision='float64'", "options.generator_norm='none'"]
    run("image", tmp_path / "whole", *exact, steps=3)
    run("image", tmp_path / "parts", *exact, "train.accumulate=4", steps=3)
    whole, parts = saved(tmp_path / "whole", 3), saved(tmp_path / "parts", 3)
    for player in ("generator", "discriminator"):
        for name, tensor in whole[player].items():
            torch.testing.assert_close(parts[player][name], tensor, rtol=0, atol=1e-10)


def test_accumulated_micro_batches_log_the_figures_of_the_whole_batch(tmp_path: Path) -> None:
    exact = ["train.precision='float64'", "options.generator_norm='none'"]
    rows = []
    for name, more in (("whole", []), ("parts", ["train.accumulate=4"])):
        run("image", tmp_path / name, *exact, *more, steps=1)
        rows.append(json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0]))
    for name in ("discriminator/loss", "discriminator/real_score", "discriminator/fake_score", "discriminator/r1"):
        assert rows[0][name] == pytest.approx(rows[1][name], abs=1e-10), name


def test_an_update_that_was_masked_between_two_log_steps_is_told_at_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from advgen import engine
    from advgen.config.model import PlayerConfig
    from advgen.world import World

    monkeypatch.setattr(engine, "_step", lambda player, terms, finite: None)  # as on a device, where nothing is read
    network = torch.nn.Linear(1, 1)
    player = engine.make_player("generator", network, PlayerConfig(), torch.device("cpu"))
    flags = []
    for value in (1.0, math.nan, 1.0):
        cost = network(torch.tensor([[value]])).sum()
        cost.backward()
        logs = engine.apply_update(player, engine.Terms({"loss": cost.detach()}), 1.0, World(0, 1, torch.device("cpu")))
        flags.append(bool(logs["generator/non_finite"]))
    assert flags == [False, True, True]


def test_a_coupled_loss_refuses_accumulation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="accumulate=1"):
        run("image", tmp_path / "run", "loss='relativistic_average'", "train.accumulate=2", steps=1)


def test_a_penalty_that_measures_the_batch_refuses_accumulation(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"penalty dragan.*accumulate=1"):
        run("image", tmp_path / "run", "penalties.dragan.weight=1.0", "train.accumulate=2", steps=1)


@pytest.mark.parametrize(
    ("estimator", "discriminator_draws_at", "generator_draws_at"),
    [("straight_through", ("values", 1.0), ("relaxed", 0.5)), ("score_function", ("values", 0.5), ("log_prob", 0.5))],
)
def test_the_temperature_of_straight_through_softens_gradients_and_leaves_draws_alone(
    estimator: str,
    discriminator_draws_at: tuple[str, float],
    generator_draws_at: tuple[str, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import advgen_text.generators

    calls: list[tuple[str, float]] = []
    forward = advgen_text.generators.Writer.forward

    def spy(self: object, noise: object, condition: object, *, mode: str = "values", temperature: float = 1.0) -> object:
        calls.append((mode, temperature))
        return forward(self, noise, condition, mode=mode, temperature=temperature)

    monkeypatch.setattr(advgen_text.generators.Writer, "forward", spy)
    run("text", tmp_path / "run", f"estimator={{name='{estimator}', temperature=0.5}}", *ADVERSARIAL, steps=1)
    assert calls[:2] == calls[2:4] == [discriminator_draws_at, generator_draws_at]  # the rehearsal, and the step
    assert set(calls[4:]) == {("values", 1.0)}  # samples


def test_a_diverging_run_ends_with_code_6_names_the_player_and_keeps_finite_weights(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"(discriminator|generator): .*not finite.*Remedy") as refusal:
        run("image", tmp_path / "run", "loss='wasserstein'", "discriminator.learning_rate=1e30", steps=20)
    assert refusal.value.exit_code == 6
    parts, _, _ = checkpoint.load_newest(tmp_path / "run" / "checkpoints")
    assert all(torch.isfinite(tensor).all() for tensor in parts["generator"].values() if tensor.is_floating_point())


def test_a_flipped_bit_is_found_and_the_earlier_checkpoint_is_used(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run("image", out, "train.checkpoint_every=1", "train.keep=5", steps=3, stop_after=2)
    damaged = out / "checkpoints" / "step-00000002" / "generator.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError, match="sha256"):
        checkpoint.load(out / "checkpoints", 2)
    assert advgen.resume(out, progress=False, device="cpu").step == 3


def test_a_full_disk_leaves_earlier_checkpoints_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    run("image", out, steps=3, stop_after=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left.*earlier checkpoints are untouched"):
        advgen.resume(out, progress=False, device="cpu")
    monkeypatch.undo()
    assert checkpoint.steps(out / "checkpoints")[-1] == 1
    assert not list((out / "checkpoints").glob(".tmp-*"))


def test_a_second_process_on_a_run_is_refused(tmp_path: Path) -> None:
    run("image", tmp_path / "run", steps=2, stop_after=1)
    with RunFolder(tmp_path / "run").locked(), pytest.raises(CheckpointError, match="in use by process"):
        advgen.resume(tmp_path / "run", progress=False, device="cpu")


def test_a_new_run_does_not_overwrite_an_old_one(tmp_path: Path) -> None:
    run("image", tmp_path / "run", steps=1)
    with pytest.raises(ConfigError, match="already holds a run"):
        run("image", tmp_path / "run", steps=1)


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.toml").write_text("kept")
    with pytest.raises(ConfigError, match=r"mine holds other files \(config\.toml\); choose another --out, such as .*mine/run"):
        run("image", tmp_path / "mine", steps=1)
    assert [path.read_text() for path in (tmp_path / "mine").iterdir()] == ["kept"]
    assert run("image", tmp_path / "mine" / "run", steps=1).step == 1


def test_from_takes_what_fits_and_says_what_it_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("image", tmp_path / "first", steps=1)
    options = {"out": tmp_path / "second", "progress": True, "device": "cpu", "from_run": tmp_path / "first", "steps": 1}
    advgen.train("image", overrides=[*tiny("image"), "options.noise_size=12"], **options)
    assert "generator took" in (said := capsys.readouterr().err)
    assert "left 0" in said.split("discriminator took")[1]


def test_the_plan_stops_at_the_samples_asked_for(tmp_path: Path) -> None:
    result = run("image", tmp_path / "run", "stop.samples=24", steps=50)
    assert (result.step, result.exit_code) == (3, 0)


def test_a_batch_larger_than_the_corpus_is_refused_with_a_size_that_fits(tmp_path: Path) -> None:
    with pytest.raises(advgen.DataError, match=r"fewer than a batch.*train\.batch_size="):
        run("text", tmp_path / "run", "train.batch_size=5000", steps=1)


def test_a_stop_metric_without_a_direction_is_refused_before_the_first_step(tmp_path: Path) -> None:
    more = ["train.evaluate_every=1", "stop.metric='novel_share'"]
    with pytest.raises(advgen.ConfigError, match=r"'novel_share' is best as held out.*stop\.better"):
        run("text", tmp_path / "run", *more, steps=1)
    assert not (tmp_path / "run").exists()
    result = run("text", tmp_path / "run", *more, "stop.better='higher'", "stop.target=0.5", steps=9)
    assert result.reason.startswith("novel_share 1.0000 reached the target 0.5 at step 1")


def test_a_share_stops_where_it_is_high_and_the_highest_is_kept(tmp_path: Path) -> None:
    more = ["train.evaluate_every=1", "stop={metric='recall', target=1.1}"]
    result = run("text", tmp_path / "run", *more, steps=3)
    assert result.step == 3
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert result.best is not None
    assert result.best["value"] == max(row["validation/recall"] for row in rows if "validation/recall" in row)
    assert run("text", tmp_path / "low", "train.evaluate_every=1", "stop={metric='recall', target=-0.1}", steps=3).step == 1


def test_validation_stops_at_a_target_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    more = ["train.evaluate_every=1", "stop={metric='frechet_distance', target=1e9}"]
    result = run("text", tmp_path / "run", *more, steps=5)
    assert result.step == 1 and "reached the target" in result.reason
    assert result.best is not None and result.best["step"] == 1


def test_minutes_count_from_the_first_step_and_not_from_reading_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("advgen.training.time.monotonic", lambda: now[0])
    clock = Clock(None, 1.0, resumed_at=now[0])
    now[0] += 50  # a folder is decoded
    clock.start()
    now[0] += 6
    clock.advance(lambda value: value)
    assert clock.progress == pytest.approx(0.1)
