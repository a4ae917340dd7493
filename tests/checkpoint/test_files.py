"""The safetensors reader: right bytes for good files, one clear sentence for bad ones."""

import json
import pickle
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from kimi_audio.checkpoint import files
from kimi_audio.checkpoint.files import INDEX, SINGLE, TensorFiles, read_pt, read_tensors, write_tensors
from kimi_audio.errors import CheckpointError


def some_tensors():
    generator = torch.Generator().manual_seed(1)
    return {
        "a.weight": torch.randn(7, 5, generator=generator),
        "b": torch.randn(11, generator=generator).half(),
        "c": torch.randn(3, 1, 2, generator=generator).bfloat16(),
        "d": torch.arange(6, dtype=torch.int8),
        "e": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
    }


def write_raw(path, header, data=b""):
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(body)) + body + data)


@pytest.mark.parametrize("limit", [10**9, 100], ids=["single", "sharded"])
def test_written_tensors_read_back(tmp_path, limit):
    write_tensors(tmp_path, some_tensors(), limit)
    assert (tmp_path / INDEX).exists() == (limit == 100)
    assert all(path.stat().st_size < 600 for path in tmp_path.glob("model-*"))
    for name, tensor in read_tensors(tmp_path).items():
        assert tensor.dtype == some_tensors()[name].dtype
        assert torch.equal(tensor, some_tensors()[name])


def test_writing_replaces_the_weights_that_are_there(tmp_path):
    write_tensors(tmp_path, some_tensors(), 10**9)
    write_tensors(tmp_path, {name: tensor + 1 for name, tensor in some_tensors().items()}, 100)
    assert not (tmp_path / SINGLE).exists()
    assert torch.equal(read_tensors(tmp_path)["b"], some_tensors()["b"] + 1)
    write_tensors(tmp_path, some_tensors(), 10**9)
    assert [path.name for path in tmp_path.iterdir()] == [SINGLE]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_conversion_in_blocks_equals_conversion_at_once(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(files, "BUFFER_BYTES", 64)
    write_tensors(tmp_path, {"x": torch.randn(13, 9).double()}, 10**9)
    tensors = TensorFiles(tmp_path)
    assert torch.equal(tensors.read("x", dtype), tensors.read("x").to(dtype))


def good(**changes):
    return {"x": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{not json", b"", "corrupt header"),
        (b"\xff\xfe\xfa", b"", "corrupt header"),
        (b"[1, 2]", b"", "object is expected"),
        (b"[" * 100_000, b"", "corrupt header"),
        ({"x": 3}, b"", "tensor x is malformed"),
        (good(shape=[2, "2"]), bytes(16), "tensor x is malformed"),
        (good(shape=[-2, -2]), bytes(16), "tensor x is malformed"),
        (good(data_offsets=[0]), bytes(16), "tensor x is malformed"),
        (good(dtype="F4"), bytes(16), "dtype F4"),
        (good(shape=[2, 3]), bytes(16), "16 bytes for shape"),
        (good(shape=[10**30]), bytes(16), "16 bytes for shape"),
        (good(), bytes(15), "truncated"),
    ],
)
def test_bad_headers(tmp_path, header, data, message):
    write_raw(tmp_path / SINGLE, header, data)
    with pytest.raises(CheckpointError, match=message) as caught:
        TensorFiles(tmp_path)
    assert SINGLE in str(caught.value)


def test_truncated_and_missing(tmp_path):
    with pytest.raises(CheckpointError, match="holds neither"):
        TensorFiles(tmp_path)
    (tmp_path / SINGLE).write_bytes(b"abc")
    with pytest.raises(CheckpointError, match="corrupt header"):
        TensorFiles(tmp_path)
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", 500) + b"{}")
    with pytest.raises(CheckpointError, match="truncated inside its header"):
        TensorFiles(tmp_path)


def test_missing_shard_and_misplaced_tensor(tmp_path):
    write_tensors(tmp_path, some_tensors(), 100)
    index = json.loads((tmp_path / INDEX).read_text())
    index["weight_map"]["ghost"] = index["weight_map"]["b"]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="ghost is missing"):
        TensorFiles(tmp_path)
    index["weight_map"] = {"b": "../b.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="plain file name"):
        TensorFiles(tmp_path)
    index["weight_map"] = {"b": "model-00009-of-00009.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="shard is missing"):
        TensorFiles(tmp_path)
    (tmp_path / INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match="weight_map"):
        TensorFiles(tmp_path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_never_fail_otherwise(tmp_path, data):
    """Flip, cut or insert bytes: either tensors of sound shape come out, or a CheckpointError."""
    path = tmp_path / SINGLE
    save_file(some_tensors(), path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1) | st.integers(0, min(len(raw) - 1, 60)))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                raw[at] = data.draw(st.integers(0, 255))
            case "cut":
                del raw[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                raw[at:at] = data.draw(st.binary(max_size=20))
        raw = raw or bytearray(b"\0")
    path.write_bytes(raw)
    try:
        tensors = read_tensors(tmp_path)
    except CheckpointError as error:
        assert str(tmp_path) in str(error)
    else:
        assert all(tensor.nbytes <= len(raw) for tensor in tensors.values())


class Payload:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_pt_files_run_no_code(tmp_path, capsys):
    path = tmp_path / "model.pt"
    torch.save({"state_dict": {"x": torch.ones(2)}}, path)
    assert torch.equal(read_pt(path)["state_dict"]["x"], torch.ones(2))
    torch.save({"x": Payload()}, path)
    with pytest.raises(CheckpointError, match="pickled code"):
        read_pt(path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match="pickled code"):
        read_pt(path)
    assert capsys.readouterr().out == ""
    for damaged in (b"", b"hello", bytes(100), b"PK\x03\x04" + bytes(50)):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_pt(path)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match="dictionary"):
        read_pt(path)
    with pytest.raises(CheckpointError, match="No such file"):
        read_pt(tmp_path / "absent.pt")
