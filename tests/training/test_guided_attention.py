"""Guided attention: the band, which positions it is about, and that following it makes the loss fall."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.messages import Message
from kimi_audio.prompt import Heard, build_prompt
from kimi_audio.training.guided_attention import GUIDED_LAYERS, GuidedAttention, answer_in, band
from kimi_audio.training.mixture import Mixture
from kimi_audio.training.objectives.language import LanguageObjective
from kimi_audio.training.packing import PackedRow


def conversation(vocab, codes: int = 30, text: str = "abcdefgh"):
    """An earlier answer in writing, then one that is spoken, too."""
    messages = [
        Message("user", "text", "hi"),
        Message("assistant", "text", "hello"),
        Message("user", "text", "say it"),
        Message("assistant", "audio-text", ("a.wav", text)),
    ]
    return build_prompt(
        messages,
        vocab,
        lambda words: [ord(letter) % vocab.num_base_tokens for letter in words],
        lambda _: Heard([n % vocab.num_audio_codes for n in range(codes)]),
        output_type="both",
        training=True,
        learn_speech=True,
        open_answer=False,
    )


@given(st.integers(1, 40), st.integers(0, 80))
def test_each_code_has_some_text_and_each_text_some_code(texts, more):
    inside = band(texts + more, texts)
    assert inside.shape == (texts + more, texts)
    assert inside.any(1).all() and inside.any(0).all()
    assert inside[0, 0] and inside[-1, -1]


def test_the_text_is_that_of_the_spoken_answer(vocab):
    prompt = conversation(vocab)
    row = PackedRow.of([prompt, prompt], size=400)
    codes_at, text_at = answer_in(row, len(prompt), 2 * len(prompt))
    assert len(codes_at) == 31 and len(text_at) == 9  # msg_end and text_eos included
    said = torch.tensor(prompt.text_ids)[text_at]
    assert said[:-1].tolist() == [ord(letter) % vocab.num_base_tokens for letter in "abcdefgh"]
    assert all(len(found) == 0 for found in answer_in(row, 2 * len(prompt), 400))


@pytest.mark.parametrize("follows", [True, False])
def test_the_loss_is_small_where_the_band_is_followed(vocab, follows):
    prompt = conversation(vocab)
    row = PackedRow.of([prompt])
    codes_at, text_at = answer_in(row, 0, len(prompt))
    keys_Td = torch.eye(len(prompt))
    queries_Td = torch.zeros(len(prompt), len(prompt))
    inside = band(len(codes_at), len(text_at)).float()
    queries_Td[codes_at[:, None], text_at] = 400.0 * (inside if follows else 1 - inside)
    guide = GuidedAttention(row)
    guide(GUIDED_LAYERS[0], 0, queries_Td.expand(1, 2, -1, -1), keys_Td.expand(1, 1, -1, -1))
    guide(GUIDED_LAYERS[0] + 1, 0, queries_Td.expand(1, 2, -1, -1), keys_Td.expand(1, 1, -1, -1))
    assert len(guide.losses) == 1
    assert (guide.loss() < 0.5) == follows


def test_the_audio_branch_learns_to_follow(llm, vocab):
    class Source:
        def __len__(self):
            return 1

        def prompt(self, index, rng):
            return conversation(vocab)

    objective = LanguageObjective(llm, Mixture([Source()], [1], 128), vocab, guide_attention=1.0)
    optimizer = torch.optim.Adam(llm.parameters(), 1e-2)
    row, astray = next(objective.batches(0)), []
    for _ in range(12):
        loss, metrics = objective.loss(row)
        astray.append(float(metrics["guide_loss"]))
        parts = (float(metrics[f"{name}_loss"]) for name in ("text", "audio", "guide"))
        assert loss.item() == pytest.approx(sum(parts), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert astray[-1] < 0.7 * astray[0]
