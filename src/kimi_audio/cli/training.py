"""`train`: run a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from kimi_audio.cli import common


@common.command
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="What to train, on what, for how long.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
) -> None:
    """Train what a recipe describes. Ctrl-C saves a checkpoint; --resume goes on from it to the same result."""
    common.need_extra("train", "jiwer", "matplotlib", "tensorboard", "tokenizers")
    from kimi_audio.training.recipe import run_recipe

    result = run_recipe(recipe, resume=resume)
    if not result.finished:
        common.tell(f"interrupted at step {result.step}; the same command with --resume goes on from there")
        raise typer.Exit(common.INTERRUPTED)
