"""A folder of recordings becomes pieces of speech."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from kimi_audio.audio.decode import load_audio

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes" / "voice" / "prepare.py"


def prepare(recordings: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), str(recordings), str(out)], capture_output=True, text=True)


def test_recordings_become_pieces_at_24_khz(tmp_path: Path) -> None:
    speech, pause = load_audio(ROOT / "examples" / "kathleen.flac", 44_100), np.zeros(3 * 44_100, np.float32)
    recordings = tmp_path / "recordings"
    (recordings / "deeper").mkdir(parents=True)
    soundfile.write(recordings / "deeper" / "one.wav", np.concatenate([speech, pause, speech, pause]), 44_100)
    soundfile.write(recordings / "silence.wav", pause, 44_100)
    (recordings / "notes.txt").write_text("read on Monday")
    for _ in range(2):
        done = prepare(recordings, tmp_path / "out")
        assert done.returncode == 0, done.stderr
        assert "notes.txt" in done.stderr and "silence" not in done.stderr
    manifests = [(tmp_path / "out" / f"voice.{split}.jsonl").read_text() for split in ("dev", "train")]
    rows = [json.loads(line) for line in "".join(manifests).splitlines()]
    assert len(rows) == 2
    for row in rows:
        info = soundfile.info(tmp_path / "out" / row["audio"])
        assert info.samplerate == 24_000 and abs(info.duration - row["duration"]) < 0.01
        assert 3 < info.duration < 6


def test_a_folder_without_speech_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = prepare(tmp_path / "empty", tmp_path / "out")
    assert done.returncode == 1 and "holds no recording in which somebody speaks" in done.stderr
    done = prepare(tmp_path / "nowhere", tmp_path / "out")
    assert done.returncode == 1 and "is not a folder of recordings" in done.stderr
