"""The parts of the tiny model with whatever changes of its size, as they are saved to and loaded from a folder."""

import tiny_model
import torch

from kimi_audio.checkpoint.layout import ModelParts
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.text import TextTokenizer
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.semantic import SemanticTokenizer
from kimi_audio.tokenizer.whisper import WhisperEncoder

LLM = tiny_model.LLM.to_dict() | {"an_unknown_field": [1, 2]}


def make_parts(**changes) -> ModelParts:
    """Random parts; `changes` are fields of the LLM's configuration."""
    torch.manual_seed(0)
    return ModelParts(
        AudioLLM(KimiAudioConfig.from_dict(LLM | changes)).eval(),
        AcousticEncoder(WhisperEncoder(tiny_model.WHISPER), clip_silence=True),
        SemanticTokenizer(tiny_model.SEMANTIC),
        TextTokenizer({bytes([byte]): byte for byte in range(256)}),
        {"text_temperature": 0.0},
    )
