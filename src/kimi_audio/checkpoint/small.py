"""Build a small Kimi-Audio from a small text LLM and a small Whisper: the starting point of training.

The result is a folder in the official layout (SPEC §1) whose text-only behaviour is the source LLM's on the
words that its cut vocabulary kept: kept tokens inherit their embedding rows, `text_blank` embeds to zero,
the specials that end a turn or start one inherit rows of the source's chat template. Everything else is new
and drawn from a fixed seed.

    build_small("smollm2", "whisper-tiny.en", "init", vocab_size=16384, texts=sentences, mimo_layers=0)
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kimi_audio.checkpoint.convert import NUM_RESERVED, audio_fields, llm_from_hf
from kimi_audio.checkpoint.files import read_json, read_tensors, write_json, write_tensors
from kimi_audio.checkpoint.layout import (
    ACOUSTIC_FOLDER,
    CLIP_SILENCE,
    SEMANTIC_FOLDER,
    SHARD_BYTES,
    SPARE_FRAMES,
    write_encoder,
)
from kimi_audio.checkpoint.vocabulary import MISSING, SourceVocabulary, choose_tokens, read_vocabulary, write_tiktoken
from kimi_audio.errors import CheckpointError, ConfigError
from kimi_audio.llm.model import AudioLLM
from kimi_audio.tokenizer.semantic import SemanticTokenizerConfig
from kimi_audio.vocab import Vocabulary

EMBEDDING = "model.embed_tokens.weight"
ONE_SECOND = 50
"""Frames of silence that the acoustic encoder hears after a clip."""
COMMITMENT_SCALE = 1.0
"""Weight of the commitment loss. With the official 10 all states of a new tokenizer collapse onto one code."""
NEW_ROW_STD = 0.02
"""Spread of new embedding rows around the mean row."""


def build_small(
    llm_folder: str | Path,
    whisper_folder: str | Path,
    out_folder: str | Path,
    *,
    vocab_size: int,
    texts: Iterable[str],
    min_count: int = 5,
    audio_codes: int = 1024,
    mimo_layers: int = 0,
    fork_layer: int | None = None,
    semantic_layers: int | None = None,
    seed: int = 0,
) -> dict[str, int]:
    """Write a new model folder and return its id space: `bpe`, `special`, `audio` and `rows` in all.

    Args:
        llm_folder: HF folder of a Qwen2 or Llama-family LLM with its byte-level `tokenizer.json`.
        whisper_folder: HF folder of a Whisper; becomes the acoustic encoder and the semantic tokenizer.
        vocab_size: BPE tokens to keep, 256 bytes included.
        texts: sample of what the model will read and write.
        min_count: tokens used at least so often in `texts` are kept before the earliest merges.
        audio_codes: size of the semantic tokenizer's codebook.
        mimo_layers: layers of the audio branch; 0 makes a model that listens only.
        fork_layer: the audio branch starts after this layer (default: three quarters up).
        semantic_layers: Whisper layers below the codebook (default: half, as the official 16 of 32).
    """
    out = Path(out_folder)
    source = read_vocabulary(Path(llm_folder) / "tokenizer.json")
    kept = choose_tokens(source, texts, vocab_size, min_count)
    config, state = llm_from_hf(llm_folder)
    whisper = read_json(Path(whisper_folder) / "config.json")
    encoder = encoder_tensors(read_tensors(Path(whisper_folder)), whisper_folder)

    config |= audio_fields(
        config["num_hidden_layers"],
        num_base_tokens=vocab_size,
        codes=audio_codes,
        mimo_layers=mimo_layers,
        feature_dim=4 * whisper["d_model"],
        fork_layer=fork_layer,
    )
    rows = -(-(vocab_size + NUM_RESERVED + audio_codes) // 64) * 64
    config |= {"vocab_size": rows, "tie_word_embeddings": True, "use_whisper_feature": True}
    config |= {CLIP_SILENCE: True, SPARE_FRAMES: ONE_SECOND}
    generator = torch.Generator().manual_seed(seed)
    state["model.embed_tokens.weight"] = embedding_rows(
        state["model.embed_tokens.weight"], source, kept, rows, generator
    )
    state.pop("lm_head.weight", None)
    state |= new_parts(config, state, generator)

    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "config.json", config)
    write_json(out / "tokenizer_config.json", {"num_reserved_special_tokens": NUM_RESERVED})
    write_json(out / "generation_config.json", {"text_temperature": 0.0, "text_top_k": 5})
    write_tensors(out, state, SHARD_BYTES)
    write_tiktoken(out / "tiktoken.model", [source.tokens[rank] for rank in kept])
    write_encoder(out / ACOUSTIC_FOLDER, whisper, {f"model.encoder.{k}": v for k, v in encoder.items()}, SHARD_BYTES)
    below = semantic_layers or whisper["encoder_layers"] // 2
    semantic = SemanticTokenizerConfig.from_dict(
        whisper
        | {
            "pooling_position": below,
            "quantize_position": below,
            "quantize_vocab_size": audio_codes,
            "quantize_loss_scale": COMMITMENT_SCALE,
        }
    )
    write_encoder(
        out / SEMANTIC_FOLDER,
        semantic.to_dict(),
        semantic_tensors(encoder, below, audio_codes, generator),
        SHARD_BYTES,
    )
    return {"bpe": vocab_size, "special": NUM_RESERVED, "audio": audio_codes, "rows": rows}


def embedding_rows(
    source_VD: Tensor, source: SourceVocabulary, kept: list[int], rows: int, generator: torch.Generator
) -> Tensor:
    """The embedding table [rows, D] of the cut vocabulary, its specials and its audio codes.

    New rows start close to the mean row: the head is tied, and rows as spread out as real ones would draw a
    large share of the probability from the words (measured on SmolLM2-135M: 4 nats a token lost, against 0).
    """
    table = source_VD.float()
    vocab = Vocabulary(len(kept), NUM_RESERVED, rows - len(kept) - NUM_RESERVED)
    new_VD = table.mean(0) + torch.randn(rows, table.shape[1], generator=generator) * NEW_ROW_STD
    ids = torch.tensor([source.ids[rank] for rank in kept])
    new_VD[: len(kept)] = torch.where((ids == MISSING)[:, None], table.mean(0), table[ids])
    new_VD[vocab.text_blank] = 0.0
    end, start = source.special.get("<|im_end|>"), source.special.get("<|im_start|>")
    if end is not None:
        new_VD[vocab.msg_end] = new_VD[vocab.text_eos] = table[end]
    if start is not None:
        new_VD[vocab.kimia_user_msg_start] = table[[start, *source.encode("user")]].mean(0)
    # A turn's header ends with a newline; of the header's rows, alone or averaged, it continues best into an answer.
    new_VD[vocab.kimia_assistant_msg_start] = table[source.encode("\n")].mean(0)
    return new_VD.to(source_VD.dtype)


def new_parts(config: dict[str, Any], state: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """What the source LLM lacks: the adaptor, and the audio branch as a copy of the trunk's own way on.

    The adaptor's LayerNorm starts at the spread of the embeddings, so that features enter at their scale.
    """
    dim, features = config["hidden_size"], config["kimia_adaptor_input_dim"]
    embed = state["model.embed_tokens.weight"]

    def linear(rows: int, columns: int) -> Tensor:
        return (torch.randn(rows, columns, generator=generator) * columns**-0.5).to(embed.dtype)

    adaptor = "model.vq_adaptor.layers"
    parts = {
        f"{adaptor}.0.weight": linear(dim, features),
        f"{adaptor}.0.bias": embed.new_zeros(dim),
        f"{adaptor}.3.weight": linear(dim, dim),
        f"{adaptor}.3.bias": embed.new_zeros(dim),
        f"{adaptor}.4.weight": embed.new_full((dim,), float(embed.float().std())),
        f"{adaptor}.4.bias": embed.new_zeros(dim),
    }
    return parts | audio_branch(config, state)


def audio_branch(config: dict[str, Any], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layers of the audio branch as copies of those that follow the fork, at most; its norm and head."""
    n_mimo, first = config["kimia_mimo_layers"], config["kimia_mimo_transformer_from_layer_index"] + 1
    if not n_mimo:
        return {}
    first, parts = min(first, config["num_hidden_layers"] - n_mimo), {}
    for name in [name for name in state if name.startswith("model.layers.")]:
        layer, rest = name.removeprefix("model.layers.").split(".", 1)
        if first <= int(layer) < first + n_mimo:
            parts[f"model.mimo_layers.{int(layer) - first}.{rest}"] = state[name].clone()
    parts["model.mimo_norm.weight"] = state["model.norm.weight"].clone()
    parts["mimo_output.weight"] = state[EMBEDDING][config.get("kimia_mimo_output_first", 0) :].clone()
    return parts


def add_audio_branch(llm: AudioLLM, layers: int, after: int) -> AudioLLM:
    """A model that only listens, with an audio branch of so many layers after a layer, for it to learn to speak.

    Its head has no rows for text. A code is written as it is read, to begin with.

    Raises:
        ConfigError: when the trunk has no such layer, or too few after it to copy.
    """
    assert llm.config.kimia_mimo_layers == 0, "the model has an audio branch already"
    if not 0 <= after < llm.config.num_hidden_layers - layers:
        raise ConfigError(
            f"an audio branch of {layers} layers after layer {after} needs a trunk of more than {after + layers} "
            f"layers; this one has {llm.config.num_hidden_layers}."
        )
    config = replace(
        llm.config,
        kimia_mimo_layers=layers,
        kimia_mimo_transformer_from_layer_index=after,
        kimia_mimo_output_first=llm.config.num_base_tokens,
    )
    state = llm.state_dict()
    speaking = AudioLLM(config)
    speaking.load_state_dict(state | audio_branch(config.to_dict(), state))
    return speaking.eval()


def encoder_tensors(tensors: dict[str, Tensor], where: str | Path) -> dict[str, Tensor]:
    """A Whisper checkpoint's encoder under bare names (`conv1.weight`, ...)."""
    for prefix in ("model.encoder.", "encoder."):
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if found:
            return found
    raise CheckpointError(f"{where}: no tensor model.encoder.* or encoder.* in this Whisper folder.")


def semantic_tensors(
    encoder: dict[str, Tensor], layers: int, codes: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """An untrained semantic tokenizer: Whisper's lower layers and a random codebook (SPEC §6)."""
    tensors = {
        name: tensor
        for name, tensor in encoder.items()
        if name.startswith(("conv", "embed_positions"))
        or (name.startswith("layers.") and int(name.split(".")[1]) < layers)
    }
    positions = encoder["embed_positions.weight"]
    codebook = torch.randn(codes, positions.shape[1], generator=generator).to(positions.dtype)
    return tensors | {
        "codebook.weight": codebook,
    }
