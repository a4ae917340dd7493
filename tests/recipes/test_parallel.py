"""Recordings beside another voice that says the same: which takes are read, and how two sounds are aligned."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kimi_audio.checkpoint.layout import ModelParts, load_parts

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "tiny"))

from parallel import aligned, takes, warped


@pytest.fixture(scope="module")
def parts() -> ModelParts:
    return load_parts(with_detokenizer=False)


def test_takes_of_the_model_itself_keep_the_codes_that_it_said(tmp_path, parts):
    soundfile.write(tmp_path / "a.wav", np.zeros(1600, np.float32), 16000)
    said = {"role": "assistant", "message_type": "audio-text", "content": [str(tmp_path / "a.wav"), "good day"]}
    (tmp_path / "said.jsonl").write_text(json.dumps({"codes": [3, 1, 4], "messages": [said]}) + "\n")
    texts = ["good day", "never said", "good day"]
    rows = [{"text": text, "audio": str(number)} for number, text in enumerate(texts, start=1)]
    found = list(takes(tmp_path / "said.jsonl", rows, parts))
    assert [row["audio"] for row, _, _ in found] == ["1", "3"]
    assert all(codes == [3, 1, 4] and len(samples) == 1600 for _, samples, codes in found)


def test_takes_of_another_voice_are_found_by_their_line_and_encoded(tmp_path, parts):
    noise = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    soundfile.write(tmp_path / "1.wav", noise, 16000)
    [(row, samples, codes)] = takes(tmp_path, [{"audio": "0"}, {"audio": "1"}], parts)
    assert row["audio"] == "1"
    assert len(samples) == 16000
    assert len(codes) == 13  # 12.5 a second


def test_the_cheapest_path_follows_what_is_alike():
    here, there = np.arange(6), np.array([0, 1, 1, 2, 3, 4, 5, 5])  # the second lingers at 1 and 5
    at, cost = warped((here[:, None] != there[None]).astype(float))
    assert at.tolist() == [0, 1.5, 3, 4, 5, 6.5]
    assert cost == 0


def test_a_recording_is_aligned_with_itself_a_second_later(parts):
    speech, rate = soundfile.read(Path(__file__).parents[2] / "examples" / "kathleen.flac", dtype="float32")
    assert rate == 16000
    later = np.concatenate([np.zeros(16000, np.float32), speech])
    times, _ = aligned(parts, later, speech, [0] * (len(speech) // 1280))
    middle = slice(len(times) // 4, 3 * len(times) // 4)
    expected = (np.arange(len(times)) + 0.5) * 0.02 + 1
    assert np.abs(np.array(times)[middle] - expected[middle]).mean() < 0.04
