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


@pytest.mark.parametrize("cut", [0, 1, 20])
def test_building_goes_on_after_a_kill_at_any_byte(manifests, tmp_path, cut):
    whole = WaveformStore.build(manifests, tmp_path / "store")
    index = tmp_path / "store" / "index.jsonl"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text("".join(lines[:3]) + lines[3][:cut])
    again = WaveformStore.build(manifests, tmp_path / "store")
    assert again.rows == whole.rows
    assert index.read_text() == "".join(lines)
    assert all(np.array_equal(again.samples(number), whole.samples(number)) for number in range(len(whole)))


def test_rows_whose_samples_were_lost_are_decoded_again(manifests, tmp_path):
    whole = WaveformStore.build(manifests, tmp_path / "store")
    wanted = [whole.samples(number).copy() for number in range(len(whole))]
    with (tmp_path / "store" / "samples.i16").open("r+b") as file:
        file.truncate(2 * 2 * 1600 + 7)
    again = WaveformStore.build(manifests, tmp_path / "store")
    assert all(np.array_equal(again.samples(number), wanted[number]) for number in range(4))


def test_a_manifest_made_anew_under_its_old_name_is_followed(manifests, tmp_path):
    WaveformStore.build(manifests[:1], tmp_path / "store")
    soundfile.write(tmp_path / "a.wav", np.full(3200, 0.25), 16_000)
    rows = [("c", 0.1, "c"), ("b", 0.1, "another text"), ("a", 0.2, "a")]
    lines = [json.dumps({"audio": f"{name}.wav", "duration": seconds, "text": text}) for name, seconds, text in rows]
    manifests[0].write_text("\n".join(lines))
    for _ in range(2):
        store = WaveformStore.build(manifests[:1], tmp_path / "store")
        found = [(row["text"], row["length"]) for row in store.rows]
        assert found == [("c", 1600), ("another text", 1600), ("a", 3200)]
        np.testing.assert_allclose(store.samples(2), 0.25, atol=1e-4)
        for number in (0, 1):
            samples, _ = soundfile.read(store.rows[number]["audio"], dtype="float32")
            np.testing.assert_allclose(store.samples(number), samples, atol=1e-4)
        assert (tmp_path / "store" / "samples.i16").stat().st_size == 2 * (2 * 1600 + 1600 + 3200)
