"""Fixtures of all rooms."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The optional folder with real audio (`data/`) and exact targets (`golden/`); without it the test is skipped."""
    default = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("KIMI_AUDIO_SHARED", default))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; KIMI_AUDIO_SHARED names another")
    return folder
