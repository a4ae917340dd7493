"""Tones of several pitches at 24 kHz, whose codes say their pitch, and a flow and a vocoder small enough for them."""

import json
from pathlib import Path

import numpy as np
import soundfile
import torch

from kimi_audio.data.waveforms import WaveformStore
from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig

RATE, CODES = 24_000, 10
FLOW = FlowConfig(
    input_size=16, semantic_vocab_size=CODES, hidden_size=24, depth=2, num_heads=2, mel_mean=-5, mel_std=3
)
VOCODER = VocoderConfig(
    upsample_rates=(8, 6, 10),
    upsample_kernel_sizes=(16, 12, 20),
    upsample_initial_channel=32,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
    num_mels=16,
)


def tone_store(folder: Path) -> WaveformStore:
    """Eight tones of 0.5 to 1.2 s."""
    rows = []
    for number in range(8):
        seconds = 0.5 + 0.1 * number
        time = np.arange(int(seconds * RATE)) / RATE
        soundfile.write(folder / f"{number}.wav", 0.3 * np.sin(2 * np.pi * 150 * (number + 1) * time), RATE)
        rows.append({"audio": f"{number}.wav", "duration": seconds, "pitch": number})
    (folder / "tones.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return WaveformStore.build([folder / "tones.jsonl"], folder / "store", RATE)


def tone_codes(row: dict) -> list[int]:
    return [row["pitch"]] * -(-row["length"] // 1920)


def make_flow() -> FlowTransformer:
    torch.manual_seed(0)
    return FlowTransformer(FLOW)


def make_vocoder() -> BigVGAN:
    torch.manual_seed(0)
    return BigVGAN(VOCODER)
