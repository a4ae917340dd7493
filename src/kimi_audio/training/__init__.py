"""Training room: one trainer, and the objectives that it runs."""
