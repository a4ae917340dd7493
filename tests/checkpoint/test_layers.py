"""Compiled decoding steps compute what the layers do, with any rows, padding and threads, down to the cache."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from model_parts import make_parts

from kimi_audio.checkpoint.compiled import multiply
from kimi_audio.checkpoint.kernels import quantise_module, together
from kimi_audio.checkpoint.layers import CompiledLayers, compile_layers


@pytest.fixture(scope="module")
def models():
    """An int8 model whose layers are as they were, and the same one with compiled layers."""
    plain, compiled = make_parts().llm.eval(), make_parts().llm.eval()
    compiled.load_state_dict(plain.state_dict())
    for llm in (plain, compiled):
        quantise_module(llm, 8)
    compile_layers(compiled)
    assert isinstance(compiled.run, CompiledLayers)
    return plain, compiled


@pytest.fixture
def any_number_of_threads(monkeypatch):
    monkeypatch.setattr("kimi_audio.checkpoint.kernels.WORTH_A_THREAD", 1)
    return lambda threads: monkeypatch.setattr(torch, "get_num_threads", lambda: threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("rows", "padded"), [(1, False), (3, False), (2, True), (5, True), (17, True)])
def test_compiled_layers_equal_the_others(models, rows, padded, threads, any_number_of_threads):
    any_number_of_threads(threads)
    llm, _ = models
    generator = torch.Generator().manual_seed(rows)
    ids = torch.randint(1, 200, (2, rows, 9), generator=generator)
    padding = torch.arange(rows) % 4 if padded else torch.zeros(rows, dtype=torch.int64)
    outputs, caches = [], []
    with torch.inference_mode():
        for model in models:
            cache = llm.new_cache(rows, capacity=6)  # it grows on the way
            got = []
            for first, last in ((0, 5), *((n, n + 1) for n in range(5, 9))):
                mask = positions = None
                if padded:
                    keys = torch.arange(last)
                    queries = keys[first:]
                    mask = (keys <= queries[:, None]) & (keys >= padding[:, None, None]) | (keys == queries[:, None])
                    mask, positions = mask[:, None], (queries - padding[:, None]).clamp(min=0)
                out = model(ids[0][:, first:last], ids[1][:, first:last], cache=cache, attention_mask=mask,
                            position_ids_BT=positions)  # fmt: skip
                got += [out.text_logits, out.audio_logits[..., -8:]]
            outputs.append(got)
            caches.append([part for n in range(len(llm.model.layers)) for part in cache.layer(n)])
    for got, wanted in zip(outputs[1] + caches[1], outputs[0] + caches[0], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def written(llm, seed, steps=12):
    """Logits of `steps` steps of three sequences, of which the first is dropped half-way."""
    ids = torch.randint(1, 200, (2, 3, steps), generator=torch.Generator().manual_seed(seed))
    cache, logits = llm.new_cache(3), []
    for step in range(steps):
        if step == steps // 2:
            ids = ids[:, 1:]
            cache.select(torch.tensor([1, 2]))
        out = llm(ids[0, :, step : step + 1], ids[1, :, step : step + 1], cache=cache, want_text=step % 3 < 2)
        logits.append(out.audio_logits[..., -8:])
    return torch.cat(logits)


def test_sequences_that_end_leave_the_others_as_they_were(models, any_number_of_threads):
    any_number_of_threads(2)
    plain, compiled = models
    torch.testing.assert_close(written(compiled, 1), written(plain, 1), rtol=1e-4, atol=1e-4)


def test_several_may_write_at_once(models, any_number_of_threads):
    any_number_of_threads(3)
    _, compiled = models
    alone = [written(compiled, seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:  # more in all than there are threads to help them
        for at_once, wanted in zip(pool.map(partial(written, compiled), range(8)), alone, strict=True):
            assert torch.equal(at_once, wanted)


def test_nobody_waits_for_threads_that_never_come(models, any_number_of_threads, monkeypatch):
    any_number_of_threads(3)
    _, compiled = models
    wanted, asked = written(compiled, 1), []

    class Busy:
        def submit(self, *call):
            asked.append(Future())
            return asked[-1]

    monkeypatch.setattr("kimi_audio.checkpoint.kernels._threads", Busy)
    assert torch.equal(written(compiled, 1), wanted)
    assert asked and all(future.cancelled() for future in asked)


def test_who_helps_an_interrupted_caller_comes_to_an_end():
    values, scale, x = torch.ones(64, 32, dtype=torch.int8), torch.ones(64), torch.ones(2, 32)
    y, ended = np.zeros((2, 64), dtype=np.float32), threading.Event()

    def interrupted(*arguments):
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt
        multiply(*arguments)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        together(2, interrupted, values.numpy(), scale.numpy(), x.numpy(), y, np.zeros(2, dtype=np.int64), 8)
    assert ended.wait(60) and (y == 32).all()


def test_only_int8_layers_are_compiled():
    llm = make_parts().llm
    compile_layers(llm)
    assert not isinstance(llm.run, CompiledLayers)
