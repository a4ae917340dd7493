"""Flow matching: the chunk-causal stage sees what a stream sees, and the loss falls."""

from itertools import islice

import numpy as np
import pytest
import torch
from training.sounds import CODES, VOCODER, make_flow, tone_codes, tone_store

from kimi_audio.detokenizer.flow import CACHE_TIME, TIME_SCALE, whole_time
from kimi_audio.detokenizer.streaming import FRAMES_PER_CODE
from kimi_audio.detokenizer.vocoder import log_mel
from kimi_audio.training.objectives.flow import FlowObjective, chunk_causal_mask, draw_chunks, mels_at
from kimi_audio.training.trainer import TrainConfig, Trainer


@pytest.fixture
def store(tmp_path):
    return tone_store(tmp_path)


def objective(store, **settings) -> FlowObjective:
    return FlowObjective(make_flow(), VOCODER, store, tone_codes, batch_seconds=3.0, **settings)


def test_batches_depend_on_their_number_alone(store):
    first = list(islice(objective(store, chunk_seconds=(0.2, 0.5)).batches(0), 6))
    for number in (2, 5):
        again = next(objective(store, chunk_seconds=(0.2, 0.5)).batches(number))
        for name in ("mel", "noise", "codes", "times", "valid", "chunks"):
            assert torch.equal(getattr(again, name), getattr(first[number], name))


def test_a_batch_has_four_frames_a_code_and_hides_some_codes(store):
    batches = list(islice(objective(store, drop_codes=0.5).batches(0), 20))
    hidden = 0
    for batch in batches:
        assert batch.mel.shape[1] == FRAMES_PER_CODE * batch.codes.shape[1]
        assert batch.mel.shape == batch.noise.shape
        hidden += int((batch.codes == CODES).all(1).sum())
        frames = batch.valid.sum(1)
        assert (frames % FRAMES_PER_CODE == 0).all()
        assert float(batch.mel[~batch.valid].abs().sum()) == 0
    rows = sum(len(batch.codes) for batch in batches)
    assert 0.2 < hidden / rows < 0.8


def test_blurred_codes_are_neighbours_of_the_true_ones(store):
    neighbours_CK = torch.stack([(torch.arange(CODES) + step) % CODES for step in (1, 2)], 1)
    blurred = objective(store, drop_codes=0.0, neighbours_CK=neighbours_CK, blur_codes=0.5)
    true = objective(store, drop_codes=0.0)
    steps = []
    for batch, other in zip(islice(blurred.batches(0), 5), islice(true.batches(0), 5), strict=True):
        shown = other.codes < CODES
        steps.append((batch.codes - other.codes)[shown] % CODES)
    steps = torch.cat(steps)
    assert set(steps.tolist()) == {0, 1, 2}
    assert 0.4 < float((steps > 0).float().mean()) < 0.6


def test_long_recordings_are_cut_to_a_stretch(store):
    batch = next(objective(store, longest_seconds=0.4).batches(0))
    assert batch.codes.shape[1] == 5


def test_codes_of_another_voice_go_with_the_moments_that_they_are_of(store):
    """At half the pace every mel comes twice."""
    codes, mel_TM = objective(store)._stretch(store, 5, np.random.default_rng(0))
    own = (np.arange(len(mel_TM)) + 0.5) * VOCODER.hop_size / VOCODER.sampling_rate
    slow = objective(store)
    slow.codes = lambda _: codes + codes
    store.rows[5]["times"] = np.repeat(own, 2).tolist()
    twice, slow_TM = slow._stretch(store, 5, np.random.default_rng(0))
    assert twice == codes + codes and torch.equal(slow_TM[::2], slow_TM[1::2])


def test_mels_are_those_of_the_moment():
    """Of noise that comes and goes: much closer to the mels at these times than to those of a frame later."""
    seconds = VOCODER.hop_size / VOCODER.sampling_rate
    loudness = torch.sin(torch.arange(8000) / VOCODER.hop_size).exp()
    noise = loudness * torch.randn(8000, generator=torch.Generator().manual_seed(0)) / 20
    mel_TM = log_mel(noise[None], VOCODER)[0]
    at_TM = mels_at(noise, ((torch.arange(len(mel_TM)) + 0.5) * seconds).tolist(), VOCODER)
    inner = slice(4, -4)  # the edges are padded otherwise
    aside = (at_TM.roll(1, 0) - mel_TM)[inner].abs().mean()
    assert (at_TM - mel_TM)[inner].abs().mean() < 0.5 * aside


def test_padding_changes_nothing(store):
    """The error of a short row beside a long one is its error alone."""
    trained = objective(store, drop_codes=0.0)
    rng = np.random.default_rng(0)
    both = trained._batch(store, [0, 5], rng, np.array([0.3, 0.6]), drop=0.0)
    frames = int(both.valid[0].sum())
    assert frames < both.mel.shape[1]
    with torch.no_grad():
        flow, whole = trained.flow, (both.times * TIME_SCALE).long()
        noisy = torch.lerp(both.noise, both.mel, both.times[:, None, None])
        together = flow(noisy, both.codes, whole, mask=both.valid[:, None, None])
        alone = flow(noisy[:1, :frames], both.codes[:1, : frames // FRAMES_PER_CODE], whole[:1])
    assert torch.allclose(together[0, :frames], alone[0], atol=1e-5)


def test_the_chunk_causal_stage_computes_what_a_stream_computes(store):
    """Each noisy chunk, with the finished chunks before it in a cache, has the velocity of the one long row."""
    trained = objective(store, chunk_seconds=(0.24, 0.24))
    batch = trained._batch(store, [5], np.random.default_rng(0), np.array([0.4]), drop=0.0)
    flow, chunk = trained.flow, 3 * FRAMES_PER_CODE
    assert batch.chunks is not None
    noisy = torch.lerp(batch.noise, batch.mel, batch.times[:, None, None])
    times = (batch.times * TIME_SCALE).long()
    with torch.no_grad():
        at_once = trained._chunk_causal(batch.mel, noisy, batch.codes, times, batch.valid, batch.chunks)
        cache, parts = flow.new_cache(), []
        for start in range(0, noisy.shape[1], chunk):
            frames = slice(start, start + chunk)
            codes = batch.codes[:, start // FRAMES_PER_CODE : start // FRAMES_PER_CODE + 3]
            parts.append(flow(noisy[:, frames], codes, times, start=start, cache=cache))
            finished = whole_time(torch.tensor(CACHE_TIME), 1)
            flow(batch.mel[:, frames], codes, finished, start=start, cache=cache)
            cache.advance(batch.mel[:, frames].shape[1])
    assert torch.allclose(torch.cat(parts, 1), at_once, atol=1e-5)


def test_who_sees_whom():
    mask = chunk_causal_mask(torch.tensor([0, 0, 1]))
    finished, noisy = mask[:3], mask[3:]
    assert finished.int().tolist() == [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert noisy.int().tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 1]]


def test_chunks_are_as_long_as_asked():
    rng = np.random.default_rng(0)
    longest = {int(draw_chunks(100, (0.5, 3.0), rng).bincount().max()) for _ in range(200)}
    assert min(longest) >= 6 and max(longest) <= 38 and len(longest) > 10


@pytest.mark.parametrize("chunk_seconds", [None, (0.2, 0.6)])
def test_the_loss_falls(store, tmp_path, chunk_seconds):
    trained = objective(store, chunk_seconds=chunk_seconds, dev=store)
    before = trained.evaluate()["velocity_error"]
    config = TrainConfig(steps=60, learning_rate=5e-3, evaluate_steps=60)
    result = Trainer(trained, config, tmp_path / "run").fit()
    assert result.dev["velocity_error"] < 0.7 * before
