"""The vocoder: the polyphase snake is the plain one, weight norm folds and unfolds. Figures: the golden cases."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from detokenizer.small import VOCODER, make_vocoder
from hypothesis import given
from hypothesis import strategies as st

from kimi_audio.detokenizer.vocoder import (
    LOUDEST,
    OVERLAP,
    AntiAliasedSnake,
    BigVGAN,
    VocoderConfig,
    folded,
    inverse_stft,
    unfolded,
)


def plain_snake(snake: AntiAliasedSnake, x_BCT: torch.Tensor) -> torch.Tensor:
    """As BigVGAN's paper has it: zeros between the samples, low-pass, snake, low-pass, every second sample."""
    channels = x_BCT.shape[1]
    up = snake.upsample.filter.expand(channels, -1, -1)
    down = snake.downsample.lowpass.filter.expand(channels, -1, -1)
    doubled = 2 * F.conv_transpose1d(F.pad(x_BCT, (5, 5), mode="replicate"), up, stride=2, groups=channels)[..., 15:-15]
    return F.conv1d(F.pad(snake.act(doubled), (5, 6), mode="replicate"), down, stride=2, groups=channels)


@given(batch=st.integers(1, 2), channels=st.integers(1, 4), frames=st.integers(1, 40), seed=st.integers(0, 99))
def test_polyphase_snake_is_the_plain_one(batch, channels, frames, seed):
    torch.manual_seed(seed)
    snake = AntiAliasedSnake(channels)
    snake.act.alpha.data.normal_()
    snake.act.beta.data.normal_()
    snake.upsample.filter.normal_()  # no symmetry to hide behind
    snake.downsample.lowpass.filter.normal_()
    x_BCT = torch.randn(batch, channels, frames)
    torch.testing.assert_close(snake(x_BCT), plain_snake(snake, x_BCT), atol=1e-4, rtol=1e-4)


def test_matrices_of_the_filters_are_made_once_and_follow_them():
    """Other filters loaded, another dtype: no result is of the old ones, and none of the matrices is stored."""
    torch.manual_seed(0)
    snake, x_BCT = AntiAliasedSnake(3).eval(), torch.randn(2, 3, 37)
    with torch.inference_mode():
        first = snake(x_BCT)
    up, down = snake._matrices()
    assert snake._matrices() == (up, down) and torch.equal(snake(x_BCT), first)
    x_BCT.requires_grad_()
    snake(x_BCT).sum().backward()  # made without a gradient in sight, of use with one
    assert x_BCT.grad is not None

    other = {name: torch.randn_like(tensor) for name, tensor in snake.state_dict().items()}
    assert set(other) == {"act.alpha", "act.beta", "upsample.filter", "downsample.lowpass.filter"}
    snake.load_state_dict(other)
    x_BCT = x_BCT.detach()
    torch.testing.assert_close(snake(x_BCT), plain_snake(snake, x_BCT), atol=1e-4, rtol=1e-4)
    snake.double()
    torch.testing.assert_close(snake(x_BCT.double()), plain_snake(snake, x_BCT.double()), atol=1e-6, rtol=1e-6)


def test_a_hop_of_samples_for_every_frame():
    with torch.inference_mode():
        samples_BL = make_vocoder()(torch.randn(2, 11, 8))
    assert samples_BL.shape == (2, 11 * VOCODER.hop_size)
    assert samples_BL.abs().max() <= 1


@given(hop=st.integers(2, 40), frames=st.integers(8, 20), seed=st.integers(0, 99))
def test_an_inverse_stft_gives_back_the_sound_of_its_spectra(hop, frames, seed):
    """Spectra of windows centred on each hop, of a sound that is silent at both ends."""
    torch.manual_seed(seed)
    sound_L, size = torch.zeros(hop * frames), OVERLAP * hop
    sound_L[2 * hop : -2 * hop] = torch.rand(hop * (frames - 4)) - 0.5
    around = F.pad(sound_L, ((size - hop) // 2, size - hop - (size - hop) // 2))
    spectra_FT = torch.stft(around, size, hop, window=torch.hann_window(size), center=False, return_complex=True)
    wanted = spectra_FT.abs().clamp(min=1e-9).log()
    before_the_limit = LOUDEST - (LOUDEST - wanted).expm1().log()
    x_1CT = torch.cat([before_the_limit, spectra_FT.angle()])[None]
    torch.testing.assert_close(inverse_stft(x_1CT, hop)[0], sound_L, atol=1e-4, rtol=1e-3)


def test_a_vocoder_with_an_inverse_stft_sees_no_farther_than_it_says():
    config = replace(VOCODER, upsample_rates=(2, 2), upsample_kernel_sizes=(4, 4), hop_size=8, istft_hop=2)
    torch.manual_seed(0)
    vocoder, frames = BigVGAN(config).eval(), 2 * config.receptive_frames + 9
    mel_1TM = torch.randn(1, frames, config.num_mels)
    changed_1TM = mel_1TM.clone()
    changed_1TM[:, 0] += 1
    with torch.inference_mode():
        before, after = (vocoder(mel)[0].unflatten(0, (frames, -1)) for mel in (mel_1TM, changed_1TM))
    different_T = (before != after).any(1)
    assert different_T[0] and not different_T[config.receptive_frames + 1 :].any()
    assert VocoderConfig.from_dict(config.to_dict()) == config


def test_weight_norm_folds_and_unfolds():
    convolution = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(3, 5, 7))
    convolution.parametrizations.weight.original0.data.uniform_(0.5, 2)
    official = {
        "c.weight_g": convolution.parametrizations.weight.original0,
        "c.weight_v": convolution.parametrizations.weight.original1,
        "c.bias": convolution.bias,
    }
    plain = folded(official)
    assert plain.keys() == {"c.weight", "c.bias"}
    torch.testing.assert_close(plain["c.weight"], convolution.weight)
    torch.testing.assert_close(folded(unfolded(plain))["c.weight"], plain["c.weight"])


def test_configuration_comes_back_and_unknown_kinds_are_named():
    assert VocoderConfig.from_dict(VOCODER.to_dict()) == VOCODER
    with pytest.raises(ValueError, match="activation is 'snake'; accepted is 'snakebeta'"):
        VocoderConfig.from_dict(VOCODER.to_dict() | {"activation": "snake"})
