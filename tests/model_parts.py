"""The parts of a small random model of any size, as they are saved to and loaded from a folder."""

import torch

from kimi_audio.checkpoint.layout import ModelParts
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.text import TextTokenizer
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.semantic import SemanticTokenizer, SemanticTokenizerConfig
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig

LLM = {
    "vocab_size": 352, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_base_tokens": 256, "kimia_token_offset": 320, "kimia_mimo_layers": 2,
    "kimia_mimo_transformer_from_layer_index": 1, "kimia_adaptor_input_dim": 64, "kimia_media_begin": 274,
    "kimia_media_end": 276, "an_unknown_field": [1, 2],
}  # fmt: skip
ENCODER = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}


def make_parts(**changes) -> ModelParts:
    """Random parts; `changes` are fields of the LLM's configuration."""
    torch.manual_seed(0)
    semantic = ENCODER | {"pooling_position": 1, "quantize_position": 1, "quantize_vocab_size": 32}
    return ModelParts(
        AudioLLM(KimiAudioConfig.from_dict(LLM | changes)).eval(),
        AcousticEncoder(WhisperEncoder(WhisperEncoderConfig.from_dict(ENCODER)), clip_silence=True),
        SemanticTokenizer(SemanticTokenizerConfig.from_dict(semantic)),
        TextTokenizer({bytes([byte]): byte for byte in range(256)}),
        {"text_temperature": 0.0},
    )
