"""Both listening encoders: lengths, segments of 30 s, what may look where. Figures: the golden cases (tests/verify)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import SEMANTIC, WHISPER

from kimi_audio.tokenizer.acoustic import SEGMENT_SAMPLES, TOKEN_SAMPLES, AcousticEncoder, by_length, num_tokens
from kimi_audio.tokenizer.semantic import SemanticTokenizer, block_causal_mask
from kimi_audio.tokenizer.whisper import WhisperEncoder


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return WhisperEncoder(WHISPER).eval()


@pytest.fixture(scope="module")
def semantic():
    torch.manual_seed(0)
    return SemanticTokenizer(SEMANTIC).eval()


def noise(length: int) -> torch.Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(length)) * 0.1


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 3 * TOKEN_SAMPLES + 1))
def test_one_vector_and_one_code_per_80_ms(encoder, semantic, length):
    tokens = num_tokens(length)
    assert tokens == -(-length // TOKEN_SAMPLES)
    assert AcousticEncoder(encoder, clip_silence=True)(noise(length)).shape == (1, tokens, 4 * WHISPER.d_model)
    assert semantic.encode([noise(length)])[0].shape == (tokens,)


def test_long_sounds_are_the_sum_of_their_segments(encoder, semantic):
    samples = noise(SEGMENT_SAMPLES + 20_000)
    acoustic = AcousticEncoder(encoder, clip_silence=True)
    parts = torch.cat([acoustic(part) for part in samples.split(SEGMENT_SAMPLES)], 1)
    assert torch.equal(acoustic(samples), parts)
    codes = torch.cat([semantic.encode([part])[0] for part in samples.split(SEGMENT_SAMPLES)])
    assert torch.equal(semantic.encode([samples])[0], codes)


def test_clipped_encoding_equals_masked_encoding(encoder):
    """`clip_silence` computes what the official code does with a mask: padding is neither seen nor encoded."""
    samples = noise(5_000)
    kept = 4 * num_tokens(len(samples))
    full = AcousticEncoder(encoder).log_mel(samples)
    mask = (torch.arange(1500) < kept)[None, None, None]
    with torch.inference_mode():
        masked = encoder(full[None], mask=mask)[0, :kept].reshape(1, -1, 4 * WHISPER.d_model)
    torch.testing.assert_close(AcousticEncoder(encoder, clip_silence=True)(samples), masked, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spare", [0, 50])
def test_a_batch_hears_each_clip_as_if_it_were_alone(encoder, spare):
    """Neither longer clips beside it nor filling up to a multiple of frames change what is heard."""
    acoustic = AcousticEncoder(encoder, True, spare)
    clips = [noise(length) for length in (5_000, 30_000, 16_000)]
    with torch.inference_mode():
        log_mels, tokens = [acoustic.log_mel(clip) for clip in clips], [num_tokens(len(clip)) for clip in clips]
        for clip, features_TF in zip(clips, acoustic.encode(log_mels, tokens, multiple=64), strict=True):
            torch.testing.assert_close(features_TF, acoustic.encode_segment(clip), atol=1e-5, rtol=1e-4)


def test_spare_frames_are_heard_but_not_kept(encoder):
    """With enough of them the end of a clip is what it is in 30 s; without, it is not."""
    samples = noise(5_000)
    whole = AcousticEncoder(encoder)(samples)
    assert AcousticEncoder(encoder, True, spare_frames=50)(samples).shape == whole.shape
    everything = AcousticEncoder(encoder, True, spare_frames=1500)(samples)
    torch.testing.assert_close(everything, whole, atol=1e-5, rtol=1e-4)
    distance = [
        float((AcousticEncoder(encoder, True, spare_frames=frames)(samples) - whole).abs().mean())
        for frames in (0, 50, 700)
    ]
    assert distance[2] < distance[1] < distance[0]


@pytest.mark.parametrize("settings_", [(True, 0), (True, 30), (False, 0)])
def test_a_batch_is_its_segments(encoder, settings_):
    acoustic, lengths = AcousticEncoder(encoder, *settings_), (5_000, 20_000, 1, 20_000)
    log_mels = [acoustic.log_mel(noise(length)) for length in lengths]
    with torch.no_grad():
        batch = acoustic.encode(log_mels, [num_tokens(length) for length in lengths])
    for length, features_TF in zip(lengths, batch, strict=True):
        torch.testing.assert_close(features_TF, acoustic(noise(length))[0], atol=1e-5, rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, SEGMENT_SAMPLES))
def test_a_clipped_log_mel_is_the_start_of_the_whole(encoder, length):
    clipped = AcousticEncoder(encoder, clip_silence=True).log_mel(noise(length))
    whole = AcousticEncoder(encoder).log_mel(noise(length))
    torch.testing.assert_close(clipped, whole[:, : clipped.shape[1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("clip", [True, False])
def test_log_mels_of_equally_long_clips_are_those_of_each(encoder, clip):
    acoustic, clips = AcousticEncoder(encoder, clip_silence=clip), [noise(3000), 1e-6 * noise(3000)]  # own floors
    torch.testing.assert_close(acoustic.log_mel(torch.stack(clips)), torch.stack([acoustic.log_mel(c) for c in clips]))


def test_codes_look_back_but_not_beyond_their_block(semantic):
    """Frames up to a block's end do not change with what follows it (log-mels are given, so no common floor)."""
    block_mels = 2 * SEMANTIC.quantize_causal_block_size
    log_mel = torch.randn(1, SEMANTIC.num_mel_bins, 2 * block_mels)
    changed = log_mel.clone()
    changed[:, :, block_mels:] += 1.0
    valid = torch.ones(1, 2 * block_mels, dtype=torch.bool)
    with torch.inference_mode():
        before, after = semantic.hidden(log_mel, valid), semantic.hidden(changed, valid)
    tokens = block_mels // 8
    torch.testing.assert_close(before[:, :tokens], after[:, :tokens])
    assert not torch.allclose(before[:, tokens:], after[:, tokens:])


def test_padding_changes_nothing(semantic):
    log_mel = torch.randn(1, SEMANTIC.num_mel_bins, 64)
    valid = torch.ones(1, 64, dtype=torch.bool)
    padded = torch.nn.functional.pad(log_mel, (0, 32), value=3.0)
    with torch.inference_mode():
        alone = semantic.hidden(log_mel, valid)
        batched = semantic.hidden(padded, torch.nn.functional.pad(valid, (0, 32)))
    torch.testing.assert_close(alone, batched[:, :8], atol=1e-5, rtol=1e-4)


def test_block_causal_mask_by_hand():
    valid = torch.tensor([[True, True, True, True, False]])
    expected = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 0]])
    assert torch.equal(block_causal_mask(valid, 2)[0, 0], expected.bool())
    assert torch.equal(block_causal_mask(valid, None)[0, 0], valid)


def test_nearest_code(semantic):
    codes = torch.tensor([[3, 17, 0]])
    hidden = semantic.codebook(codes) + 0.01
    assert torch.equal(semantic.quantise(hidden), codes)


def test_neighbours_are_the_nearest_other_codes(semantic):
    codebook_CD, near_CK = semantic.codebook.weight.detach(), semantic.neighbours(3)
    for code, near_K in enumerate(near_CK.tolist()):
        distance_C = (codebook_CD - codebook_CD[code]).norm(dim=1)
        distance_C[code] = torch.inf
        assert near_K == distance_C.argsort()[:3].tolist()


@pytest.mark.parametrize("width", [8, 64])
def test_code_vectors_lie_as_the_codes_do(semantic, width):
    """In enough dimensions all distances are kept; the vectors are the same each time, of mean 0 and spread 1."""
    codebook, vectors = semantic.codebook.weight.detach(), semantic.code_vectors(width)
    assert torch.equal(vectors, semantic.code_vectors(width))
    assert abs(float(vectors.mean())) < 0.05 and abs(float(vectors.std()) - 1) < 1e-4
    if width >= codebook.shape[1]:
        ratio = torch.pdist(vectors) / torch.pdist(codebook)
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), atol=1e-4, rtol=1e-4)


def test_clips_heard_together_have_the_codes_of_each_alone(semantic):
    clips = [noise(length) for length in (5_000, 30_000, 16_000, 1)]
    together = semantic.encode_together([semantic.log_mel(clip) for clip in clips], multiple=64)
    for clip, codes_T in zip(clips, together, strict=True):
        assert torch.equal(codes_T, semantic.encode([clip])[0])


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 200))
def test_batches_by_length_hold_every_item_once(lengths, budget):
    batches = by_length(lengths, budget)
    assert sorted(item for batch in batches for item in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or max(lengths[item] for item in batch) * len(batch) <= budget for batch in batches)
