"""Evaluation: what models can do, measured the same way for all of them (report §6).

`benchmarks` says what is asked, `adapters` reach the models, `evaluate` asks and scores, `store` keeps answers and
scores, `statistics` says how sure a figure is, `page` and `tables` show it; `session` puts them together.
"""
