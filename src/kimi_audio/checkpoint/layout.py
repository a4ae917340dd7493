"""The official model folder (SPEC §1): load one into modules, write one from modules.

    parts = load_parts("moonshotai/Kimi-Audio-7B-Instruct", dtype=torch.bfloat16, device="cuda")
    parts.llm, parts.acoustic, parts.semantic, parts.tokenizer, parts.detokenizer
    save_parts("my-model", parts)

Modules are built without storage and every tensor is read into its final dtype and place, so the peak is the
weights themselves. Nothing in a folder is executed.
"""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from kimi_audio.checkpoint.files import TensorFiles, read_json, write_json, write_tensors
from kimi_audio.checkpoint.hub import SEMANTIC_ID, fetch, resolve
from kimi_audio.checkpoint.kernels import quantisable, quickest_float
from kimi_audio.checkpoint.layers import compile_layers
from kimi_audio.checkpoint.loading import Precision, load_module, precision, tensors_of
from kimi_audio.checkpoint.quantise import GROUP, SCALE_SUFFIX, Bits, quantise_tensors
from kimi_audio.checkpoint.speaking import load_detokenizer, write_detokenizer
from kimi_audio.detokenizer.streaming import Detokenizer, StreamConfig
from kimi_audio.errors import CheckpointError, ConfigError
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.pronunciation import Lexicon
from kimi_audio.settings import check_types
from kimi_audio.text import TextTokenizer
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.phonemes import PhonemeConfig, PhonemeReader
from kimi_audio.tokenizer.semantic import SemanticTokenizer, SemanticTokenizerConfig
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig, sinusoids

ACOUSTIC_FOLDER = "whisper-large-v3"
SEMANTIC_FOLDER = "glm-4-voice-tokenizer"
LEXICON = "pronunciations.txt"
PHONEMES_FOLDER = "phonemes"
POSITIONS = "embed_positions.weight"
SHARD_BYTES = 47 * 2**20  # a file with its header stays below 48 MiB
Part = Literal["llm", "acoustic", "semantic", "flow", "vocoder", "phonemes"]
CLIP_SILENCE = "kimia_whisper_clip_silence"
SPARE_FRAMES = "kimia_whisper_spare_frames"
"""Fields of `config.json`: the acoustic encoder sees only the frames that are kept, and so many more of silence after
them (see `AcousticEncoder`). The second is ours."""

QUANTISATION = "quantization_config"
TRAINING_ONLY = ("ema_", "embed_positions2.")
"""Tensors of a semantic tokenizer that making codes does not need."""


class Config(Protocol):
    """What `config.json` becomes: a dataclass."""

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Any: ...


C = TypeVar("C", bound=Config)


@dataclass
class ModelParts:
    """What a model folder holds.

    `acoustic` is None for a model without continuous features, `detokenizer` for one that can't speak, `lexicon` for
    one that speaks from the text ids that it writes, `phonemes` for one that transcribes by its language model alone.
    """

    llm: AudioLLM
    acoustic: AcousticEncoder | None
    semantic: SemanticTokenizer
    tokenizer: TextTokenizer
    generation_config: dict[str, Any] = field(default_factory=dict)
    detokenizer: Detokenizer | None = None
    lexicon: Lexicon | None = None
    phonemes: PhonemeReader | None = None

    def encode_spoken(self, text: str) -> list[int]:
        """Text ids of what is said aloud: of its phonemes, if the model has a lexicon."""
        if self.lexicon is None:
            return self.tokenizer.encode(text)
        return self.tokenizer.spell(self.lexicon.pronounce(text))


def load_parts(
    name: str | Path | None = None,
    *,
    dtype: str | torch.dtype = "float32",
    device: torch.device | str = "cpu",
    with_detokenizer: bool = True,
) -> ModelParts:
    """Load a model folder, a hub id or the bundled model (None), in evaluation mode.

    Args:
        name: see `hub.resolve`.
        dtype: `float32`, `bfloat16` or `float16`; `int8` or `int4` for quantised weights and float32 activations in
            the LLM and the acoustic encoder (products of many rows in bfloat16 where the CPU multiplies it, see
            `quickest_float`); `auto` is float32, but on the CPU int8 for an LLM stored quantised, and bfloat16 for
            encoder and flow where the CPU multiplies it. The semantic tokenizer is always float32.
        device: where the weights go.
        with_detokenizer: load the speaking half, too, where there is one.

    Raises:
        CheckpointError: files are missing, damaged, or of another shape than their configuration says.
        ConfigError: `dtype` is not one of those.
    """
    folder = resolve(name)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: not a model folder; config.json is missing.")
    llm = load_llm(folder, dtype=dtype, device=device)
    on_cpu = torch.device(device).type == "cpu"
    encoders = dtype if dtype != "auto" else quickest_float() if on_cpu else torch.float32
    acoustic = None
    if llm.config.use_whisper_feature:
        encoder = load_whisper(folder / ACOUSTIC_FOLDER, dtype=encoders, device=device)
        extra = llm.config.extra
        acoustic = AcousticEncoder(encoder, bool(extra.get(CLIP_SILENCE)), int(extra.get(SPARE_FRAMES, 0))).eval()
    semantic_folder = folder / SEMANTIC_FOLDER
    if not semantic_folder.is_dir():
        semantic_folder = fetch(SEMANTIC_ID, ["config.json", "preprocessor_config.json", "model.safetensors"])
    path = folder / "generation_config.json"
    generation = read_json(path) if path.exists() else {}
    speech = _speech(generation, path) if with_detokenizer else None
    return ModelParts(
        llm,
        acoustic,
        load_semantic(semantic_folder, device=device),
        TextTokenizer.from_file(folder / "tiktoken.model"),
        generation,
        load_detokenizer(folder, speech, dtype=precision(encoders).dtype, device=device) if speech else None,
        Lexicon.from_file(folder / LEXICON) if (folder / LEXICON).exists() else None,
        load_phonemes(folder / PHONEMES_FOLDER, device=device) if (folder / PHONEMES_FOLDER).is_dir() else None,
    )


def _speech(generation: dict[str, Any], path: Path) -> StreamConfig:
    """How the model speaks by default."""
    speech = generation.get("speech", {})
    if not isinstance(speech, dict):
        raise CheckpointError(f"{path}: speech is {speech!r}; a mapping of fields is expected.")
    steps = speech.get("steps", 1)
    if type(steps) is not int or not 1 <= steps <= 1000:
        raise CheckpointError(f"{path}: speech: steps is {steps!r}; a whole number from 1 to 1000 is expected.")
    try:
        check_types(StreamConfig, speech)
        return StreamConfig.from_dict(speech)
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: speech: {error}.") from error


def load_llm(
    folder: str | Path, *, dtype: str | torch.dtype = "float32", device: torch.device | str = "cpu"
) -> AudioLLM:
    """Load the audio LLM of a model folder; `dtype` as in `load_parts`."""
    config = read_config(Path(folder) / "config.json", KimiAudioConfig)
    files = TensorFiles(folder)
    _check_depth(files, config.num_hidden_layers + config.kimia_mimo_layers)
    if dtype == "auto":
        is_quantised = any(name.endswith(SCALE_SUFFIX) for name in files)
        dtype = "int8" if is_quantised and torch.device(device).type == "cpu" else "float32"
    llm = load_module(lambda: AudioLLM(config), files, _llm_name, precision(dtype), device)
    compile_layers(llm)
    return llm


def load_whisper(
    folder: str | Path, *, dtype: str | torch.dtype = "float32", device: torch.device | str = "cpu"
) -> WhisperEncoder:
    """Load the encoder of any Hugging Face Whisper folder; keys `model.encoder.*` or `encoder.*`."""
    config = read_config(Path(folder) / "config.json", WhisperEncoderConfig)
    files = TensorFiles(folder)
    _check_depth(files, config.encoder_layers)
    positions = {POSITIONS: sinusoids(config.max_source_positions, config.d_model)}
    return load_module(lambda: WhisperEncoder(config), files, _whisper_name, precision(dtype), device, positions)


def load_semantic(folder: str | Path, *, device: torch.device | str = "cpu") -> SemanticTokenizer:
    """Load the semantic tokenizer. It always computes in float32: its codes are to be the same ones."""
    config = read_config(Path(folder) / "config.json", SemanticTokenizerConfig)
    files = TensorFiles(folder)
    _check_depth(files, config.quantize_position)
    return load_module(lambda: SemanticTokenizer(config), files, _semantic_name, Precision(torch.float32), device)


def load_phonemes(folder: str | Path, *, device: torch.device | str = "cpu") -> PhonemeReader:
    """Load the head that reads phonemes off the acoustic encoder, in float32."""
    config = read_config(Path(folder) / "config.json", PhonemeConfig)
    return load_module(lambda: PhonemeReader(config), TensorFiles(folder), str, Precision(torch.float32), device)


def read_config(path: Path, kind: type[C]) -> C:
    """Read a `config.json`. Raises CheckpointError naming the file and the field that is missing or wrong."""
    content = read_json(path)
    try:
        check_types(kind, content)
        return kind.from_dict(content)
    except KeyError as error:
        raise CheckpointError(f"{path}: field {error} is missing.") from error
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}.") from error


def _check_depth(files: TensorFiles, layers: int) -> None:
    """Refuse a mistyped number of layers before they are built."""
    if layers > len(files):
        raise CheckpointError(f"{files.folder}: config.json asks for {layers} layers; there are {len(files)} tensors.")


def _llm_name(name: str) -> str | None:
    return None if name.endswith("rotary_emb.inv_freq") else name


def _semantic_name(name: str) -> str | None:
    """Official checkpoints hold things for training, too: averages of the codes, positions for the layers above."""
    return None if name.startswith(TRAINING_ONLY) else name


def _whisper_name(name: str) -> str | None:
    """Bare name of an encoder tensor; None for the decoder's, which stay unread."""
    for prefix in ("model.encoder.", "encoder."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return None


@dataclass(frozen=True)
class Storage:
    """How weights are stored; None keeps the module's dtype.

    The gate and up projections, half of an LLM, bear 4 bits best. Measured on SmolLM2-135M, they alone in 4 bits
    and the rest in 8 change the next token's distribution by 0.08 nats (KL); everything in 4 bits changes it by
    0.43, everything in 8 by 0.006.

    Attributes:
        llm: bits of the LLM's linear layers.
        gate_up: bits of its gate and up projections, if not those of `llm`.
        embedding: bits of its token embedding, and so of a tied head.
        acoustic, semantic: bits of the encoders' linear layers.
        flow, phonemes: bits of the linear layers of the detokenizer's flow, and of the head that reads phonemes; the
            vocoder stays floats.
        floats: dtype of the parameters that are not quantised; buffers keep theirs.
    """

    llm: Bits | None = None
    gate_up: Bits | None = None
    embedding: Literal[8] | None = None
    acoustic: Bits | None = None
    semantic: Bits | None = None
    flow: Bits | None = None
    phonemes: Bits | None = None
    floats: torch.dtype | None = None

    def bits_of(self, part: Part, weight: str) -> Bits | None:
        """Bits of a weight that can be quantised."""
        if part == "llm" and weight.endswith("embed_tokens.weight"):
            return self.embedding
        if part == "llm" and weight.endswith(("gate_proj.weight", "up_proj.weight")):
            return self.gate_up or self.llm
        return getattr(self, part, None)


def save_parts(
    folder: str | Path, parts: ModelParts, storage: Storage = Storage(), *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a model in the official layout; it appears whole or not at all.

    A model folder already there is replaced, except that files which this does not write (README.md, ...)
    stay. Raises CheckpointError if `folder` holds something else, or the disk is full.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and ((folder / "config.json").exists() or not any(folder.iterdir()))):
        raise CheckpointError(f"{folder}: exists and is not a model folder; it is not overwritten.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            new, old = Path(scratch) / "new", Path(scratch) / "old"
            _write_layout(new, parts, storage, shard_bytes)
            if folder.exists():
                _keep_other_files(folder, new)
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror}).") from error


def _write_layout(folder: Path, parts: ModelParts, storage: Storage, shard_bytes: int) -> None:
    folder.mkdir()
    config = {"architectures": ["MoonshotKimiaForCausalLM"], **parts.llm.config.to_dict()}
    config.pop(QUANTISATION, None)
    if parts.acoustic is not None:
        config[CLIP_SILENCE] = parts.acoustic.clip_silence
        config |= {SPARE_FRAMES: parts.acoustic.spare_frames} if parts.acoustic.spare_frames else {}
        write_whisper(folder / ACOUSTIC_FOLDER, parts.acoustic.encoder, storage, shard_bytes)
    tensors, note = stored_tensors(parts.semantic, storage, "semantic")
    write_encoder(folder / SEMANTIC_FOLDER, parts.semantic.config.to_dict() | note, tensors, shard_bytes)
    tensors, note = stored_tensors(parts.llm, storage, "llm")
    write_tensors(folder, tensors, shard_bytes)
    if (speaker := parts.detokenizer) is not None:
        vocoder, _ = stored_tensors(speaker.vocoder, storage, "vocoder")
        write_detokenizer(folder, speaker, stored_tensors(speaker.flow, storage, "flow"), vocoder, shard_bytes)
    write_json(folder / "config.json", dict(sorted((config | note).items())))
    write_json(folder / "generation_config.json", parts.generation_config)
    special = parts.llm.config.kimia_token_offset - parts.llm.config.num_base_tokens
    write_json(folder / "tokenizer_config.json", {"num_reserved_special_tokens": special})
    parts.tokenizer.save(folder / "tiktoken.model")
    if parts.lexicon is not None:
        parts.lexicon.save(folder / LEXICON)
    if parts.phonemes is not None:
        tensors, note = stored_tensors(parts.phonemes, storage, "phonemes")
        (folder / PHONEMES_FOLDER).mkdir()
        write_json(folder / PHONEMES_FOLDER / "config.json", asdict(parts.phonemes.config) | note)
        write_tensors(folder / PHONEMES_FOLDER, tensors, shard_bytes)


def stored_tensors(
    module: nn.Module, storage: Storage, part: Part, prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors to store of a part of the model, and what its `config.json` says about their quantisation."""
    plan = quantisation_plan(module, storage, part, prefix)
    tensors = quantise_tensors(tensors_of(module, prefix), plan)
    if storage.floats is not None:
        plain = {prefix + name for name, _ in module.named_parameters()} - plan.keys()
        tensors = {name: tensor.to(storage.floats) if name in plain else tensor for name, tensor in tensors.items()}
    note = {"quant_method": "weight_only", "bits": sorted(set(plan.values())), "group_size": GROUP}
    return tensors, {QUANTISATION: note} if plan else {}


def quantisation_plan(module: nn.Module, storage: Storage, part: Part, prefix: str = "") -> dict[str, Bits]:
    """Bits of each weight that is quantised, by its stored name."""
    plan: dict[str, Bits] = {}
    for name in quantisable(module):
        if (bits := storage.bits_of(part, name)) is not None:
            plan[prefix + name] = bits
    return plan


def whisper_config(encoder: WhisperEncoder) -> dict[str, Any]:
    """The `config.json` of an acoustic encoder."""
    sizes = {name: getattr(encoder.config, name) for name in WhisperEncoderConfig.__dataclass_fields__}
    return {"architectures": ["WhisperModel"], "model_type": "whisper", "activation_function": "gelu", **sizes}


def write_whisper(folder: Path, encoder: WhisperEncoder, storage: Storage, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the folder of an acoustic encoder."""
    tensors, note = stored_tensors(encoder, storage, "acoustic", "model.encoder.")
    table = encoder.embed_positions.weight
    if storage.acoustic and torch.allclose(table.float().cpu(), sinusoids(*table.shape), atol=1e-3):
        del tensors[f"model.encoder.{POSITIONS}"]  # where space counts; computed on loading
    write_encoder(folder, whisper_config(encoder) | note, tensors, shard_bytes)


def write_encoder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    """Write the folder of a Whisper-style encoder, with the feature extractor's settings."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    extractor = {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": config["num_mel_bins"],
        "sampling_rate": 16000,
        "hop_length": 160,
        "chunk_length": 30,
        "n_fft": 400,
        "padding_value": 0.0,
    }
    write_json(folder / "preprocessor_config.json", extractor)
    write_tensors(folder, tensors, shard_bytes)


def _keep_other_files(old: Path, new: Path) -> None:
    """Copy what `save_parts` does not write, leaving stale weights behind."""
    for path in old.iterdir():
        if path.is_file() and not (new / path.name).exists() and not path.name.startswith("model"):
            shutil.copy2(path, new / path.name)
