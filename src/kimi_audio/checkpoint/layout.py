"""The official model folder (SPEC §1): load one into modules, write one from modules.

    parts = load_parts("moonshotai/Kimi-Audio-7B-Instruct", dtype=torch.bfloat16, device="cuda")
    parts.llm, parts.acoustic, parts.semantic, parts.tokenizer
    save_parts("my-model", parts)

Modules are built without storage and every tensor is read into its final dtype and place, so the peak is the
weights themselves. Nothing in a folder is executed.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kimi_audio.checkpoint.files import TensorFiles, read_json, write_json, write_tensors
from kimi_audio.checkpoint.hub import SEMANTIC_ID, fetch, resolve
from kimi_audio.errors import CheckpointError
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.text import TextTokenizer
from kimi_audio.tokenizer.acoustic import AcousticEncoder
from kimi_audio.tokenizer.semantic import SemanticTokenizer, SemanticTokenizerConfig
from kimi_audio.tokenizer.whisper import WhisperEncoder, WhisperEncoderConfig

ACOUSTIC_FOLDER = "whisper-large-v3"
SEMANTIC_FOLDER = "glm-4-voice-tokenizer"
SHARD_BYTES = 48 * 2**20
CLIP_SILENCE = "kimia_whisper_clip_silence"
"""Field of `config.json`: the acoustic encoder sees only the frames that are kept (see `AcousticEncoder`)."""

M = TypeVar("M", bound=nn.Module)


@dataclass
class ModelParts:
    """What a model folder holds. `acoustic` is None for a model without continuous features."""

    llm: AudioLLM
    acoustic: AcousticEncoder | None
    semantic: SemanticTokenizer
    tokenizer: TextTokenizer
    generation_config: dict[str, Any] = field(default_factory=dict)


def load_parts(
    name: str | Path | None = None, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> ModelParts:
    """Load a model folder, a hub id or the bundled model (None), in evaluation mode.

    Raises:
        CheckpointError: files are missing, damaged, or of another shape than their configuration says.
    """
    folder = resolve(name)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: not a model folder; config.json is missing.")
    llm = load_llm(folder, dtype=dtype, device=device)
    acoustic = None
    if llm.config.use_whisper_feature:
        encoder = load_whisper(folder / ACOUSTIC_FOLDER, dtype=dtype, device=device)
        acoustic = AcousticEncoder(encoder, clip_silence=bool(llm.config.extra.get(CLIP_SILENCE, False))).eval()
    semantic_folder = folder / SEMANTIC_FOLDER
    if not semantic_folder.is_dir():
        semantic_folder = fetch(SEMANTIC_ID, ["config.json", "preprocessor_config.json", "model.safetensors"])
    generation = folder / "generation_config.json"
    return ModelParts(
        llm,
        acoustic,
        load_semantic(semantic_folder, dtype=dtype, device=device),
        TextTokenizer.from_file(folder / "tiktoken.model"),
        read_json(generation) if generation.exists() else {},
    )


def load_llm(folder: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> AudioLLM:
    """Load the audio LLM of a model folder."""
    config = read_config(Path(folder) / "config.json", KimiAudioConfig.from_dict)
    return _load(lambda: AudioLLM(config), TensorFiles(folder), _llm_name, dtype, device)


def load_whisper(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> WhisperEncoder:
    """Load the encoder of any Hugging Face Whisper folder; keys `model.encoder.*` or `encoder.*`."""
    config = read_config(Path(folder) / "config.json", WhisperEncoderConfig.from_dict)
    return _load(lambda: WhisperEncoder(config), TensorFiles(folder), _whisper_name, dtype, device)


def load_semantic(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> SemanticTokenizer:
    """Load the semantic tokenizer."""
    config = read_config(Path(folder) / "config.json", SemanticTokenizerConfig.from_dict)
    return _load(lambda: SemanticTokenizer(config), TensorFiles(folder), lambda name: name, dtype, device)


def read_config(path: Path, parse: Callable[[dict[str, Any]], Any]) -> Any:
    """Parse a `config.json`. Raises CheckpointError naming the file and the field that is missing or wrong."""
    content = read_json(path)
    try:
        return parse(content)
    except KeyError as error:
        raise CheckpointError(f"{path}: field {error} is missing.") from error
    except TypeError as error:
        raise CheckpointError(f"{path}: {error}.") from error


def _llm_name(name: str) -> str | None:
    return None if name.endswith("rotary_emb.inv_freq") else name


def _whisper_name(name: str) -> str | None:
    """Bare name of an encoder tensor; None for the decoder's, which stay unread."""
    for prefix in ("model.encoder.", "encoder."):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return None


def _load(
    build: Callable[[], M],
    files: TensorFiles,
    rename: Callable[[str], str | None],
    dtype: torch.dtype,
    device: torch.device | str,
) -> M:
    """Build a module without storage and read its tensors into place; `rename` gives None for tensors to skip."""
    with torch.device("meta"):
        module = build()
    stored = {ours: name for name in files if (ours := rename(name)) is not None}
    slots = tensor_slots(module)
    tied = {name for names in slots for name in names[1:]}
    if unexpected := [stored[name] for name in stored if name not in tied | {names[0] for names in slots}]:
        raise CheckpointError(f"{files.folder}: tensor {unexpected[0]} has no place in this model.")
    for names in slots:
        if names[0] not in stored:
            raise CheckpointError(f"{files.folder}: tensor {names[0]} is missing.")
        entry, wanted = files[stored[names[0]]], slots[names]
        if entry.shape != tuple(wanted.shape):
            raise CheckpointError(
                f"{entry.file}: tensor {stored[names[0]]} has shape {list(entry.shape)}; "
                f"config.json asks for {list(wanted.shape)}."
            )
        if not entry.dtype.is_floating_point:
            raise CheckpointError(
                f"{entry.file}: tensor {stored[names[0]]} has dtype {entry.dtype}; a float is expected."
            )
        place(module, names, files.read(stored[names[0]], dtype, device))
    return module.eval()


def tensor_slots(module: nn.Module) -> dict[tuple[str, ...], Tensor]:
    """Parameters and persistent buffers by their names; a tied tensor appears once, under all its names."""
    by_id: dict[int, list[str]] = {}
    state = module.state_dict(keep_vars=True)
    for name, tensor in state.items():
        by_id.setdefault(id(tensor), []).append(name)
    return {tuple(names): state[names[0]] for names in by_id.values()}


def place(module: nn.Module, names: tuple[str, ...], tensor: Tensor) -> None:
    """Put a tensor where a parameter or buffer is, under each of its names."""
    value: Tensor | None = None
    for name in names:
        parent, _, leaf = name.rpartition(".")
        owner = module.get_submodule(parent)
        if leaf in owner._buffers:
            owner._buffers[leaf] = tensor
        else:
            value = nn.Parameter(tensor, requires_grad=False) if value is None else value
            owner._parameters[leaf] = value


def save_parts(folder: str | Path, parts: ModelParts, *, shard_bytes: int = SHARD_BYTES) -> None:
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
            _write_layout(new, parts, shard_bytes)
            if folder.exists():
                _keep_other_files(folder, new)
                folder.rename(old)
            new.rename(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror}).") from error


def _write_layout(folder: Path, parts: ModelParts, shard_bytes: int) -> None:
    folder.mkdir()
    config = parts.llm.config.to_dict()
    if parts.acoustic is not None:
        config[CLIP_SILENCE] = parts.acoustic.clip_silence
        encoder = parts.acoustic.encoder
        write_encoder(
            folder / ACOUSTIC_FOLDER, whisper_config(encoder), tensors_of(encoder, "model.encoder."), shard_bytes
        )
    semantic = parts.semantic
    write_encoder(folder / SEMANTIC_FOLDER, semantic.config.to_dict(), tensors_of(semantic), shard_bytes)
    write_json(folder / "config.json", dict(sorted({"architectures": ["MoonshotKimiaForCausalLM"], **config}.items())))
    write_json(folder / "generation_config.json", parts.generation_config)
    special = parts.llm.config.kimia_token_offset - parts.llm.config.num_base_tokens
    write_json(folder / "tokenizer_config.json", {"num_reserved_special_tokens": special})
    parts.tokenizer.save(folder / "tiktoken.model")
    write_tensors(folder, tensors_of(parts.llm), shard_bytes)


def tensors_of(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """What is stored of a module: its parameters and persistent buffers, tied ones once."""
    return {prefix + names[0]: tensor.detach() for names, tensor in tensor_slots(module).items()}


def whisper_config(encoder: WhisperEncoder) -> dict[str, Any]:
    """The `config.json` of an acoustic encoder."""
    sizes = {name: getattr(encoder.config, name) for name in WhisperEncoderConfig.__dataclass_fields__}
    return {"architectures": ["WhisperModel"], "model_type": "whisper", "activation_function": "gelu", **sizes}


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
