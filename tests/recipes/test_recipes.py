"""Every recipe and benchmark file in `recipes/` is one that the code reads."""

from pathlib import Path

import pytest

from kimi_audio.evaluation.benchmarks import read_benchmark
from kimi_audio.training.recipe import read_recipe

ROOT = Path(__file__).parents[2] / "recipes"
FILES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.yaml")}
RECIPES = sorted(name for name, text in FILES.items() if "\nobjective:" in f"\n{text}")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_read(name: str) -> None:
    assert read_recipe(ROOT / name)


@pytest.mark.parametrize("name", sorted(FILES.keys() - set(RECIPES)))
def test_benchmarks_are_read(name: str) -> None:
    assert read_benchmark(ROOT / name).metric
