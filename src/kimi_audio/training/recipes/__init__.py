"""Recipe classes: the fields of a recipe file, and how its objective is built (see `kimi_audio.training.recipe`)."""
