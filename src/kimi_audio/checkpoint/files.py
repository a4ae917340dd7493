"""Read safetensors shards straight into the wanted dtype and device, and write them.

    tensors = TensorFiles("model-folder")            # one file, or shards with an index; reads headers only
    weight = tensors.read("lm_head.weight", torch.bfloat16, "cuda")

The files are read, not mapped: the bytes go into the destination itself, or through a buffer of 16 MiB
where the dtype or device differs, so that the peak is the final weights and that buffer. (Pages of a mapped
file count as resident next to the converted copy.) Every fault of a file is a CheckpointError of one
sentence. Format: https://github.com/huggingface/safetensors#format
"""

import json
import math
import pickle
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from kimi_audio.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BUFFER_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 100 * 2**20
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: bytes `start` to `stop` of `file`."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int

    def rows(self, first: int, last: int) -> "Entry":
        """Rows `first` to `last` (exclusive) of a matrix, as an entry."""
        width = (self.stop - self.start) // self.shape[0]
        start, stop = self.start + first * width, self.start + last * width
        return replace(self, shape=(last - first, *self.shape[1:]), start=start, stop=stop)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError if it is missing or not an object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object is expected.")
    return value


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file, checked against the file's length."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > MAX_HEADER_BYTES:
                raise CheckpointError(f"{path}: corrupt header; this is not a safetensors file.")
            if 8 + length > size:
                raise CheckpointError(f"{path}: the file is truncated inside its header ({size} bytes).")
            header = json.loads(file.read(length).decode("utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: corrupt header; this is not a safetensors file.") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: corrupt header; a JSON object is expected.")
    header.pop("__metadata__", None)
    return {name: _entry(path, name, value, 8 + length, size) for name, value in header.items()}


def _entry(path: Path, name: str, value: Any, data: int, size: int) -> Entry:
    try:
        code, shape, (start, stop) = value["dtype"], value["shape"], value["data_offsets"]
        if not (isinstance(code, str) and all(type(n) is int and n >= 0 for n in (*shape, start, stop))):
            raise TypeError
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: corrupt header; the entry of tensor {name} is malformed.") from error
    if code not in DTYPES:
        raise CheckpointError(f"{path}: tensor {name} has dtype {code}; accepted are {', '.join(DTYPES)}.")
    if math.prod(shape) * DTYPES[code].itemsize != stop - start:
        raise CheckpointError(f"{path}: corrupt header; tensor {name} has {stop - start} bytes for shape {shape}.")
    if data + stop > size:
        raise CheckpointError(f"{path}: the file is truncated; tensor {name} ends at byte {data + stop} of {size}.")
    return Entry(path, DTYPES[code], tuple(shape), data + start, data + stop)


class TensorFiles(Mapping[str, Entry]):
    """All tensors of a folder's `model.safetensors`, or of the shards that its index names.

    Raises:
        CheckpointError: no such file, a missing shard, or a fault in a header.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if (self.folder / SINGLE).exists():
            self.entries = read_header(self.folder / SINGLE)
        elif (self.folder / INDEX).exists():
            self.entries = _sharded(self.folder / INDEX)
        else:
            raise CheckpointError(f"{self.folder}: holds neither {SINGLE} nor {INDEX}.")

    def __getitem__(self, name: str) -> Entry:
        if name not in self.entries:
            raise CheckpointError(f"{self.folder}: tensor {name} is missing.")
        return self.entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    @property
    def num_bytes(self) -> int:
        """Size of all tensors on disk."""
        return sum(entry.stop - entry.start for entry in self.entries.values())

    def read(self, name: str, dtype: torch.dtype | None = None, device: torch.device | str = "cpu") -> Tensor:
        """One tensor in `dtype` (default: as stored) on `device`."""
        return read_tensor(name, self[name], dtype, device)


def read_tensor(
    name: str, entry: Entry, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """Read what an entry describes, in `dtype` (default: as stored) on `device`."""
    out = torch.empty(entry.shape, dtype=dtype or entry.dtype, device=device)
    direct = out.dtype == entry.dtype and out.device.type == "cpu"
    flat = out.view(-1)
    block = flat.numel() if direct else BUFFER_BYTES // entry.dtype.itemsize
    buffer = flat if direct else torch.empty(min(block, flat.numel()), dtype=entry.dtype)
    with entry.file.open("rb") as file:
        file.seek(entry.start)
        for first in range(0, flat.numel(), max(block, 1)):
            part = buffer[: flat.numel() - first]
            if file.readinto(memoryview(part.view(torch.uint8).numpy())) != part.nbytes:  # type: ignore[arg-type]
                raise CheckpointError(f"{entry.file}: the file was cut short while tensor {name} was read.")
            if not direct:
                flat[first : first + part.numel()].copy_(part)
    return out


def _sharded(index: Path) -> dict[str, Entry]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
        raise CheckpointError(f"{index}: field weight_map is missing or is not a map from tensors to files.")
    headers: dict[str, dict[str, Entry]] = {}
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            raise CheckpointError(f"{index}: shard {file!r} is not a plain file name.")
        if not (index.parent / file).is_file():
            raise CheckpointError(f"{index.parent / file}: this shard is missing; {index.name} names it.")
        headers[file] = read_header(index.parent / file)
    for name, file in weight_map.items():
        if name not in headers[file]:
            raise CheckpointError(f"{index.parent / file}: tensor {name} is missing; {index.name} places it here.")
    return {name: headers[file][name] for name, file in weight_map.items()}


def read_tensors(folder: str | Path) -> dict[str, Tensor]:
    """All tensors of a folder in their stored dtypes."""
    files = TensorFiles(folder)
    return {name: files.read(name) for name in files}


def read_pt(path: str | Path) -> dict[str, Any]:
    """The dictionary in a `.pt` file, read without running any code that it may carry."""
    try:
        value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: holds pickled code or objects; only plain tensors are read.") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # on damaged bytes the unpickler raises whatever it stumbles over
        raise CheckpointError(f"{path}: damaged, or not a file written by torch.save.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a dictionary of tensors is expected.")
    return value


def write_tensors(folder: Path, tensors: Mapping[str, Tensor], max_shard_bytes: int) -> None:
    """Write tensors as one safetensors file, or as shards with an index if they exceed `max_shard_bytes`.

    A tensor larger than that is a shard of its own. Weights already in the folder are replaced. Raises
    CheckpointError if the disk is full.
    """
    shards = list(_split(tensors.items(), max_shard_bytes))
    names = [SINGLE] if len(shards) < 2 else [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in _upto(shards)]
    try:
        for stale in [*folder.glob("model*.safetensors"), *folder.glob(INDEX)]:
            stale.unlink()
        for name, shard in zip(names, shards, strict=True):
            save_file({key: tensor.contiguous().cpu() for key, tensor in shard}, folder / name, {"format": "pt"})
            (folder / name).chmod(0o644)
        if len(shards) > 1:
            weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key, _ in shard}
            total = sum(tensor.nbytes for tensor in tensors.values())
            write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: the weights cannot be written ({error}).") from error


def _upto(shards: list[Any]) -> range:
    return range(1, len(shards) + 1)


def _split(items: Iterable[tuple[str, Tensor]], limit: int) -> Iterator[list[tuple[str, Tensor]]]:
    shard: list[tuple[str, Tensor]] = []
    size = 0
    for name, tensor in items:
        if shard and size + tensor.nbytes > limit:
            yield shard
            shard, size = [], 0
        shard.append((name, tensor))
        size += tensor.nbytes
    yield shard


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, indented. Raises CheckpointError if it cannot be written."""
    try:
        path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}).") from error
