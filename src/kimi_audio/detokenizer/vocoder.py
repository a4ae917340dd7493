"""BigVGAN: log-mels in, 24 kHz samples out (SPEC §7).

    vocoder = BigVGAN(VocoderConfig.from_dict(config))
    vocoder.load_state_dict(folded(official_state))
    samples_BL = vocoder(log_mel_BTM)                       # L = hop_size · T

The convolutions of official checkpoints are weight-normed (`weight_g`, `weight_v`). Here they hold the product, which
is what inference needs; `folded` and `unfolded` convert, exactly. Other names are the official ones.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kimi_audio.audio.vocoder_mel import vocoder_log_mel
from kimi_audio.errors import CheckpointError

TAPS = 12
"""Length of the anti-aliasing filters."""

REACH = TAPS // 4
"""Frames on either side that each of the two resamplings looks at."""

BLOCK = 16
"""Frames that are resampled together: fewer reach over more often, more multiply more zeros."""

OVERLAP = 4
"""Windows of the inverse STFT that cover a sample."""

LOUDEST = 6.0
"""Log magnitude that its bins approach and never reach; a sine of full scale has less. A hard limit would be one that
training can't come back from."""

FIXED = {"resblock": "1", "activation": "snakebeta", "snake_logscale": True}
"""The one kind of generator that is known, in the words of the official `config.json`."""


@dataclass(frozen=True)
class VocoderConfig:
    """The fields of the vocoder's `config.json` that shape the generator and its mels.

    Ours alone is `istft_hop`: in place of samples the last layer makes spectra, that an inverse STFT of this hop turns
    into samples (iSTFTNet, Kaneko et al. 2022). No layer then works at the full rate, where most of the time goes.
    """

    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    upsample_initial_channel: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    num_mels: int = 80
    n_fft: int = 1024
    hop_size: int = 480
    win_size: int = 1024
    sampling_rate: int = 24000
    fmin: float = 0.0
    fmax: float | None = None
    use_tanh_at_final: bool = True
    use_bias_at_final: bool = True
    istft_hop: int = 0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "VocoderConfig":
        """Take the known fields. Raises ValueError for another kind of residual block or activation."""
        for name, accepted in FIXED.items():
            if config.get(name, accepted) != accepted:
                raise ValueError(f"{name} is {config[name]!r}; accepted is {accepted!r}")
        known = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        return cls(**{name: _tuples(value) for name, value in known.items()})

    def to_dict(self) -> dict[str, Any]:
        return {**FIXED, **asdict(self)}

    @property
    def receptive_frames(self) -> int:
        """Mel frames on either side of a frame that its samples can depend on, at most."""
        snakes = 2 * max(map(len, self.resblock_dilation_sizes)) * (TAPS // 2)
        reach, rate = 3.0, 1
        for upsampling, kernel in zip(self.upsample_rates, self.upsample_kernel_sizes, strict=True):
            reach += -(-kernel // upsampling) / rate
            rate *= upsampling
            blocks = zip(self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True)
            widest = max((size - 1) // 2 * sum(d + 1 for d in dilations) for size, dilations in blocks)
            reach += (snakes + widest) / rate
        overlapping = OVERLAP // 2 if self.istft_hop else 0
        return math.ceil(reach + (TAPS // 2 + 3 + overlapping) / rate)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def low_pass() -> Tensor:
    """The filter of both resamplings: a Kaiser-windowed sinc that cuts at half the lower rate, (1, 1, TAPS)."""
    half_width, cutoff = 0.3, 0.25
    attenuation = 2.285 * (TAPS // 2 - 1) * torch.pi * 4 * half_width + 7.95
    beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    time = torch.arange(TAPS) - TAPS // 2 + 0.5
    taps = torch.kaiser_window(TAPS, periodic=False, beta=beta) * torch.sinc(2 * cutoff * time)
    return (taps / taps.sum()).view(1, 1, TAPS)


class Snake(nn.Module):
    """x + sin²(α x) / β, with α and β in log scale, one of each a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x_BCT: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None] + 1e-9
        return x_BCT + (x_BCT * alpha).sin().square() / beta


class Filter(nn.Module):
    """A filter as checkpoints keep it."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", low_pass())


class Downsample(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lowpass = Filter()


class AntiAliasedSnake(nn.Module):
    """A snake at twice the sample rate, with a low-pass before and after.

    Both resamplings are products with a band matrix, over blocks of frames with what the filters reach on either side;
    the samples at the double rate are never interleaved: even and odd ones lie apart (polyphase). These are the sums of
    the official transposed convolution, in the shape that a CPU is fastest at.
    """

    _up: Tensor | None
    _down: Tensor | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act, self.upsample, self.downsample = Snake(channels), Filter(), Downsample()
        self.register_buffer("_up", None, persistent=False)
        self.register_buffer("_down", None, persistent=False)
        self.register_load_state_dict_post_hook(self._forget_matrices)

    def forward(self, x_BCT: Tensor) -> Tensor:
        (up, down), (batch, channels, frames) = self._matrices(), x_BCT.shape
        count = -(-frames // BLOCK)
        filled_NT = F.pad(x_BCT.reshape(-1, 1, frames), (BLOCK, (count + 1) * BLOCK - frames), mode="replicate")[:, 0]
        blocks_NKb = filled_NT.unflatten(-1, (-1, BLOCK))
        before, here, after = blocks_NKb[:, :-2, -2 * REACH :], blocks_NKb[:, 1:-1], blocks_NKb[:, 2:, : 2 * REACH]
        doubled_NKd = torch.cat([before, here, after], -1) @ up
        shaped_NKd = self.act(doubled_NKd.view(batch, channels, -1)).view_as(doubled_NKd)
        _hold_ends(shaped_NKd.unflatten(-1, (2, -1)), frames)
        return (shaped_NKd @ down).view(batch, channels, -1)[..., :frames]

    def _matrices(self) -> tuple[Tensor, Tensor]:
        """Band matrices of both resamplings: made of the filters when first needed, moved and cast as the module is."""
        if self._up is None or self._down is None:
            with torch.inference_mode(False):  # so that training may use them, too
                self._up = up_matrix(self.upsample.filter.view(-1))
                self._down = down_matrix(self.downsample.lowpass.filter.view(-1))
        return self._up, self._down

    @staticmethod
    def _forget_matrices(snake: "AntiAliasedSnake", _: Any) -> None:
        snake._up = snake._down = None


def up_matrix(taps: Tensor) -> Tensor:
    """From frames to even samples (of frames t − 3 … t + 2), then odd ones (t − 2 … t + 3)."""
    taps = 2 * taps.flip(0)
    phases_27 = torch.stack([F.pad(taps[::2], (0, 1)), F.pad(taps[1::2], (1, 0))])
    return _bands(phases_27, BLOCK + 2 * REACH).transpose(0, 1).flatten(1)


def down_matrix(taps: Tensor) -> Tensor:
    """From even samples, then odd ones, to the frames of a block."""
    phases_27 = torch.stack([F.pad(taps[1::2], (1, 0)), F.pad(taps[::2], (0, 1))])
    return _bands(phases_27, BLOCK).flatten(0, 1)


def _bands(phases_27: Tensor, count: int) -> Tensor:
    """Matrices (2, count + 6, count): the taps of a phase, in each column one row further down."""
    return torch.stack([F.pad(phases_27, (row, count - 1 - row)) for row in range(count)], -1)


def _hold_ends(samples_NKpd: Tensor, frames: int) -> None:
    """Let the samples at the double rate hold their first and last value beyond the ends, in place.

    samples_NKpd: of each block the even samples and the odd ones, with `REACH` more at each end.
    """
    first, last = samples_NKpd[:, 0], samples_NKpd[:, -1]
    first[..., :REACH] = first[:, :1, REACH : REACH + 1].clone()
    inside = frames - (samples_NKpd.shape[1] - 1) * BLOCK + REACH
    end = last[:, 1:, inside - 1 : inside].clone()
    last[..., inside:] = end
    if samples_NKpd.shape[1] > 1:
        samples_NKpd[:, -2, :, inside + BLOCK :] = end


class ResidualBlock(nn.Module):
    """Three times: snake, dilated convolution, snake, convolution, added to the input."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def convolution(dilation: int) -> nn.Conv1d:
            return nn.Conv1d(channels, channels, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)

        self.convs1 = nn.ModuleList(convolution(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(convolution(1) for _ in dilations)
        self.activations = nn.ModuleList(AntiAliasedSnake(channels) for _ in range(2 * len(dilations)))

    def forward(self, x_BCT: Tensor) -> Tensor:
        snakes = zip(self.activations[::2], self.activations[1::2], strict=True)
        for (first, second), dilated, plain in zip(snakes, self.convs1, self.convs2, strict=True):
            x_BCT = x_BCT + plain(second(dilated(first(x_BCT))))
        return x_BCT


class BigVGAN(nn.Module):
    """The generator."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.upsample_initial_channel
        self.conv_pre = nn.Conv1d(config.num_mels, channels, 7, padding=3)
        self.ups, self.resblocks = nn.ModuleList(), nn.ModuleList()
        for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
            upsample = nn.ConvTranspose1d(channels, channels // 2, kernel, rate, padding=(kernel - rate) // 2)
            self.ups.append(nn.ModuleList([upsample]))
            channels //= 2
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(ResidualBlock(channels, size, dilations))
        self.activation_post = AntiAliasedSnake(channels)
        outputs = OVERLAP * config.istft_hop + 2 if config.istft_hop else 1
        self.conv_post = nn.Conv1d(channels, outputs, 7, padding=3, bias=config.use_bias_at_final)

    def forward(self, log_mel_BTM: Tensor) -> Tensor:
        """Samples (B, hop_size · T), within ±1, of natural-log mels (B, T, num_mels) in any dtype."""
        x_BCT = self.conv_pre(log_mel_BTM.transpose(1, 2).to(self.conv_pre.weight.dtype))
        width = len(self.config.resblock_kernel_sizes)
        for level in range(len(self.ups)):
            x_BCT = self.ups.get_submodule(f"{level}.0")(x_BCT)
            blocks = self.resblocks[level * width : (level + 1) * width]
            x_BCT = torch.stack([block(x_BCT) for block in blocks]).sum(0) / width
        x_BCT = self.conv_post(self.activation_post(x_BCT))
        samples_BL = inverse_stft(x_BCT, self.config.istft_hop) if self.config.istft_hop else x_BCT[:, 0]
        return samples_BL.tanh() if self.config.use_tanh_at_final else samples_BL.clamp(-1.0, 1.0)


def log_mel(samples_BL: Tensor, config: VocoderConfig) -> Tensor:
    """The mels (B, T, M) that a vocoder of this configuration reads, of samples (B, L)."""
    return vocoder_log_mel(samples_BL, n_fft=config.n_fft, hop=config.hop_size, window=config.win_size,
                           n_mels=config.num_mels, rate=config.sampling_rate, fmin=config.fmin,
                           fmax=config.fmax)  # fmt: skip


def inverse_stft(x_BCT: Tensor, hop: int) -> Tensor:
    """Samples (B, hop · T) of log magnitudes and phases, (B, 2 · bins, T), of Hann windows `OVERLAP` hops long."""
    log_magnitude, phase = x_BCT.float().chunk(2, dim=1)
    size, steps = OVERLAP * hop, x_BCT.shape[2]
    window_W1 = torch.hann_window(size, device=x_BCT.device)[:, None]
    magnitude = (LOUDEST - F.softplus(LOUDEST - log_magnitude)).exp()
    frames_BWT = torch.fft.irfft(torch.polar(magnitude, phase), size, dim=1) * window_W1

    def overlap_added(frames_BWT: Tensor) -> Tensor:
        summed_BL = F.fold(frames_BWT, (1, (steps - 1) * hop + size), (1, size), stride=(1, hop))[:, 0, 0]
        return summed_BL[:, (size - hop) // 2 :][:, : hop * steps]

    return overlap_added(frames_BWT) / overlap_added((window_W1**2).expand(1, -1, steps)).clamp(min=1e-3)


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official generator state with weight norm multiplied out: `weight_g`, `weight_v` → `weight`.

    Raises CheckpointError for a pair that is incomplete or of other shapes.
    """
    plain = {name: tensor for name, tensor in state.items() if not name.endswith((".weight_g", ".weight_v"))}
    for name, direction in state.items():
        if name.endswith(".weight_v"):
            weight, length = name.removesuffix("_v"), state.get(name.removesuffix("_v") + "_g")
            if length is None or direction.ndim != 3 or length.shape != (len(direction), 1, 1):
                raise CheckpointError(f"vocoder: {name} and {weight}_g are no weight-normed convolution.")
            norm = direction.float().flatten(1).norm(dim=1).view(-1, 1, 1)
            plain[weight] = direction * (length / norm)
    return plain


def unfolded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state in official names: convolutions' `weight` → its norm `weight_g` and itself as `weight_v`."""
    official: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(".weight"):
            official[name + "_g"] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            official[name + "_v"] = tensor
        else:
            official[name] = tensor
    return official
