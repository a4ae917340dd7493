from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.data.augment import (
    AugmentConfig,
    Augmenter,
    add_noise,
    change_speed,
    made_up_room,
    reverberate,
    rng_of,
    spec_augment,
)

TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)
NOISE = rng_of(0, "noise").standard_normal(8000).astype(np.float32)
ROOM = np.concatenate([np.zeros(50), np.exp(-np.arange(800) / 200)]).astype(np.float32)


@given(st.floats(-10, 40))
def test_noise_has_the_ratio_asked_for(snr):
    noise = np.resize(NOISE, len(TONE))
    added = add_noise(TONE, noise, snr) - TONE
    assert 10 * np.log10(np.mean(TONE**2) / np.mean(added**2)) == pytest.approx(snr, abs=0.05)


def test_a_room_keeps_length_loudness_and_time():
    clicks = np.zeros(4000, np.float32)
    clicks[1000] = 1.0
    wet = reverberate(clicks, ROOM)
    assert len(wet) == 4000 and np.argmax(np.abs(wet)) == 1000
    assert np.mean(wet**2) == pytest.approx(np.mean(clicks**2), rel=1e-3)
    assert np.abs(wet[1001:1500]).sum() > 0.1 and np.abs(wet[:1000]).max() < 1e-4


@pytest.mark.parametrize("seconds", [0.2, 0.8])
def test_a_room_that_is_made_up_fades_in_its_time(seconds):
    energy = np.square(made_up_room(seconds, rng_of(0)))
    left_db = 10 * np.log10(np.cumsum(energy[:0:-1])[::-1] / energy[1:].sum())
    assert energy[0] == 1 and energy[1:].sum() == pytest.approx(0.5, rel=1e-4)
    assert np.argmax(left_db < -30) / 16000 == pytest.approx(seconds / 2, rel=0.1)


def test_rooms_are_made_up_only_where_that_is_asked_for():
    always = AugmentConfig(noise=0.0, room=1.0, speed=(1.0, 1.0), gain_db=(0.0, 0.0))
    assert np.array_equal(Augmenter(always)(TONE, rng_of(0)), TONE)
    echoing = Augmenter(replace(always, reverberation=(0.2, 0.4)))
    assert not np.allclose(echoing(TONE, rng_of(0)), echoing(TONE, rng_of(1)), atol=1e-3)


def test_speed_changes_length_and_pitch():
    fast = change_speed(TONE, 1.1)
    assert len(fast) == pytest.approx(16000 / 1.1, abs=2)
    assert np.argmax(np.abs(np.fft.rfft(fast, 16000))) == pytest.approx(484, abs=2)


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(400, np.float32), TONE[:1], TONE])
def test_any_sound_survives_and_the_same_key_gives_the_same_sound(samples):
    augment = Augmenter(AugmentConfig(noise=1.0, room=1.0), [NOISE], [ROOM])
    one, two = (augment(samples, rng_of(3, "a.wav", 1)) for _ in range(2))
    assert one.dtype == np.float32 and np.isfinite(one).all() and np.abs(one).max(initial=0) <= 1
    assert np.array_equal(one, two)
    if len(samples) > 1000:
        assert not np.array_equal(one, augment(samples, rng_of(3, "a.wav", 2)))
        assert np.array_equal(TONE, samples)  # the original is left alone


def test_spec_augment_hides_a_little_and_leaves_the_original():
    mel = torch.randn(80, 400, generator=torch.Generator().manual_seed(0))
    before = mel.clone()
    masked = [spec_augment(mel, rng_of(n)) for n in range(20)]
    assert torch.equal(mel, before)
    shares = [float((m != mel).float().mean()) for m in masked]
    assert 0 < max(shares) < 0.4 and len(set(shares)) > 10
    assert all(float(m.min()) == float(mel.min()) for m in masked)
    assert spec_augment(mel[:, :3], rng_of(1)).shape == (80, 3)
