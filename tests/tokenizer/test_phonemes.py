"""The head that reads phonemes: its shapes, its classes, and its place in a model folder."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_parts import make_parts

from kimi_audio.checkpoint.layout import load_parts, save_parts
from kimi_audio.errors import CheckpointError
from kimi_audio.pronunciation import PHONEMES, Lexicon
from kimi_audio.tokenizer.phonemes import CLASSES, PhonemeConfig, PhonemeReader, phoneme_classes


def reader() -> PhonemeReader:
    torch.manual_seed(0)
    return PhonemeReader(PhonemeConfig(d_model=32, hidden=8, kernel=3, layers=1)).eval()


def test_four_frames_a_feature_each_a_distribution():
    log_probs_TC = reader()(torch.randn(7, 4 * 32))
    assert log_probs_TC.shape == (28, 1 + len(PHONEMES))
    torch.testing.assert_close(log_probs_TC.exp().sum(1), torch.ones(28))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_sounds_are_read_together_as_alone(lengths):
    head = reader()
    sounds = [torch.randn(length, 4 * 32) for length in lengths]
    for together, sound in zip(head.read(sounds), sounds, strict=True):
        torch.testing.assert_close(together, head(sound))


def test_spaces_and_pauses_have_no_class():
    assert phoneme_classes("gUd, mcrnIG!") == [CLASSES[phoneme] for phoneme in "gUdmcrnIG"]
    assert sorted(CLASSES.values()) == list(range(1, 1 + len(PHONEMES)))


def test_a_model_folder_keeps_the_head(tmp_path):
    parts = make_parts()
    parts.phonemes, parts.lexicon = reader(), Lexicon({"tea": "ti"})
    save_parts(tmp_path / "model", parts)
    again = load_parts(tmp_path / "model").phonemes
    assert again is not None and again.config == parts.phonemes.config
    features_TF = torch.randn(5, 4 * 32)
    assert torch.equal(again(features_TF), parts.phonemes(features_TF))
    (tmp_path / "model" / "phonemes" / "config.json").write_text('{"d_model": 32}')
    with pytest.raises(CheckpointError, match="hidden"):
        load_parts(tmp_path / "model")
