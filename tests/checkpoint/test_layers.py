"""Compiled decoding steps compute what the layers do: any rows, padding, and what is written to the cache."""

import pytest
import torch
from model_parts import make_parts

from kimi_audio.checkpoint.kernels import quantise_module
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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "padded"), [(1, False), (3, False), (2, True), (17, True)])
def test_compiled_layers_equal_the_others(models, rows, padded, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("kimi_audio.checkpoint.kernels.WORTH_A_THREAD", 1)
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


def test_only_int8_layers_are_compiled():
    llm = make_parts().llm
    compile_layers(llm)
    assert not isinstance(llm.run, CompiledLayers)
