"""The detokenizer's two folders in a model folder (SPEC §1): `audio_detokenizer` and `vocoder`.

    detokenizer = load_detokenizer(folder)                   # None for a model that only listens
    write_detokenizer(folder, detokenizer)

Officially each holds a `model.pt`, which is read without running anything in it. What is written here is
`model.safetensors`, with the flow's names bare (`blocks.0.…`) and the vocoder's weight norm multiplied out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn

from kimi_audio.checkpoint.files import SINGLE, TensorFiles, read_json, read_pt, write_json, write_tensors
from kimi_audio.checkpoint.loading import Precision, load_module, load_state
from kimi_audio.detokenizer.flow import FlowConfig, FlowTransformer
from kimi_audio.detokenizer.streaming import Detokenizer, StreamConfig
from kimi_audio.detokenizer.vocoder import BigVGAN, VocoderConfig, folded
from kimi_audio.errors import CheckpointError

FLOW_FOLDER, VOCODER_FOLDER = "audio_detokenizer", "vocoder"
PICKLED = "model.pt"
FLOW_PREFIX = "speech_model."
"""Before the flow's names in an official `model.pt`."""

M = TypeVar("M", bound=nn.Module)
C = TypeVar("C")


def has_detokenizer(folder: Path) -> bool:
    """Whether the folder of a model holds one."""
    return (folder / FLOW_FOLDER).is_dir() and (folder / VOCODER_FOLDER).is_dir()


def load_detokenizer(
    folder: Path, config: StreamConfig, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu",
) -> Detokenizer | None:  # fmt: skip
    """Load the detokenizer of a model folder, which speaks as `config` says; None if it has none.

    The vocoder, small beside the flow, is always computed in float32.

    Raises:
        CheckpointError: files are missing, damaged, or of another shape or kind than their configuration says.
    """
    if not has_detokenizer(folder):
        return None
    flow_folder = folder / FLOW_FOLDER
    flow_config = _parsed(flow_folder / "config.yaml", FlowConfig.from_dict, read_yaml)
    vocoder = load_vocoder(folder / VOCODER_FOLDER, device)
    if flow_config.input_size != vocoder.config.num_mels:
        raise CheckpointError(
            f"{folder}: {FLOW_FOLDER} makes {flow_config.input_size} mel bins; {VOCODER_FOLDER} reads "
            f"{vocoder.config.num_mels}."
        )
    flow = _load(flow_folder, lambda: FlowTransformer(flow_config), _flow_state, dtype, device)
    return Detokenizer(flow, vocoder, config)


def load_vocoder(folder: Path, device: torch.device | str = "cpu") -> BigVGAN:
    """The vocoder of a folder with its `config.json` and weights. Raises CheckpointError as `load_detokenizer`."""
    config = _parsed(folder / "config.json", VocoderConfig.from_dict, read_json)
    return _load(folder, lambda: BigVGAN(config), _vocoder_state, torch.float32, device)


def detokenizer_tensors(folder: Path) -> list[tuple[str, str, tuple[int, ...], torch.dtype]]:
    """Folder, name, shape and dtype of each tensor as stored, read without loading it; none for a model without."""
    found = []
    for name, official in ((FLOW_FOLDER, _flow_state), (VOCODER_FOLDER, _vocoder_state)):
        part = folder / name
        if _is_official(part):
            state = official(read_pt(part / PICKLED), part / PICKLED)
            found += [(name, tensor, tuple(value.shape), value.dtype) for tensor, value in state.items()]
        elif has_detokenizer(folder):
            found += [(name, tensor, entry.shape, entry.dtype) for tensor, entry in TensorFiles(part).items()]
    return found


def write_detokenizer(
    folder: Path, detokenizer: Detokenizer, flow: tuple[Mapping[str, Tensor], dict[str, Any]],
    vocoder: Mapping[str, Tensor], shard_bytes: int,
) -> None:  # fmt: skip
    """Write both folders.

    Args:
        flow: the tensors to store of the flow, and what its configuration says about their quantisation.
        vocoder: the tensors to store of the vocoder.
    """
    tensors, note = flow
    for name in (FLOW_FOLDER, VOCODER_FOLDER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    content = yaml.safe_dump(detokenizer.flow.config.to_dict() | note, sort_keys=False)
    (folder / FLOW_FOLDER / "config.yaml").write_text(content, encoding="utf-8")
    write_tensors(folder / FLOW_FOLDER, tensors, shard_bytes)
    write_json(folder / VOCODER_FOLDER / "config.json", detokenizer.vocoder.config.to_dict())
    write_tensors(folder / VOCODER_FOLDER, vocoder, shard_bytes)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping. Raises CheckpointError naming the file."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: is not YAML.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a mapping of fields is expected.")
    return content


def _parsed(path: Path, parse: Callable[[dict[str, Any]], C], read: Callable[[Path], dict[str, Any]]) -> C:
    content = read(path)
    try:
        return parse(content)
    except KeyError as error:
        raise CheckpointError(f"{path}: field {error} is missing.") from error
    except AttributeError as error:
        raise CheckpointError(f"{path}: a value stands where a mapping of fields is expected.") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}.") from error


def _load(
    folder: Path, build: Callable[[], M], official: Callable[[dict[str, Any], Path], Mapping[str, Tensor]],
    dtype: torch.dtype, device: torch.device | str,
) -> M:  # fmt: skip
    if _is_official(folder):
        path = folder / PICKLED
        return load_state(build, official(read_pt(path), path), path, dtype, device)
    return load_module(build, TensorFiles(folder), lambda name: name, Precision(dtype), device)


def _is_official(folder: Path) -> bool:
    return (folder / PICKLED).exists() and not (folder / SINGLE).exists()


def _flow_state(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    state = _entry(content, "state_dict", path)
    return {name.split(FLOW_PREFIX, 1)[1]: tensor for name, tensor in state.items() if FLOW_PREFIX in name}


def _vocoder_state(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    return folded(_entry(content, "generator", path))


def _entry(content: dict[str, Any], name: str, path: Path) -> dict[str, Tensor]:
    state = content.get(name)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"{path}: the entry {name!r} with the weights is missing.")
    return state
