"""Weights between two encoders, and nothing else of the model changed."""

import sys

import between
import torch
from model_parts import make_parts

from kimi_audio.checkpoint.layout import ACOUSTIC_FOLDER, Storage, load_parts, save_parts, write_whisper


def test_share_of_whisper(tmp_path, monkeypatch):
    parts = make_parts()
    assert parts.acoustic is not None
    save_parts(tmp_path / "model", parts)
    wanted = {name: tensor * 0.75 for name, tensor in parts.acoustic.encoder.state_dict().items()}
    with torch.no_grad():
        for tensor in parts.acoustic.encoder.parameters():
            tensor.zero_()
    write_whisper(tmp_path / "whisper", parts.acoustic.encoder, Storage())
    monkeypatch.setattr(between, "STORAGE", Storage())
    arguments = (tmp_path / "model", tmp_path / "whisper", 0.25, tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["between", *map(str, arguments)])
    between.main()
    got = load_parts(tmp_path / "out").acoustic
    assert got is not None
    for name, tensor in got.encoder.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name])
    for file in (tmp_path / "model").rglob("*"):
        if file.is_file() and ACOUSTIC_FOLDER not in file.parts:
            assert file.read_bytes() == (tmp_path / "out" / file.relative_to(tmp_path / "model")).read_bytes()
