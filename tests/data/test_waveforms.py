"""Decoded recordings in one file: what comes back, what comes twice, what is no sound, what is decoded already."""

import json

import numpy as np
import pytest
import soundfile

from kimi_audio.data.waveforms import WaveformStore


@pytest.fixture
def manifests(tmp_path):
    """Two manifests that share a recording; the first names a file that is no sound."""
    rng = np.random.default_rng(0)
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", rng.uniform(-0.5, 0.5, 1600), 16_000)
    (tmp_path / "text.wav").write_text("no sound")
    for number, names in enumerate((["a", "text", "b"], ["b", "c"])):
        rows = [json.dumps({"audio": f"{name}.wav", "duration": 0.1, "text": name}) for name in names]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(rows))
    return [tmp_path / "0.jsonl", tmp_path / "1.jsonl"]


def test_recordings_come_back_in_order_and_are_stored_once(manifests, tmp_path):
    store = WaveformStore.build(manifests, tmp_path / "store")
    assert [row["text"] for row in store.rows] == ["a", "b", "b", "c"]
    assert (tmp_path / "store" / "samples.i16").stat().st_size == 2 * 3 * 1600
    for number, row in enumerate(store.rows):
        samples, _ = soundfile.read(tmp_path / f"{row['text']}.wav", dtype="float32")
        np.testing.assert_allclose(store.samples(number), samples, atol=1e-4)


def test_building_goes_on_where_it_stopped(manifests, tmp_path):
    whole = WaveformStore.build(manifests, tmp_path / "store")
    index = tmp_path / "store" / "index.jsonl"
    index.write_text("".join(line + "\n" for line in index.read_text().splitlines()[:2]))
    again = WaveformStore.build(manifests, tmp_path / "store")
    assert again.rows == whole.rows
    assert all(np.array_equal(again.samples(number), whole.samples(number)) for number in range(len(whole)))
