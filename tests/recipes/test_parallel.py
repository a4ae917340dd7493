"""Recordings beside another voice that says the same: which takes are read, and how two sounds are aligned."""

import json
from pathlib import Path

import numpy as np
import soundfile
from parallel import aligned, takes, warped

from kimi_audio.checkpoint.layout import load_parts


def test_takes_of_the_model_itself_keep_the_codes_that_it_said(tmp_path):
    said = {"role": "assistant", "message_type": "audio-text", "content": ["a.wav", "good day"]}
    (tmp_path / "said.jsonl").write_text(json.dumps({"codes": [3, 1, 4], "messages": [said]}) + "\n")
    rows = [{"text": text} for text in ("good day", "never said", "good day")]
    assert takes(tmp_path / "said.jsonl", rows) == [(row, Path("a.wav"), [3, 1, 4]) for row in (rows[0], rows[2])]


def test_takes_of_another_voice_are_found_by_their_line(tmp_path):
    (tmp_path / "1.wav").touch()
    rows = [{"text": "good day"}, {"text": "good night"}]
    assert takes(tmp_path, rows) == [(rows[1], tmp_path / "1.wav", None)]


def test_the_cheapest_path_follows_what_is_alike():
    here, there = np.arange(6), np.array([0, 1, 1, 2, 3, 4, 5, 5])  # the second lingers at 1 and 5
    at, cost = warped((here[:, None] != there[None]).astype(float))
    assert at.tolist() == [0, 1.5, 3, 4, 5, 6.5]
    assert cost == 0


def test_a_recording_is_aligned_with_itself_a_second_later():
    parts = load_parts(with_detokenizer=False)
    speech, rate = soundfile.read(Path(__file__).parents[2] / "examples" / "kathleen.flac", dtype="float32")
    assert rate == 16000
    later = np.concatenate([np.zeros(16000, np.float32), speech])
    times, _ = aligned(parts, later, speech, [0] * (len(speech) // 1280))
    middle = slice(len(times) // 4, 3 * len(times) // 4)
    expected = (np.arange(len(times)) + 0.5) * 0.02 + 1
    assert np.abs(np.array(times)[middle] - expected[middle]).mean() < 0.04
