"""Objectives: each a model, its data and its loss (see `kimi_audio.training.objective`)."""
