"""Recipes: a YAML file says what to train on what, `run_recipe` does it (`kimi-audio train RECIPE.yaml [--resume]`).

    objective: sft                      # or pretrain, semantic_tokenizer, adaptor, phonemes, acoustic, flow, vocoder
    model: models/init                  # folder in the official layout, to start from
    run: runs/sft                       # gets checkpoints, logs, loss.png, and at the end `model`
    ...

The fields of each objective are those of its class in `kimi_audio.training.recipes`; a path is relative to the recipe.
Recordings are decoded and listened to once, at the start, and cached; a second start goes on where the first stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch

from kimi_audio.settings import Reader, read_node
from kimi_audio.training.objective import Objective
from kimi_audio.training.recipes.language import PretrainRecipe, SftRecipe
from kimi_audio.training.recipes.listening import AcousticRecipe, AdaptorRecipe, PhonemesRecipe, SemanticTokenizerRecipe
from kimi_audio.training.recipes.speaking import FlowRecipe, VocoderRecipe
from kimi_audio.training.trainer import TrainConfig, Trainer, TrainResult

RECIPES: dict[str, Any] = {
    "pretrain": PretrainRecipe,
    "sft": SftRecipe,
    "adaptor": AdaptorRecipe,
    "phonemes": PhonemesRecipe,
    "acoustic": AcousticRecipe,
    "semantic_tokenizer": SemanticTokenizerRecipe,
    "flow": FlowRecipe,
    "vocoder": VocoderRecipe,
}


class Recipe(Protocol):
    """What all recipes have."""

    @property
    def run(self) -> Path: ...

    @property
    def train(self) -> TrainConfig: ...

    def build(self) -> Objective: ...


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises ConfigError naming line and field."""
    node, reader = read_node(path), Reader(path)
    fields, accepted = reader.fields(node, ""), ", ".join(RECIPES)
    if "objective" not in fields:
        reader.fail(node, f"field objective is missing; accepted are {accepted}.")
    name = fields["objective"].value
    if not isinstance(name, str) or name not in RECIPES:
        reader.fail(fields["objective"], f"field objective is {name!r}; accepted are {accepted}.")
    node.value = [(key, value) for key, value in node.value if key.value != "objective"]
    return reader.dataclass(node, RECIPES[name], "")


def run_recipe(path: str | Path, resume: bool = False) -> TrainResult:
    """Train what the recipe says; `resume` goes on from its newest checkpoint. See `Trainer.fit`."""
    recipe = read_recipe(Path(path))
    torch.manual_seed(recipe.train.seed)
    return Trainer(recipe.build(), recipe.train, recipe.run).fit(resume)
