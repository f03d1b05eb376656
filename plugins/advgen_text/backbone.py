"""Causal transformers of the package transformers, from scratch or from a local folder, fed with embeddings.

Their own embedding table is taken out: generators and critics bring theirs, so that mixtures of tokens can be fed too.
"""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advgen import ConfigError, DataError, hide_unless_it_loads, needed_import

KINDS = ("gpt2", "llama")
Attention = Literal["sdpa", "eager"]


@dataclass(frozen=True)
class Body:
    """A transformer from scratch, or the published configuration of a pretrained one.

    Args:
        kind: "gpt2" or "llama".
        pretrained: what the folder's config.json says; None from scratch.
    """

    kind: str
    width: int
    layers: int
    heads: int
    length: int
    pretrained: dict[str, Any] | None = None


def library() -> Any:
    """The package transformers.

    Raises:
        ConfigError: with the command that installs it.
    """
    user = "options.generator or options.critic = transformer"
    remedy = "pip install 'advgen[transformers]', or take another network"
    hide_unless_it_loads("torchaudio")  # which transformers imports wherever it is installed
    checks = sys.modules.get("transformers.utils.import_utils")
    forget = getattr(getattr(checks, "is_torchaudio_available", None), "cache_clear", None)
    if forget is not None:  # transformers was imported before, and remembers what is installed
        forget()
    return needed_import("transformers", user, remedy, ConfigError)


def make_body(body: Body, *, dropout: float, attention: Attention) -> nn.Module:
    """A freshly initialised transformer that maps embeddings (B, L, E) to states (B, L, E)."""
    transformers = library()
    config = _config(transformers, body)
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, dropout)
    config.use_cache = False
    made: nn.Module = transformers.AutoModel.from_config(config, attn_implementation=attention)
    made.set_input_embeddings(nn.Identity())  # type: ignore[operator]
    return made


def cache_argument(body: nn.Module) -> str:
    """What the transformer calls its keys and values of earlier places: versions of the package differ."""
    return "cache" if "cache" in inspect.signature(body.forward).parameters else "past_key_values"


def _config(transformers: Any, body: Body) -> Any:
    if body.pretrained is not None:
        return transformers.AutoConfig.for_model(**body.pretrained)
    if body.width % body.heads:
        raise ConfigError(
            f"options.generator_hidden={body.width} is not a multiple of options.transformer_heads={body.heads}; "
            f"nearest: {max(1, round(body.width / body.heads)) * body.heads}"
        )
    if body.kind == "gpt2":
        sizes = {"n_embd": body.width, "n_layer": body.layers, "n_head": body.heads, "n_positions": body.length}
        return transformers.GPT2Config(vocab_size=1, bos_token_id=None, eos_token_id=None, **sizes)
    if (body.width // body.heads) % 2:
        raise ConfigError(
            f"llama turns pairs of numbers, but options.generator_hidden={body.width} over options.transformer_heads="
            f"{body.heads} gives heads of {body.width // body.heads}; expected an even width"
        )
    return transformers.LlamaConfig(
        vocab_size=1,
        hidden_size=body.width,
        # Three matrices in place of two: two thirds of four times the width.
        intermediate_size=max(8, 8 * body.width // 3 // 8 * 8),
        num_hidden_layers=body.layers,
        num_attention_heads=body.heads,
        max_position_embeddings=body.length,
        bos_token_id=None,
        eos_token_id=None,
    )


def pretrained_facts(folder: Path, max_length: int) -> dict[str, Any]:
    """What rebuilds the model of a local folder without it.

    Raises:
        DataError: where the folder has no configuration, no safetensors or no tokenizer.json, or is of an unknown kind.
        ConfigError: where its context is shorter than ``max_length``.
    """
    if not folder.is_dir():
        raise DataError(f"options.pretrained={folder} is no folder; name a local one with config.json and safetensors weights")
    config_file = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{config_file} cannot be read: {error}; expected the configuration of a causal transformer") from error
    kind = config.get("model_type")
    if kind not in KINDS:
        raise DataError(f"{config_file} describes a model of type {kind!r}; known: {', '.join(KINDS)}")
    if not list(folder.glob("*.safetensors")):
        raise DataError(
            f"{folder} holds no .safetensors file; pickled weights are never read, as they can run code: save them anew with "
            "model.save_pretrained(folder)"
        )
    if not (folder / "tokenizer.json").is_file():
        raise DataError(f"{folder} holds no tokenizer.json; save it there with tokenizer.save_pretrained(folder)")
    context = int(config.get("n_positions") or config.get("max_position_embeddings") or 0)
    if max_length > context:
        raise ConfigError(
            f"options.max_length={max_length} is longer than the {context} places of {folder}; set it to {context} or less"
        )
    end = config.get("eos_token_id")
    end = end[0] if isinstance(end, list) and end else end
    untied = config.get("tie_word_embeddings", kind == "gpt2") is False
    return {"config": config, "untied": untied, "end": end if isinstance(end, int) else int(config["vocab_size"]) - 1}


@torch.no_grad()
def load_pretrained(folder: Path, body: nn.Module) -> tuple[Tensor, Tensor]:
    """Put a folder's weights into ``body``; returns its tables of inputs and of outputs, (V, E) both.

    Raises:
        DataError: where the weights cannot be read or do not fit.
    """
    transformers = library()
    try:
        whole = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"options.pretrained={folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    inputs, outputs = whole.get_input_embeddings().weight, whole.get_output_embeddings().weight
    whole.base_model.set_input_embeddings(nn.Identity())
    body.load_state_dict(whole.base_model.state_dict())
    return inputs, outputs


def width_of(pretrained: dict[str, Any]) -> int:
    """The width of a published configuration."""
    return int(pretrained.get("n_embd") or pretrained["hidden_size"])
