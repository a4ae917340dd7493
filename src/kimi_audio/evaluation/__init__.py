"""Evaluation: how well a model listens, next to others on the same files.

`metrics` scores texts, `systems` wraps models as things that answer about a sound, `runner` collects their answers
(resumably) and `report` prints the table. `recipes/tiny/evaluate.py` puts them together.
"""
