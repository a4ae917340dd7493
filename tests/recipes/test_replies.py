"""The tiny recipe's voices: the machine's is asked for by name, and what asks for none is answered in the person's."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "tiny"))

from replies import ANSWERS_EACH, MACHINE, lines, manifests

from kimi_audio.data.manifest import read_conversations, read_recordings
from kimi_audio.training.objectives.sft import instructions

RECIPE = Path(sys.path[0])


def conversation(question: str, answer: str) -> str:
    said = [("user", question), ("assistant", answer)]
    messages = [{"role": role, "message_type": "text", "content": text} for role, text in said]
    return json.dumps({"messages": messages}) + "\n"


def tone(path: Path) -> str:
    soundfile.write(path, np.sin(np.arange(8000) * 0.1).astype(np.float32), 16000)
    return str(path)


def test_manifests_of_two_voices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "questions.jsonl"
    asked = [conversation(f"q{n}?", f"Answer {n}.") for n in range(60)]
    questions.write_text("".join([*asked, conversation("long", "x" * 200)]))
    lines(Namespace(conversations=[questions], texts=None, sentences=0, voice="flite:slt", seed=0))
    (tmp_path / "lines.tsv").write_text(capsys.readouterr().out)
    for name in [line.split("\t")[0] for line in (tmp_path / "lines.tsv").read_text().splitlines()[:55]]:
        tone(tmp_path / f"{name}.wav")
    voice = [{"audio": tone(tmp_path / f"person{n}.wav"), "duration": 0.5, "text": f"recorded {n}"} for n in range(20)]
    (tmp_path / "voice.jsonl").write_text("".join(json.dumps(row) + "\n" for row in voice))
    arguments = {"lines": tmp_path / "lines.tsv", "wavs": tmp_path, "out": tmp_path, "questions": [questions]}
    manifests(Namespace(**arguments, own=[tmp_path / "voice.jsonl"]))

    def written(kind: str) -> list[Path]:
        return [tmp_path / f"{kind}.{split}.jsonl" for split in ("train", "dev")]

    talk, own = ([messages for path in written(kind) for messages in read_conversations(path)]
                 for kind in ("talk", "own"))  # fmt: skip
    say = [row for path in written("say") for row in read_recordings(path, needs=["text"])]
    assert len(talk) == len(say) == 55 and len(own) == 20 * ANSWERS_EACH
    assert all(messages[0].content == MACHINE["content"] for messages in talk)
    assert all(f"Answer {messages[1].content[1:-1]}." == messages[-1].content[1] for messages in talk)
    assert all("machine" not in message.content for messages in own for message in messages[:-1])
    assert {messages[-1].content for messages in own} == {(row["audio"], row["text"]) for row in voice}


def test_only_the_synthetic_texts_ask_for_the_machine() -> None:
    asked = (RECIPE / "text" / "machine_voice.txt").read_text().splitlines()
    assert asked and all("the machine's voice" in line for line in asked)
    assert not any("machine" in line for line in instructions("say"))
