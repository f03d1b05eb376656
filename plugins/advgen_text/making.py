"""Networks from the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from advgen import Discriminator, user_path

from .backbone import Body, width_of
from .config import TextConfig
from .critics import ConvolutionalCritic, Mediator, MultiCritic, RecurrentCritic, Sight, TransformerCritic
from .generators import LstmWriter, RelationalWriter, Sizes, TransformerWriter, Writer


def make_generator(config: TextConfig, facts: Mapping[str, Any], vocabulary: int) -> Writer:
    """The generator that ``options.generator`` names."""
    sizes = Sizes(vocabulary, int(facts["length"]), len(facts.get("classes") or ()), config.dropout)
    if config.generator == "lstm":
        return LstmWriter(sizes, embedding=config.generator_embedding, hidden=config.generator_hidden)
    if config.generator == "relational":
        memory = {"slots": config.memory_slots, "heads": config.memory_heads, "head_size": config.memory_head_size}
        return RelationalWriter(sizes, embedding=config.generator_embedding, **memory)
    pretrained = facts.get("pretrained") or {}
    made = TransformerWriter(sizes, _body(config, facts), untied=bool(pretrained.get("untied")))
    folder = user_path(config.pretrained or "")
    # A run that is sampled from has weights of its own, and the folder may be gone.
    if config.pretrained is not None and folder.is_dir():
        made.take_pretrained(folder, int(pretrained["end"]))
    return made


def make_critic(config: TextConfig, facts: Mapping[str, Any], vocabulary: int) -> Discriminator:
    """The critic that ``options.critic`` names."""
    num_classes, length = len(facts.get("classes") or ()), int(facts["length"])
    sight = Sight(vocabulary, config.critic_embedding, num_classes, config.critic_dropout)
    if config.critic == "mediator":
        sizes = {"generator_embedding": config.critic_embedding, "generator_hidden": config.critic_hidden}
        own = sizes if config.generator == "lstm" else {}
        return Mediator(make_generator(config.model_copy(update={**own, "dropout": 0.0}), facts, vocabulary))
    if config.critic == "recurrent":
        return RecurrentCritic(sight, hidden=config.critic_hidden)
    if config.critic == "cnn":
        return ConvolutionalCritic(sight, length=length, share=config.critic_filters)
    if config.critic == "multi":
        return MultiCritic(sight, length=length, share=config.critic_filters)
    body = _body(config, facts)
    return TransformerCritic(Sight(vocabulary, body.width, num_classes), body)


def _body(config: TextConfig, facts: Mapping[str, Any]) -> Body:
    published = (facts.get("pretrained") or {}).get("config")
    width = config.generator_hidden if published is None else width_of(published)
    sizes = (config.transformer_layers, config.transformer_heads, int(facts["length"]))
    return Body(config.transformer, width, *sizes, published)
