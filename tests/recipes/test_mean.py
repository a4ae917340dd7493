"""Weights between two models, in the parts that are named and in no other."""

import sys

import mean
import pytest
import torch
from model_parts import make_parts

from kimi_audio.checkpoint.layout import Storage, load_parts, save_parts, write_whisper


def averaged(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["mean", *map(str, arguments)])
    mean.main()


@pytest.fixture
def other(tmp_path):
    """A model folder, and the parts of it after all weights became 0."""
    parts = make_parts()
    save_parts(tmp_path / "model", parts)
    with torch.no_grad():
        for module in (parts.llm, parts.acoustic.encoder):
            for tensor in module.parameters():
                tensor.zero_()
    return parts


@pytest.mark.parametrize("whisper", [True, False])
def test_a_share_of_another_encoder(tmp_path, monkeypatch, other, whisper):
    if whisper:
        write_whisper(tmp_path / "other", other.acoustic.encoder, Storage())
    else:
        save_parts(tmp_path / "other", other)
    averaged(monkeypatch, tmp_path / "model", tmp_path / "other", 0.25, tmp_path / "out", "--parts", "acoustic")
    before, after = load_parts(tmp_path / "model"), load_parts(tmp_path / "out")
    learned = dict(before.acoustic.encoder.named_parameters())
    for name, tensor in after.acoustic.encoder.named_parameters():
        torch.testing.assert_close(tensor, 0.75 * learned[name])
    assert all(torch.equal(*pair) for pair in zip(before.llm.parameters(), after.llm.parameters(), strict=True))


def test_the_language_model_where_no_part_is_named(tmp_path, monkeypatch, other):
    save_parts(tmp_path / "other", other)
    averaged(monkeypatch, tmp_path / "model", tmp_path / "other", 0.75, tmp_path / "out")
    before, after = load_parts(tmp_path / "model"), load_parts(tmp_path / "out")
    torch.testing.assert_close(after.llm.model.norm.weight, 0.25 * before.llm.model.norm.weight)
    assert torch.equal(after.acoustic.encoder.conv1.weight, before.acoustic.encoder.conv1.weight)
