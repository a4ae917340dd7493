"""A model folder that is damaged anywhere gives a model or one sentence, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import tiny_model

from kimi_audio.checkpoint.layout import Storage, save_parts
from kimi_audio.detokenizer.vocoder import unfolded
from kimi_audio.errors import KimiAudioError
from kimi_audio.model import KimiAudio

STRANGE = [None, "32", -1, 0, 3, 1.5, True, [], {}, 10**6]
"""Values to put into a configuration."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantised, sharded model, whose vocoder is an official `.pt`."""
    folder = tmp_path_factory.mktemp("damage") / "model"
    model = tiny_model(speaks=True, generation_config={"max_new_tokens": 12, "speech": {"steps": 2}})
    save_parts(folder, model.parts, Storage(llm=4, embedding=8, acoustic=8, flow=8), shard_bytes=20_000)
    assert model.detokenizer is not None
    for file in (folder / "vocoder").glob("model*"):
        file.unlink()
    torch.save({"generator": unfolded(model.detokenizer.vocoder.state_dict())}, folder / "vocoder" / "model.pt")
    return folder


def places(content, path=()):
    """The path of every value inside mappings and lists."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from places(value, (*path, key))


def change_a_value(path: Path, data: st.DataObject) -> None:
    read, write = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    content = read(path.read_text())
    *way, last = data.draw(st.sampled_from(list(places(content))))
    owner = content
    for key in way:
        owner = owner[key]
    if isinstance(owner, dict) and data.draw(st.integers(0, 4)) == 0:
        del owner[last]
    else:
        strange = STRANGE[:-1] if last == "depth" else STRANGE  # a flow of a million layers takes long to build
        owner[last] = data.draw(st.sampled_from(strange))
    path.write_text(write(content))


def change_bytes(path: Path, data: st.DataObject) -> None:
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1) | st.integers(0, min(len(raw) - 1, 400)))
        raw[at] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.just(len(raw)) | st.integers(0, len(raw)))])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_it_gives_a_model_or_one_sentence(folder: Path, tmp_path: Path, data: st.DataObject) -> None:
    damaged = tmp_path / "damaged"
    shutil.rmtree(damaged, ignore_errors=True)
    shutil.copytree(folder, damaged)
    path = data.draw(st.sampled_from(sorted(path for path in damaged.rglob("*") if path.is_file())))
    has_fields = path.suffix in (".json", ".yaml") and len(path.read_text()) > 4
    (change_a_value if has_fields and data.draw(st.booleans()) else change_bytes)(path, data)
    try:
        KimiAudio.from_pretrained(damaged, dtype=data.draw(st.sampled_from(["float32", "int8"])))
    except KimiAudioError as error:
        assert "\n" not in str(error)
