import json

import numpy as np
import pytest
import torch

from kimi_audio.data import cache as cache_module
from kimi_audio.data.cache import HeardCache, fill, listener_hash, variant_key
from kimi_audio.errors import CheckpointError, DataError
from kimi_audio.prompt import Heard


def heard(number: int, length: int = 5, width: int = 6) -> Heard:
    generator = torch.Generator().manual_seed(number)
    codes = torch.randint(1000, (length,), generator=generator).tolist()
    return Heard(codes, torch.randn(1, length, width, generator=generator).half().float() if width else None)


def assert_holds(cache: HeardCache, key: str, expected: Heard) -> None:
    found = cache.heard(key)
    assert found.codes == expected.codes and cache.length(key) == len(expected.codes)
    if expected.features is None:
        assert found.features is None
    else:
        assert found.features is not None and found.features.dtype == torch.float16
        torch.testing.assert_close(found.features.float(), expected.features, atol=0, rtol=0)


@pytest.mark.parametrize("width", [0, 6])
def test_what_was_heard_comes_back_in_any_process(tmp_path, width, monkeypatch):
    monkeypatch.setattr(cache_module, "SHARD_BYTES", 100)
    cache = HeardCache(tmp_path)
    things = {f"{n}.wav": heard(n, length=1 + n % 7, width=width) for n in range(20)}
    for key, thing in things.items():
        cache.add(key, thing)
        assert_holds(cache, key, thing)
    for reader in (cache, HeardCache(tmp_path)):
        for key, thing in things.items():
            assert_holds(reader, key, thing)
    assert len(list(tmp_path.glob("codes-*"))) > 2
    assert max(path.stat().st_size for path in tmp_path.glob("*-0*")) < 100 + 7 * 12


def test_what_is_heard_together_comes_in_order_and_stays_when_the_next_fails(tmp_path):
    recordings = [(f"{n}.wav", np.full(1, n, np.float32)) for n in range(7)]
    calls = []

    def listen(sounds):
        calls.append([int(samples[0]) for samples in sounds])
        if 6 in calls[-1]:
            raise KeyboardInterrupt
        return [heard(n) for n in calls[-1]]

    with pytest.raises(KeyboardInterrupt):
        fill(HeardCache(tmp_path), recordings, listen, together=3)
    assert calls == [[0, 1, 2], [3, 4, 5], [6]]
    cache = HeardCache(tmp_path)
    assert len(cache) == 6
    assert fill(cache, recordings[:6], listen, together=4) == 6
    for n in range(6):
        assert_holds(cache, f"{n}.wav", heard(n))


def test_a_kill_in_the_middle_of_writing_loses_one_recording_at_most(tmp_path):
    cache = HeardCache(tmp_path)
    for n in range(3):
        cache.add(f"{n}.wav", heard(n))
    index = tmp_path / "index.jsonl"
    index.write_bytes(index.read_bytes()[:-7])  # the last line is cut short,
    (tmp_path / "features-000.f16").open("ab").write(b"half a recor")  # and data without a line lie behind
    again = HeardCache(tmp_path)
    assert len(again) == 2 and "2.wav" not in again
    again.add("2.wav", heard(2))
    for n in range(3):
        assert_holds(HeardCache(tmp_path), f"{n}.wav", heard(n))
    assert [json.loads(line)["key"] for line in index.read_text().splitlines()] == ["0.wav", "1.wav", "2.wav"]


def test_unknown_recordings_are_an_error(tmp_path):
    with pytest.raises(DataError, match=r"x\.wav is not in the cache"):
        HeardCache(tmp_path).heard("x.wav")
    assert variant_key("x.wav", 0) == "x.wav" != variant_key("x.wav", 1)


def test_other_weights_have_another_name(tmp_path):
    for part in ("whisper-large-v3", "glm-4-voice-tokenizer"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text("{}")
        (tmp_path / part / "model.safetensors").write_bytes(b"weights")
    first = listener_hash(tmp_path)
    assert first == listener_hash(tmp_path) and len(first) == 16
    (tmp_path / "whisper-large-v3" / "model.safetensors").write_bytes(b"Weights")
    assert listener_hash(tmp_path) != first
    (tmp_path / "whisper-large-v3" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        listener_hash(tmp_path)
