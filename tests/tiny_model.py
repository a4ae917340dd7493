"""A complete Kimi-Audio with random weights, small enough to build in a blink: bytes as text tokens, 32-wide layers."""

import torch

from kimi_audio.checkpoint.layout import ModelParts
from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer, euler
from kimi_audio.detokenizer.streaming import Detokenizer, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.model import KimiAudio
from kimi_audio.text import TextTokenizer
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.semantic import SemanticTokenizer, SemanticTokenizerConfig
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig
from kimi_audio.vocab import Vocabulary

VOCAB = Vocabulary(num_base_tokens=256, num_special_tokens=64, num_audio_codes=48)

LLM = KimiAudioConfig(
    vocab_size=VOCAB.size,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    kimia_token_offset=VOCAB.token_offset,
    kimia_mimo_layers=2,
    kimia_mimo_transformer_from_layer_index=1,
    kimia_adaptor_input_dim=4 * 32,
    kimia_media_begin=VOCAB.media_begin,
    kimia_media_end=VOCAB.media_end,
    num_base_tokens=VOCAB.num_base_tokens,
)

WHISPER = WhisperEncoderConfig(
    d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, num_mel_bins=80
)

SEMANTIC = SemanticTokenizerConfig(
    d_model=32,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=64,
    num_mel_bins=80,
    pooling_position=1,
    quantize_position=1,
    quantize_vocab_size=VOCAB.num_audio_codes,
)


FLOW = FlowConfig(
    input_size=8, semantic_vocab_size=48, hidden_size=16, depth=2, num_heads=2, mel_mean=-4.0, mel_std=3.0
)

VOCODER = VocoderConfig(
    upsample_rates=(8, 6, 10),
    upsample_kernel_sizes=(16, 12, 20),
    upsample_initial_channel=16,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1, 3),),
    num_mels=8,
)


def tiny_detokenizer() -> Detokenizer:
    """Makes noise of the right length, 24 kHz."""
    config = StreamConfig(chunk_codes=6, first_chunk_codes=4, look_ahead_codes=2, schedule=euler(2), context_frames=3)
    return Detokenizer(FlowTransformer(FLOW).eval(), BigVGAN(VOCODER).eval(), config)


def tiny_model(seed: int = 0, generation_config: dict | None = None, speaks: bool = False) -> KimiAudio:
    """A model whose answers depend on what it hears and reads, but mean nothing."""
    torch.manual_seed(seed)
    llm = AudioLLM(LLM).eval()
    with torch.no_grad():
        for weight in llm.model.layers.parameters():
            if weight.ndim == 2:
                weight *= 4  # new layers hardly change what enters them
        # Text id 0 alone in a call is not embedded (SPEC.md section 3), so a batch would differ from single rows.
        llm.lm_head.weight[0] = 0
        if speaks:
            llm.mimo_output.weight[VOCAB.token_offset :] *= 20  # the likeliest ids of the audio stream are codes
    return KimiAudio(
        ModelParts(
            llm,
            AcousticEncoder(WhisperEncoder(WHISPER).eval(), clip_silence=True),
            SemanticTokenizer(SEMANTIC).eval(),
            TextTokenizer({bytes([byte]): byte for byte in range(256)}),
            generation_config or {},
            tiny_detokenizer() if speaks else None,
        )
    )
