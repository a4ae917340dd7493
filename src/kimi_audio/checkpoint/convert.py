"""Start a model from ordinary Hugging Face folders: a Qwen2 or Llama-family LLM and a Whisper.

Kimi-Audio's trunk and text branch are a Qwen2.5 (report §3): the same layers under the same names, with
biases on q, k and v. A Llama layer is the same layer with those biases zero. So a conversion renames
nothing; `llm_from_hf` fills in the biases and describes the result as a Kimi-Audio configuration without
an audio branch.
`kimi_audio.checkpoint.small` makes a whole model folder out of the parts.

    config, state = llm_from_hf("Qwen2.5-0.5B")      # text logits equal those of transformers
"""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kimi_audio.checkpoint.files import read_json, read_tensors
from kimi_audio.errors import CheckpointError, ConfigError
from kimi_audio.llm.config import RopeScaling

NUM_RESERVED = 64
"""Special ids reserved after the BPE ids when the source has fewer rows to spare (official: 421)."""


def llm_from_hf(folder: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a Qwen2/Qwen2.5 or Llama-family folder as the trunk and text branch of an audio LLM.

    Returns a configuration (the fields of `config.json`, SPEC §3, with `kimia_mimo_layers` 0) and a state
    dict under the official names, q/k/v biases included, in the stored dtype. Untied checkpoints bring
    `lm_head.weight`; tied ones say so in `tie_word_embeddings`.
    """
    folder = Path(folder)
    source = read_json(folder / "config.json")
    state = {name: tensor for name, tensor in read_tensors(folder).items() if "rotary_emb" not in name}
    config = _llm_config(source, folder / "config.json")
    n_kv = config["num_key_value_heads"] * (config["hidden_size"] // config["num_attention_heads"])
    for layer in range(config["num_hidden_layers"]):
        attention = f"model.layers.{layer}.self_attn"
        if f"{attention}.q_proj.weight" not in state:
            raise CheckpointError(f"{folder}: tensor {attention}.q_proj.weight is missing.")
        dtype = state[f"{attention}.q_proj.weight"].dtype
        for name, width in (("q", config["hidden_size"]), ("k", n_kv), ("v", n_kv)):
            state.setdefault(f"{attention}.{name}_proj.bias", torch.zeros(width, dtype=dtype))
    if config["tie_word_embeddings"]:
        state.pop("lm_head.weight", None)
    other = [name for name in state if not re.fullmatch(_KNOWN, name)]
    if other:
        raise CheckpointError(f"{folder}: tensor {other[0]} has no place in a Qwen2 or Llama layer.")
    return config, state


_KNOWN = (
    r"lm_head\.weight|model\.(embed_tokens|norm)\.weight|model\.layers\.\d+\.("
    r"(input_layernorm|post_attention_layernorm|mlp\.(gate|up|down)_proj|self_attn\.[qkvo]_proj)\.weight"
    r"|self_attn\.[qkv]_proj\.bias)"
)


def _llm_config(source: dict[str, Any], path: Path) -> dict[str, Any]:
    """Translate an HF `config.json`; refuses what this architecture cannot express."""
    try:
        n_layers, n_heads, hidden = (
            int(source[key]) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size")
        )
        ffn, vocab = int(source["intermediate_size"]), int(source["vocab_size"])
    except KeyError as error:
        raise CheckpointError(f"{path}: field {error} is missing.") from error
    rope = source.get("rope_parameters") or source.get("rope_scaling") or {}
    try:
        scaling = RopeScaling.from_dict(rope)
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}.") from error
    refused = {
        "model_type": source.get("model_type") not in ("llama", "qwen2"),
        "hidden_act": source.get("hidden_act", "silu") != "silu",
        "head_dim": source.get("head_dim") not in (None, hidden // n_heads),
        "use_sliding_window": bool(source.get("use_sliding_window")),
    }
    for field, is_refused in refused.items():
        if is_refused:
            raise CheckpointError(
                f"{path}: {field} {source.get(field)!r} is not supported; a plain Qwen2 or Llama-family model is."
            )
    return {
        "architectures": ["MoonshotKimiaForCausalLM"],
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": int(source.get("num_key_value_heads") or n_heads),
        "hidden_act": "silu",
        "rms_norm_eps": float(source.get("rms_norm_eps", 1e-6)),
        "rope_scaling": asdict(scaling) if scaling else None,
        "rope_theta": float(rope.get("rope_theta") or source.get("rope_theta", 10000.0)),
        "max_position_embeddings": int(source.get("max_position_embeddings", 2048)),
        "tie_word_embeddings": bool(source.get("tie_word_embeddings", False)),
        "use_whisper_feature": False,
        **audio_fields(n_layers, num_base_tokens=vocab - NUM_RESERVED, codes=0, mimo_layers=0, feature_dim=0),
    }


def audio_fields(
    n_layers: int,
    *,
    num_base_tokens: int,
    codes: int,
    mimo_layers: int,
    feature_dim: int,
    fork_layer: int | None = None,
) -> dict[str, Any]:
    """The `kimia_*` fields of `config.json`: id space, audio branch and adaptor.

    The audio branch forks after layer `fork_layer`, by default three quarters up as in the official 21 of 28.
    """
    offset = num_base_tokens + NUM_RESERVED
    return {
        "num_base_tokens": num_base_tokens,
        "kimia_token_offset": offset,
        "kimia_text_output_vocab": offset,
        "kimia_audio_output_vocab": codes,
        "kimia_mimo_layers": mimo_layers,
        "kimia_mimo_transformer_from_layer_index": 3 * n_layers // 4 if fork_layer is None else fork_layer,
        "kimia_mimo_audiodelaytokens": 6,
        "kimia_adaptor_input_dim": feature_dim,
        "kimia_media_begin": num_base_tokens + 18,
        "kimia_media_end": num_base_tokens + 20,
    }
