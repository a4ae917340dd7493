"""Converted Hugging Face models compute what `transformers` computes."""

import pytest
import torch
from safetensors.torch import save_file

from kimi_audio.checkpoint.convert import llm_from_hf, read_tensors
from kimi_audio.checkpoint.small import encoder_tensors
from kimi_audio.errors import CheckpointError
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig

transformers = pytest.importorskip("transformers")
SIZES = {
    "vocab_size": 160,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}  # fmt: skip


def hf_llm(kind, tied):
    torch.manual_seed(3)
    rope = LLAMA3 if kind == "llama3" else {"rope_type": "default"}
    config = {"qwen2": transformers.Qwen2Config}.get(kind, transformers.LlamaConfig)(
        **SIZES, tie_word_embeddings=tied, initializer_range=0.3, rope_parameters=rope | {"rope_theta": 54321.0}
    )
    model = {"qwen2": transformers.Qwen2ForCausalLM}.get(kind, transformers.LlamaForCausalLM)(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model.eval()


@pytest.mark.parametrize("kind", ["llama", "llama3", "qwen2"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shard", ["1GB", "60KB"], ids=["single", "sharded"])
def test_text_logits_equal_transformers(tmp_path, kind, tied, shard):
    source = hf_llm(kind, tied)
    source.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard != "1GB")
    config, state = llm_from_hf(tmp_path)
    model = AudioLLM(KimiAudioConfig.from_dict(config))
    model.load_state_dict(state, strict=not tied)
    assert (model.config.rope_scaling is None) == (kind != "llama3")
    assert KimiAudioConfig.from_dict(model.config.to_dict()) == model.config

    ids = torch.randint(0, SIZES["vocab_size"], (2, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = source(ids).logits
        silent = model.model.embed_tokens(ids)
        ours = model.lm_head(model.hidden(silent)[0])
    assert config["tie_word_embeddings"] is tied
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "gpt2"),
        ("hidden_act", "gelu"),
        ("rope_scaling", {"rope_type": "yarn", "factor": 4.0}),
        ("rope_scaling", "linear"),
        ("rope_scaling", LLAMA3 | {"low_freq_factor": None}),
        ("rope_scaling", LLAMA3 | {"high_freq_factor": 0.5}),
        ("head_dim", 7),
        ("use_sliding_window", True),
    ],
)
def test_other_architectures_are_refused(tmp_path, field, value):
    hf_llm("llama", True).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = __import__("json").loads(path.read_text())
    config.pop("rope_parameters", None)
    path.write_text(__import__("json").dumps(config | {field: value}))
    with pytest.raises(CheckpointError, match=field):
        llm_from_hf(tmp_path)


def test_output_bias_has_no_place(tmp_path):
    source = hf_llm("llama", True)
    source.save_pretrained(tmp_path)
    state = read_tensors(tmp_path) | {"model.layers.0.self_attn.o_proj.bias": torch.zeros(48)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"o_proj\.bias"):
        llm_from_hf(tmp_path)


def test_whisper_encoder_equals_transformers(tmp_path):
    torch.manual_seed(5)
    config = transformers.WhisperConfig(
        vocab_size=64, num_mel_bins=16, encoder_layers=3, encoder_attention_heads=4, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=32, encoder_ffn_dim=96, d_model=32, max_source_positions=60,
        init_std=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, suppress_tokens=[],
    )  # fmt: skip
    source = transformers.WhisperForConditionalGeneration(config).eval()
    source.save_pretrained(tmp_path)
    encoder = WhisperEncoder(WhisperEncoderConfig.from_dict(config.to_dict()))
    encoder.load_state_dict(encoder_tensors(read_tensors(tmp_path), tmp_path))
    log_mel = torch.randn(2, 16, 120)
    with torch.no_grad():
        expected = source.model.encoder(log_mel).last_hidden_state
        torch.testing.assert_close(encoder(log_mel), expected, atol=1e-4, rtol=0)
