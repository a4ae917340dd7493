"""Quantised weights: small error, equal products, and a round trip over the disk."""

import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from model_parts import make_parts

from kimi_audio.checkpoint.files import TensorFiles
from kimi_audio.checkpoint.kernels import (
    AnyWeight,
    FusedPart,
    Int4Weight,
    Int8Weight,
    QuantEmbedding,
    QuantLinear,
    quantise_module,
)
from kimi_audio.checkpoint.layout import Storage, load_parts, save_parts
from kimi_audio.checkpoint.loading import tensors_of
from kimi_audio.checkpoint.quantise import Quantised, quality_loss, quantise
from kimi_audio.errors import CheckpointError
from kimi_audio.tokenizer.whisper import sinusoids

needs_x86 = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="these kernels are for x86"
)


def matrix(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05


def relative(got, wanted):
    return ((got - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize(("bits", "error", "size"), [(8, 0.01, 1.02), (4, 0.095, 0.57)])
def test_error_and_size(bits, error, size):
    weight = matrix(64, 256)
    quantised = quantise(weight, bits)
    assert (quantised.bits, quantised.shape) == (bits, (64, 256))
    assert relative(quantised.dequantise(), weight) < error
    assert quantised.nbytes <= size * weight.numel()


@given(st.integers(1, 9), st.integers(1, 70), st.sampled_from([4, 8]), st.floats(0.1, 100), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_weight_is_near(rows, columns, bits, size, seed):
    """An int8 weight is off by half a step at most, a 4-bit one by a fifth of its group's largest.

    Matrices whose largest weight is below 1e-3 lose more: their scales are small for a float16.
    """
    weight = matrix(rows, columns, seed) * size
    weight += 0.01 * weight.sign()
    weight[0] = 0
    quantised = quantise(weight, bits)
    off = (quantised.dequantise() - weight).abs()
    assert (off <= weight.abs().amax() * (0.005 if quantised.bits == 8 else 0.2) + 1e-6).all()
    assert (off[0] == 0).all()
    if columns % 32:
        assert quantised.bits == 8


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
@pytest.mark.parametrize(("rows", "outputs"), [(1, 96), (3, 96), (4, 37), (18, 37), (70, 96), (70, 1)])
def test_int8_product_is_that_of_dequantised_weights_despite_outliers(rows, outputs, dtype, error, monkeypatch):
    monkeypatch.setattr("kimi_audio.checkpoint.kernels.quickest_float", lambda: dtype)
    quantised = quantise(matrix(outputs, 160), 8)
    x = torch.randn(rows, 160, generator=torch.Generator().manual_seed(1))
    x[:, 7] *= 100
    x[0] *= 1000
    expected = F.linear(x, quantised.dequantise())
    assert relative(AnyWeight(quantised)(x), expected) < 1e-6
    for row in range(rows):
        assert relative(Int8Weight(quantised)(x)[row], expected[row]) < error
    assert relative(Int8Weight(quantised)(x[-1:]), Int8Weight(quantised)(x)[-1:]) < error, "rows depend on each other"
    assert torch.equal(Int8Weight(quantised)(torch.zeros(1, 160)), torch.zeros(1, outputs))


def test_int8_product_is_shared_among_threads(monkeypatch):
    weight, x = Int8Weight(quantise(matrix(67, 160), 8)), matrix(20, 160, seed=1)
    alone = weight(x)
    monkeypatch.setattr("kimi_audio.checkpoint.kernels.WORTH_A_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(weight(x), alone)
    x[3, 5] = torch.nan
    assert weight(x)[3].isnan().all() and weight(x)[2].isfinite().all()


@needs_x86
@pytest.mark.parametrize(("rows", "outputs"), [(1, 128), (5, 128), (2, 37)])
def test_int4_product(rows, outputs):
    quantised = quantise(matrix(outputs, 160), 4)
    x = torch.randn(rows, 160, generator=torch.Generator().manual_seed(1))
    expected = F.linear(x, quantised.dequantise())
    assert relative(AnyWeight(quantised)(x), expected) < 1e-6
    assert relative(Int4Weight(quantised)(x), expected) < 0.01


def test_layer_keeps_shape_dtype_and_bias():
    bias = torch.arange(64.0)
    layer = QuantLinear(quantise(matrix(64, 32), 8), bias)
    assert layer(torch.zeros(2, 3, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert torch.equal(layer(torch.zeros(2, 3, 32)), bias.expand(2, 3, 64))


def logits(parts):
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 256, (1, 12), generator=generator)
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[:, 3:8] = True
    features = [torch.randn(1, 5, parts.llm.config.kimia_adaptor_input_dim, generator=generator)]
    with torch.inference_mode():
        out = parts.llm(ids, ids + 1, continuous_mask_BT=mask, features=features)
        return torch.cat([out.text_logits, out.audio_logits])


STORED = Storage(llm=4, embedding=8, acoustic=8, semantic=8, floats=torch.float16)


def test_positions_that_whisper_computes_are_not_stored(tmp_path):
    parts = make_parts()
    assert parts.acoustic is not None
    table = parts.acoustic.encoder.embed_positions.weight
    with torch.no_grad():
        table.copy_(sinusoids(*table.shape))
    heard = parts.acoustic(torch.ones(4000))
    for storage in (Storage(), STORED):
        save_parts(tmp_path / "m", parts, storage)
        stored = set(TensorFiles(tmp_path / "m" / "whisper-large-v3"))
        assert ("model.encoder.embed_positions.weight" in stored) == (storage is not STORED)
        again = load_parts(tmp_path / "m").acoustic
        assert again is not None and relative(again(torch.ones(4000)), heard) < 0.05


@pytest.mark.parametrize("tied", [True, False])
def test_stored_quantised_loads_in_every_precision(tmp_path, tied):
    parts = make_parts(tie_word_embeddings=tied)
    save_parts(tmp_path / "m", parts, STORED)
    exact = load_parts(tmp_path / "m", dtype="float32")
    assert 0.001 < relative(logits(exact), logits(parts)) < 0.3
    for dtype, error in (("int8", 0.03), ("int4", 0.02), ("auto", 0.03), ("bfloat16", 0.03)):
        loaded = load_parts(tmp_path / "m", dtype=dtype)
        kinds = {type(layer) for layer in loaded.llm.modules()}
        assert (QuantLinear in kinds and FusedPart in kinds and QuantEmbedding in kinds) == (dtype != "bfloat16")
        assert relative(logits(loaded).float(), logits(exact)) < error, dtype
        assert loaded.acoustic is not None and torch.isfinite(loaded.acoustic(torch.randn(4000))).all()
    with pytest.raises(CheckpointError, match="cannot be saved"):
        save_parts(tmp_path / "again", load_parts(tmp_path / "m", dtype="int8"))
    save_parts(tmp_path / "float", exact)
    assert "quantization_config" not in (tmp_path / "float" / "config.json").read_text()


def test_float_checkpoint_is_quantised_on_loading(tmp_path):
    parts = make_parts()
    save_parts(tmp_path / "m", parts)
    assert relative(logits(load_parts(tmp_path / "m", dtype="int8")), logits(parts)) < 0.03
    assert relative(logits(load_parts(tmp_path / "m", dtype="int4")), logits(parts)) < 0.3
    auto = load_parts(tmp_path / "m", dtype="auto")
    assert torch.equal(logits(auto), logits(parts))


def test_a_model_in_memory_is_quantised_like_a_loaded_one(tmp_path):
    parts = make_parts(tie_word_embeddings=True)
    save_parts(tmp_path / "m", parts)
    quantise_module(parts.llm, 8)
    assert torch.equal(logits(load_parts(tmp_path / "m", dtype="int8")), logits(parts))


def test_gate_and_up_projections_may_have_bits_of_their_own(tmp_path):
    save_parts(tmp_path / "m", make_parts(), Storage(llm=8, gate_up=4))
    bits = {name: {torch.int8: 8, torch.uint8: 4}.get(e.dtype) for name, e in TensorFiles(tmp_path / "m").items()}
    assert bits["model.layers.0.mlp.gate_proj.weight"] == bits["model.mimo_layers.1.mlp.up_proj.weight"] == 4
    assert bits["model.layers.0.mlp.down_proj.weight"] == bits["model.vq_adaptor.layers.0.weight"] == 8
    assert bits["model.embed_tokens.weight"] is bits["model.norm.weight"] is None
    assert json.loads((tmp_path / "m" / "config.json").read_text())["quantization_config"]["bits"] == [4, 8]
    load_parts(tmp_path / "m", dtype="auto")


def test_size_on_disk(tmp_path):
    parts = make_parts(hidden_size=256, intermediate_size=512)
    save_parts(tmp_path / "m", parts, STORED)
    weights = sum(tensor.numel() for tensor in tensors_of(parts.llm).values())
    assert TensorFiles(tmp_path / "m").num_bytes < 0.75 * weights


@pytest.mark.parametrize(
    ("values", "scale", "message"),
    [
        (torch.zeros(4, 32, dtype=torch.int8), torch.ones(5), r"shape \[5\], expected \[4\]"),
        (torch.zeros(4, 32, dtype=torch.uint8), torch.ones(4, 3), r"shape \[4, 3\], expected \[4, 2\]"),
        (torch.zeros(4, 32), torch.ones(4), "int8 or uint8"),
    ],
)
def test_parts_that_do_not_fit(values, scale, message):
    with pytest.raises(CheckpointError, match=message):
        Quantised(values, scale).checked("x.weight")


def test_quality_loss_reports_each_tensor_and_the_total():
    tensors = {"a": matrix(64, 64), "b": matrix(32, 64, 1), "norm": torch.ones(64)}
    losses = list(quality_loss(tensors.items(), {"a": 4, "b": 8}))
    assert [loss.name for loss in losses] == ["a", "b", "total"]
    assert losses[1].error < losses[2].error < losses[0].error
    assert str(losses[0]).startswith("a: 4.5 bits, relative error")
    assert losses[2].nbytes == losses[0].nbytes + losses[1].nbytes


@given(seed=st.integers(0, 999), bits=st.sampled_from([4, 8]))
def test_quantised_weights_are_quantised_to_themselves(seed, bits):
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed))
    once = quantise(weight, bits).dequantise()
    torch.testing.assert_close(quantise(once, bits).dequantise(), once, atol=1e-6, rtol=1e-3 if bits == 8 else 1e-6)
