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
    """Train what a recipe describes; interrupted, it can be resumed with the same result."""
    from kimi_audio.training.recipe import run_recipe

    run_recipe(recipe, resume=resume)
