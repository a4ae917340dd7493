"""The models that `gpu.py` measures: official sizes, or small ones to see whether it runs, with random weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from kimi_audio.detokenizer.flow import FlowConfig
from kimi_audio.detokenizer.vocoder import VocoderConfig
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.vocab import Vocabulary

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Sizes:
    """Of everything that is measured; the language model's come from the id space and its layers."""

    vocab: Vocabulary
    llm: dict[str, int]
    flow: FlowConfig
    vocoder_channels: int
    copied_bytes: int

    @property
    def llm_config(self) -> KimiAudioConfig:
        vocab = self.vocab
        return KimiAudioConfig(
            **self.llm,  # type: ignore[arg-type]
            vocab_size=vocab.size,
            num_base_tokens=vocab.num_base_tokens,
            kimia_token_offset=vocab.token_offset,
            kimia_media_begin=vocab.media_begin,
            kimia_media_end=vocab.media_end,
            kimia_adaptor_input_dim=5120,
        )

    @property
    def vocoder_config(self) -> VocoderConfig:
        return VocoderConfig(
            upsample_rates=(5, 2, 2, 2, 2, 3, 2),
            upsample_kernel_sizes=(9, 4, 4, 4, 4, 5, 4),
            upsample_initial_channel=self.vocoder_channels,
            resblock_kernel_sizes=(3, 5, 7, 11),
            resblock_dilation_sizes=((1, 3, 5),) * 4,
            use_tanh_at_final=False,
            use_bias_at_final=False,
        )


OFFICIAL = Sizes(
    Vocabulary(151643),
    {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
     "num_key_value_heads": 4, "kimia_mimo_layers": 6, "kimia_mimo_transformer_from_layer_index": 21},
    FlowConfig(80, 16384, hidden_size=2304, depth=16, num_heads=18, mel_mean=-4.479605, mel_std=3.4584913),
    vocoder_channels=2048,
    copied_bytes=4 << 30,
)  # fmt: skip
SMALL = Sizes(
    Vocabulary(2304, 421, 1024),
    {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
     "num_key_value_heads": 2, "kimia_mimo_layers": 1, "kimia_mimo_transformer_from_layer_index": 1},
    FlowConfig(80, 1024, hidden_size=64, depth=2, num_heads=2, mel_mean=-4.479605, mel_std=3.4584913),
    vocoder_channels=128,
    copied_bytes=64 << 20,
)  # fmt: skip


def random_module(make: Callable[[], M], device: torch.device, dtype: torch.dtype) -> M:
    """A module made where it will run, and in its dtype."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return make().to(device).eval().requires_grad_(False)  # the filters are remembered where first made
    finally:
        torch.set_default_dtype(before)
