"""What a checkpoint holds, read from its headers and model card without loading a weight.

for label, value in describe("models/mine").items():
    print(label, value)
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from kimi_audio.checkpoint.files import TensorFiles, read_json
from kimi_audio.checkpoint.hub import resolve
from kimi_audio.checkpoint.layout import ACOUSTIC_FOLDER, SEMANTIC_FOLDER, read_config
from kimi_audio.checkpoint.quantise import SCALE_SUFFIX
from kimi_audio.checkpoint.speaking import FLOW_FOLDER, VOCODER_FOLDER, detokenizer_tensors
from kimi_audio.errors import CheckpointError
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.vocab import Vocabulary

NOT_STATED = "not stated"
FOLDERS = {
    ACOUSTIC_FOLDER: "acoustic encoder",
    SEMANTIC_FOLDER: "semantic tokenizer",
    FLOW_FOLDER: "flow matching",
    VOCODER_FOLDER: "vocoder",
}
DTYPE_NAMES = {torch.int8: "int8", torch.uint8: "4-bit"}


@dataclass(frozen=True)
class CheckpointInfo:
    """Facts about a model folder.

    Attributes:
        parameters: number of weights of each part; scales of quantised ones are not counted.
        dtypes: number of weights stored in each dtype.
        num_bytes: size of all weight files.
        licence, training_data: `license` and `datasets` of the model card (README.md), or "not stated".
    """

    folder: Path
    config: KimiAudioConfig
    vocab: Vocabulary
    parameters: dict[str, int]
    dtypes: dict[str, int]
    num_bytes: int
    licence: str
    training_data: str

    def items(self) -> Iterator[tuple[str, str]]:
        """Labels and values to print."""
        config, vocab = self.config, self.vocab
        total = sum(self.parameters.values())
        fork = config.kimia_mimo_transformer_from_layer_index
        yield "folder", str(self.folder)
        yield "parameters", _millions(total)
        yield from ((f"- {part}", _millions(count)) for part, count in self.parameters.items())
        yield "on disk", f"{self.num_bytes / 2**20:.1f} MiB"
        yield "stored as", ", ".join(f"{name} {count / total:.1%}" for name, count in self.dtypes.items())
        heads = f"{config.num_attention_heads} heads ({config.num_key_value_heads} for keys and values)"
        yield "hidden size", f"{config.hidden_size}, {heads}, feed-forward {config.intermediate_size}"
        audio = f"audio branch of {config.kimia_mimo_layers} after layer {fork}"
        yield "layers", f"{config.num_hidden_layers}; {audio if config.kimia_mimo_layers else 'no audio branch'}"
        yield "text ids", f"0 … {vocab.num_base_tokens - 1}"
        yield "special ids", f"{vocab.num_base_tokens} … {vocab.token_offset - 1}"
        yield "audio codes", f"{vocab.token_offset} … {vocab.size - 1}"
        yield "licence", self.licence
        yield "training data", self.training_data


def describe(name: str | Path | None = None) -> CheckpointInfo:
    """Look into a folder, a hub id or the bundled model (None).

    Raises:
        CheckpointError: it is no model folder, or its files are damaged.
    """
    folder = resolve(name)
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: not a model folder; config.json is missing.")
    config = read_config(folder / "config.json", KimiAudioConfig)
    files = {"": TensorFiles(folder)}
    files |= {
        part: TensorFiles(folder / part) for part in (ACOUSTIC_FOLDER, SEMANTIC_FOLDER) if (folder / part).is_dir()
    }
    parameters, dtypes, num_bytes = Counter[str](), Counter[str](), 0
    stored = [(part, name, e.shape, e.dtype) for part, tensors in files.items() for name, e in tensors.items()]
    for part, name, shape, dtype in stored + detokenizer_tensors(folder):
        num_bytes += math.prod(shape) * dtype.itemsize
        if name.endswith(SCALE_SUFFIX):
            continue
        count = math.prod(shape) * (2 if dtype == torch.uint8 else 1)
        parameters[_part(part, name, config)] += count
        dtypes[DTYPE_NAMES.get(dtype, str(dtype).removeprefix("torch."))] += count
    card = _model_card(folder / "README.md")
    return CheckpointInfo(
        folder,
        config,
        Vocabulary.from_config(read_json(folder / "config.json")),
        dict(parameters.most_common()),
        dict(dtypes.most_common()),
        num_bytes,
        _listed(card.get("license")),
        _listed(card.get("datasets")),
    )


def _part(folder: str, tensor: str, config: KimiAudioConfig) -> str:
    """The part of the model that a tensor belongs to."""
    if folder:
        return FOLDERS[folder]
    if layer := re.match(r"model\.layers\.(\d+)\.", tensor):
        return "trunk" if int(layer[1]) <= config.kimia_mimo_transformer_from_layer_index else "text branch"
    for beginning, part in (
        ("model.mimo", "audio branch"),
        ("mimo_output", "audio head"),
        ("lm_head", "text head"),
        ("model.embed_tokens", "embedding and text head" if config.tie_word_embeddings else "embedding"),
        ("model.vq_adaptor", "adaptor"),
    ):
        if tensor.startswith(beginning):
            return part
    return "text branch"


def _model_card(path: Path) -> dict[str, Any]:
    """The YAML header of a model card; empty if there is none."""
    if not path.is_file():
        return {}
    parts = re.split(r"^---\s*$", path.read_text(encoding="utf-8", errors="replace"), maxsplit=2, flags=re.MULTILINE)
    try:
        header = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path}: its header is not valid YAML.") from error
    return header if isinstance(header, dict) else {}


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or NOT_STATED)


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"
