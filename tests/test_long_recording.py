"""An hour of sound streams from the disk through the whole model in bounded memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_model import tiny_model

SPEECH = Path(__file__).parents[1] / "examples" / "kathleen.flac"
SCRIPT = """
import json, resource, sys
from kimi_audio import KimiAudio

def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

model = KimiAudio.from_pretrained(sys.argv[1])
model.transcribe(sys.argv[2])
before = peak_bytes()
result = model.transcribe(sys.argv[3])
starts = [segment.start for segment in result.segments]
print(json.dumps({"grown": peak_bytes() - before, "seconds": result.seconds, "starts": starts}))
"""


def write_minutes(path: Path, minutes: int) -> None:
    """A sentence at the beginning of every tenth minute, and silence."""
    speech, rate = soundfile.read(SPEECH, dtype="float32")
    minute = np.zeros(60 * rate, np.float32)
    spoken = minute.copy()
    spoken[: len(speech)] = speech
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for number in range(minutes):
            file.write(minute if number % 10 else spoken)


@pytest.mark.slow
def test_an_hour_takes_hardly_more_memory_than_a_minute(tmp_path: Path) -> None:
    tiny_model(generation_config={"max_new_tokens": 12}).save(tmp_path / "model")
    write_minutes(tmp_path / "minute.flac", 1)
    write_minutes(tmp_path / "hour.flac", 60)
    command = [sys.executable, "-c", SCRIPT, *(str(tmp_path / name) for name in ("model", "minute.flac", "hour.flac"))]
    found = json.loads(subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True).stdout)
    assert found["seconds"] == pytest.approx(3600, abs=0.01)
    assert [round(start / 60) for start in found["starts"]] == [0, 10, 20, 30, 40, 50]
    assert found["grown"] < 60e6, "the samples of an hour are 230 MB"
