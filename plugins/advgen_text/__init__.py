"""Text: captions, lines, any sentences, word by word or in byte-pair pieces."""

from typing import Any

from advgen import DataSet, PluginSpec, RemoteFile, hookimpl

_SCHEDULES = {
    "generator.learning_rate": {"kind": "cosine", "start": 1.0, "end": 0.05},
    "discriminator.learning_rate": {"kind": "cosine", "start": 1.0, "end": 0.05},
}
_DEFAULT = {
    "options": {"dropout": 0.2},
    "loss": "relativistic",
    "penalties": {"r1": {"weight": 0.1}, "r2": {"weight": 0.1}},
    "estimator": {"name": "score_function", "rewards": "dense", "discount": 0.5},
    "auxiliary": {"likelihood": 1.0},
    "generator": {"learning_rate": 3e-3, "betas": (0.9, 0.99), "clip": {"kind": "norm", "limit": 1.0}},
    "discriminator": {"learning_rate": 1e-3, "betas": (0.0, 0.99)},
    "average": {"half_life_steps": 200.0},
    "phases": [{"kind": "likelihood", "share": 0.5}, {"kind": "adversarial", "share": 0.5}],
    "schedules": _SCHEDULES,
    "train": {"minutes": 5.0, "batch_size": 64},
}
_CLASSIC_PLAYER = {"learning_rate": 2e-4, "betas": (0.5, 0.999), "clip": {"kind": "none"}}
_CLASSIC = {
    "options": {"dropout": 0.0},
    "loss": "nonsaturating",
    "penalties": {},
    "generator": _CLASSIC_PLAYER,
    "discriminator": _CLASSIC_PLAYER,
    "average": {"enabled": False},
    "schedules": {},
}
# Real sentences: more words to tell apart than the grammar has, and soon known by heart without much dropout.
_CAPTIONS = {
    "options": {"generator_embedding": 128, "generator_hidden": 512, "critic_embedding": 96, "dropout": 0.5},
    "phases": [{"kind": "likelihood", "share": 0.8}, {"kind": "adversarial", "share": 0.2}],
    "train": {"minutes": 10.0},
}
# Transformers learn at a third of an LSTM's rate; the critic starts as what likelihood has made of the generator.
_GPT = {
    "options": {"generator": "transformer", "critic": "transformer", "generator_hidden": 128, "dropout": 0.1},
    "generator": {"learning_rate": 1e-3},
    "discriminator": {"learning_rate": 2e-4},
    "phases": [{"kind": "likelihood", "share": 0.8}, {"kind": "adversarial", "share": 0.2}],
}
# The published algorithms with their published numbers, where the plan allows; shares of a plan stand for counts of epochs.
_STRICT = {"kind": "norm", "limit": 5.0}
_RELGAN = {
    "options": {
        "generator": "relational",
        "critic": "multi",
        "generator_embedding": 32,
        "critic_embedding": 64,
        "dropout": 0.0,
    },
    "penalties": {},
    "estimator": {"name": "straight_through", "temperature": 1.0},
    "auxiliary": {},
    "generator": {"learning_rate": 1e-2, "betas": (0.9, 0.999), "clip": _STRICT},
    "discriminator": {"learning_rate": 1e-4, "betas": (0.9, 0.999), "clip": _STRICT, "steps": 5},
    "phases": [{"kind": "likelihood", "share": 0.8}, {"kind": "adversarial", "share": 0.2}],
    "schedules": {
        "generator.learning_rate": {"kind": "linear", "start": 1.0, "end": 0.01, "since": 0.8, "until": 0.8},
        "discriminator.learning_rate": None,
        "estimator.temperature": {"kind": "exponential", "start": 1.0, "end": 0.16, "since": 0.8},
    },
}
_SEQGAN = {
    "options": {"generator": "lstm", "critic": "cnn", "generator_embedding": 32, "generator_hidden": 32, "dropout": 0.0},
    "loss": "bounded",
    "penalties": {},
    "estimator": {"name": "score_function", "rewards": "rollout", "rollouts": 16},
    "auxiliary": {},
    "generator": {"learning_rate": 1e-2, "betas": (0.9, 0.999), "clip": _STRICT},
    "discriminator": {"learning_rate": 1e-4, "betas": (0.9, 0.999), "steps": 5},
    "phases": [
        {"kind": "likelihood", "share": 0.6},
        {"kind": "critic", "share": 0.2},
        {"kind": "adversarial", "share": 0.2},
    ],
    "schedules": {},
}
_MALIGAN = _SEQGAN | {
    "loss": "nonsaturating",
    "estimator": {"name": "score_function", "rewards": "importance"},
    "generator": {"learning_rate": 1e-3, "betas": (0.9, 0.999), "clip": _STRICT},
}
_SCRATCHGAN = {
    "options": {"generator": "lstm", "critic": "recurrent", "generator_hidden": 512, "critic_hidden": 512, "dropout": 0.0},
    "loss": "bounded",
    "penalties": {},
    "estimator": {"name": "score_function", "rewards": "dense", "discount": 0.23, "baseline_decay": 0.08},
    "auxiliary": {},
    "generator": {"learning_rate": 9.59e-5, "betas": (0.5, 0.999), "clip": {"kind": "none"}},
    "discriminator": {"learning_rate": 9.38e-3, "betas": (0.5, 0.999), "weight_decay": 1e-6},
    "phases": [{"kind": "adversarial", "share": 1.0}],
    "schedules": {},
    "train": {"batch_size": 512},
}
_COT = {
    "options": {"generator": "lstm", "critic": "mediator", "generator_embedding": 32, "generator_hidden": 32, "dropout": 0.0},
    "loss": "cooperative",
    "penalties": {},
    "estimator": {"name": "expectation", "entropy_weight": 1.0},
    "auxiliary": {},
    "generator": {"learning_rate": 1e-2, "betas": (0.9, 0.999), "clip": _STRICT},
    "discriminator": {"learning_rate": 1e-2, "betas": (0.9, 0.999), "clip": _STRICT},
    "phases": [{"kind": "adversarial", "share": 1.0}],
    "schedules": {},
}
_TEXTGAIL = _GPT | {
    "loss": "relativistic",
    "penalties": {},
    "estimator": {
        "name": "ppo",
        "rewards": "terminal",
        "discount": 1.0,
        "epochs": 4,
        "clip": 0.2,
        "reference_weight": 0.1,
        "real_share": 0.2,
        "real_reward": 2.0,
    },
    "auxiliary": {},
    "phases": [
        {"kind": "likelihood", "share": 0.7},
        {"kind": "critic", "share": 0.05},
        {"kind": "adversarial", "share": 0.25},
    ],
    "schedules": {
        "generator.learning_rate": {"kind": "cosine", "start": 1.0, "end": 0.01, "until": 0.7},
        "estimator.real_reward": {"kind": "linear", "start": 1.0, "end": 0.0, "since": 0.75},
    },
    "train": {"batch_size": 128},
}
# What every sweep should stand beside: the generator of the default, by likelihood for the whole plan.
_LIKELIHOOD = {"phases": [{"kind": "likelihood", "share": 1.0}]}
_CPU: dict[str, Any] = {}  # the default is what two cores do best; the name is that of the other plugins' presets
_RELAXED = {"estimator": {"name": "straight_through", "temperature": 1.0}}


_TEXYGEN = "https://raw.githubusercontent.com/geek-ai/Texygen/master/data"
_COCO = DataSet(
    summary="image captions: 10,000 to train on and 10,000 to test, the split of the published tables; --preset captions",
    home="https://github.com/geek-ai/Texygen",
    licence="captions CC BY 4.0",
    terms="Name the COCO Consortium. The images that the captions describe are not part of the set and have their own terms.",
    files=(
        RemoteFile(
            "train.txt", f"{_TEXYGEN}/image_coco.txt", "2c0fd1f0f43aac6a9dc3926a535516ccf395de535e15ac1fd17cd569420736f5"
        ),
        RemoteFile(
            "test.txt", f"{_TEXYGEN}/testdata/test_coco.txt", "72e25c9fb4d2cd43182ac602c92f6ffc377762147f9709572943b0b09174bcae"
        ),
    ),
)


@hookimpl
def advgen_register() -> PluginSpec:
    """What the text plugin brings."""
    return PluginSpec(
        name="text",
        summary="Text, a sample a line: LSTM, relational memory or transformer, five critics, exact fast BLEU.",
        config="advgen_text.config:TextConfig",
        modality="advgen_text.modality:TextModality",
        sampling="advgen_text.config:TextSampling",
        losses={"bounded": "advgen_text.objectives:BOUNDED", "cooperative": "advgen_text.objectives:COOPERATIVE"},
        reads=("*.txt", "*.jsonl", "*.parquet"),
        addresses=("hub",),
        intended_use="Research and teaching on adversarial text generation, with sentences like those in the training data.",
        out_of_scope="Text passed off as written by a person, as facts or as advice; decisions about people.",
        datasets={"coco-captions": _COCO},
        presets={
            "default": _DEFAULT,
            "cpu": _CPU,
            "likelihood": _LIKELIHOOD,
            "classic": _CLASSIC,
            "captions": _CAPTIONS,
            "relaxed": _RELAXED,
            "gpt": _GPT,
            "relgan": _RELGAN,
            "seqgan": _SEQGAN,
            "maligan": _MALIGAN,
            "scratchgan": _SCRATCHGAN,
            "cot": _COT,
            "textgail": _TEXTGAIL,
        },
        requires={"numpy": "numpy", "tokenizers": "tokenizers"},
    )
