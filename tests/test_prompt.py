"""Prompts of the official code, position by position (golden case ``prompt``)."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kimi_audio.errors import DataError
from kimi_audio.messages import Message, messages_from
from kimi_audio.prompt import Heard, Prompt, build_prompt
from kimi_audio.vocab import Vocabulary

GOLDEN = Path(__file__).parent / "golden" / "prompt"
OFFICIAL = Vocabulary(151643, 421)


def cases(file: str) -> list[Any]:
    golden = json.loads((GOLDEN / file).read_text())
    return [pytest.param(golden["stub_audio_codes"], case, id=name) for name, case in golden["cases"].items()]


def build(codes: dict[str, list[int]], case: dict[str, Any], training: bool) -> tuple[Prompt, list[str]]:
    heard: list[str] = []

    def listen(source: str) -> Heard:
        heard.append(source)
        return Heard(codes[source], torch.zeros(1, len(codes[source]), 8))

    prompt = build_prompt(
        messages_from(case["messages"]),
        OFFICIAL,
        lambda text: list(text.encode()),
        listen,
        output_type=case["output_type"],
        training=training,
    )
    return prompt, heard


@pytest.mark.parametrize(("codes", "case"), cases("prompts.json"))
def test_inference_prompt(codes: dict[str, list[int]], case: dict[str, Any]) -> None:
    prompt, heard = build(codes, case, training=False)
    assert prompt.audio_ids == case["audio_ids"]
    assert prompt.text_ids == case["text_ids"]
    assert prompt.continuous_mask == list(map(bool, case["is_continuous_mask"]))
    assert heard == case["whisper_order"]
    assert [f.shape[1] for f in prompt.features] == [len(codes[name]) for name in heard]


@pytest.mark.parametrize(("codes", "case"), cases("prompts_train_variant.json"))
def test_training_prompt(codes: dict[str, list[int]], case: dict[str, Any]) -> None:
    if "error" in case:
        with pytest.raises(DataError, match="text has 26 tokens"):
            build(codes, case, training=True)
        return
    prompt, heard = build(codes, case, training=True)
    assert prompt.audio_ids == case["audio_ids"]
    assert prompt.text_ids == case["text_ids"]
    assert prompt.continuous_mask == list(map(bool, case["is_continuous_mask"]))
    assert prompt.audio_loss_mask == list(map(bool, case["audio_token_loss_mask"]))
    assert prompt.text_loss_mask == list(map(bool, case["text_token_loss_mask"]))
    spoken_answers = [m["content"][0] for m in case["messages"] if m["message_type"] == "audio-text"]
    assert [name for name in heard if name not in spoken_answers] == case["whisper_order"]
    assert len(prompt.features) == len(case["whisper_order"])


def test_closed_conversation_has_no_open_turn() -> None:
    messages = [Message("user", "text", "hi"), Message("assistant", "text", "ho")]
    prompt = build_prompt(messages, OFFICIAL, lambda text: list(text.encode()), Heard, training=True, open_answer=False)
    assert prompt.audio_ids[-1] == OFFICIAL.msg_end
    assert prompt.text_ids[-2] == OFFICIAL.text_eos
    assert sum(prompt.text_loss_mask) == len(b"ho") + 1


SFT_CASE = Path(os.environ.get("KIMI_AUDIO_SHARED", Path(__file__).parents[2] / "shared")) / "golden" / "sft_labels"


def test_what_is_said_may_be_written_in_other_pieces() -> None:
    asked, answer = Message("user", "text", "ab"), Message("assistant", "audio-text", (Heard([5] * 9), "cd"))
    prompt = build_prompt([asked, answer], OFFICIAL, lambda text: [1] * len(text), lambda heard: heard,
                          encode_spoken=lambda text: [2] * 2 * len(text))  # fmt: skip
    assert [i for i in prompt.text_ids if i < 3] == [1] * 2 + [2] * 4


@pytest.mark.skipif(not SFT_CASE.is_dir(), reason="needs the golden case sft_labels")
def test_fine_tuning_labels() -> None:
    """The official fine-tuning data set: labels and masks are the prompt's, shifted left by one."""
    config = json.loads((SFT_CASE / "config.json").read_text())
    golden = load_file(SFT_CASE / "inputs.safetensors") | load_file(SFT_CASE / "expected.safetensors")
    vocab = Vocabulary.from_config(config)
    codes = {name: [i - vocab.token_offset for i in ids] for name, ids in config["codes_with_offset"].items()}
    for name, case in config["cases"].items():
        prompt = build_prompt(
            messages_from(case["conversation"]),
            vocab,
            lambda text: list(text.encode()),
            lambda source: Heard(codes[source]),
            output_type="text" if case["task_type"] == "understanding" else "both",
            training=True,
            open_answer=False,
        )
        assert prompt.audio_ids == golden[f"{name}.audio_ids"][0].tolist()
        assert prompt.text_ids == golden[f"{name}.text_ids"][0].tolist()
        assert prompt.continuous_mask == golden[f"{name}.is_continuous_mask"][0].tolist()
        assert [*prompt.audio_ids[1:], vocab.pad] == golden[f"{name}.audio_labels"][0].tolist()
        assert [*prompt.audio_loss_mask[1:], False] == golden[f"{name}.audio_loss_mask"][0].tolist()
        assert [*prompt.text_loss_mask[1:], False] == golden[f"{name}.text_loss_mask"][0].tolist()
