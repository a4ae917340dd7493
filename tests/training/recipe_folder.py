"""A folder in which recipes can run: a tiny model, eight short tones, a chat."""

import json
from pathlib import Path

import numpy as np
import soundfile
from tiny_model import tiny_model


def make_folder(tmp_path: Path) -> Path:
    """A model folder `init`, manifests of eight short tones, and a chat."""
    tiny_model(seed=1).save(tmp_path / "init")
    rows = []
    for number in range(8):
        tone = 0.3 * np.sin(np.arange(4000 + 400 * number) * (0.05 + 0.02 * number))
        soundfile.write(tmp_path / f"{number}.wav", tone.astype(np.float32), 16000)
        rows.append({"audio": f"{number}.wav", "duration": len(tone) / 16000, "speaker": f"s{number // 4}",
                     "text": f"t{number}", "label": "high" if number > 3 else "low"})  # fmt: skip
    write_lines(tmp_path / "tones.jsonl", rows)
    chat = [{"role": "user", "message_type": "text", "content": "hi"},
            {"role": "assistant", "message_type": "text", "content": "hello"}]  # fmt: skip
    asked = [{"role": "user", "message_type": "audio", "content": "3.wav"}, chat[1]]
    write_lines(tmp_path / "chat.jsonl", [{"messages": chat}, {"messages": asked}])
    (tmp_path / "texts.txt").write_text("one line\nand another\n")
    return tmp_path


def write_lines(path: Path, lines: list) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
