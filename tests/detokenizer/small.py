"""Tiny random flow and vocoder."""

import torch

from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer, euler
from kimi_audio.detokenizer.streaming import Detokenizer, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig

FLOW = FlowConfig(
    input_size=8, semantic_vocab_size=20, hidden_size=16, depth=2, num_heads=2, mel_mean=-4.0, mel_std=3.0
)
VOCODER = VocoderConfig(
    upsample_rates=(3, 2),
    upsample_kernel_sizes=(7, 4),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3, 5), (1, 3, 5)),
    num_mels=8,
    hop_size=6,
    use_tanh_at_final=False,
    use_bias_at_final=False,
)


def make_flow() -> FlowTransformer:
    torch.manual_seed(0)
    return FlowTransformer(FLOW).eval()


def make_vocoder() -> BigVGAN:
    torch.manual_seed(1)
    return BigVGAN(VOCODER).eval()


def make_detokenizer(**settings) -> Detokenizer:
    config = {"chunk_codes": 5, "look_ahead_codes": 2, "schedule": euler(3), **settings}
    return Detokenizer(make_flow(), make_vocoder(), StreamConfig(**config))


def seeded_noise(seed: int):
    """Noise that does not depend on anything else that draws."""
    generator = torch.Generator().manual_seed(seed)
    return lambda frames, bins: torch.randn(frames, bins, generator=generator)
