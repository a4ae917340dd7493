"""The official detokenizer on a CPU, from a checkout of the official code.

    official = load_official(Path("Kimi-Audio"), model_folder, look_ahead=12)
    samples_L = official(codes)

The code runs as it is; what it needs of a GPU is stood in for: flash-attn by PyTorch's attention, the compiled kernel
for anti-aliased activations by the official module without it, timm's and torchdyn's parts by the few lines that are
used of them. The bfloat16 that it sets everywhere is set to float32
afterwards, so that both systems compute in one dtype.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FRAMES_PER_CODE = 4


def flash_attn_varlen_func(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
    """PyTorch's attention in flash-attn's layout (tokens, heads, d), for a batch of one."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)


class Mlp(nn.Module):
    """The perceptron that the official code takes from timm."""

    def __init__(self, in_features: int, hidden_features: int, act_layer: Callable[[], nn.Module], drop: float) -> None:
        super().__init__()
        self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
        self.fc2 = nn.Linear(hidden_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class NeuralODE:
    """The Euler solver that the official code takes from torchdyn."""

    def __init__(self, velocity: Callable[[Tensor, Tensor], Tensor], **_: Any) -> None:
        self.velocity = velocity

    def __call__(self, x: Tensor, times: Tensor) -> tuple[Tensor, list[Tensor]]:
        for start, end in pairwise(times):
            x = x + (end - start) * self.velocity(start, x)
        return times, [x]


class Official:
    """The official detokenizer fed in chunks."""

    def __init__(self, detokenizer: Any, chunk: int, steps: int) -> None:
        self.detokenizer, self.chunk_codes, self.steps = detokenizer, chunk, steps

    def __call__(self, codes: list[int]) -> Tensor:
        """Samples (L,), by the official stream."""
        self.detokenizer.clear_states()
        parts = []
        for first in range(0, len(codes), self.chunk_codes):
            piece = torch.tensor(codes[first : first + self.chunk_codes])[None]
            parts.append(self.detokenizer.detokenize_streaming(
                piece, ode_step=self.steps + 1, is_final=first + self.chunk_codes >= len(codes),
                upsample_factor=FRAMES_PER_CODE,
            ))  # fmt: skip
        return torch.cat(parts, -1)[0]

    def chunk(self, noise_TM: Tensor, codes_N: Tensor) -> Tensor:
        """The mel of one chunk."""
        self.detokenizer.clear_states()
        flow = self.detokenizer.semantic_fm
        frames = codes_N.repeat_interleave(FRAMES_PER_CODE)
        return flow.infer_chunk(noise_TM, frames, start_position_id=0, cache={}, ode_steps=self.steps + 1)

    def vocode(self, mel_TM: Tensor) -> Tensor:
        return self.detokenizer.vocoder.decode_mel(mel_TM)[0]


def load_official(checkout: Path, folder: Path, *, look_ahead: int, chunk: int, steps: int) -> Official:
    """The official detokenizer with the `.pt` files of a model folder, in float32."""
    _stand_in_for_gpu_parts()
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    activations = "kimia_infer.models.detokenizer.vocoder.alias_free_activation"
    plain = import_module(f"{activations}.torch.act").Activation1d
    sys.modules[f"{activations}.cuda.activation1d"] = ModuleType("activation1d")
    vars(sys.modules[f"{activations}.cuda.activation1d"])["Activation1d"] = plain
    module = import_module("kimia_infer.models.detokenizer")
    detokenizer = module.PrefixStreamingFlowMatchingDetokenizer.from_pretrained(
        vocoder_config=str(folder / "vocoder" / "config.json"),
        vocoder_ckpt=str(folder / "vocoder" / "model.pt"),
        fm_config=str(folder / "audio_detokenizer" / "config.yaml"),
        fm_ckpt=str(folder / "audio_detokenizer" / "model.pt"),
        device=torch.device("cpu"),
        max_prompt_chunk=10,
        use_cfg=False,
        look_ahead_tokens=look_ahead,
    )
    detokenizer.dtype = detokenizer.semantic_fm.dtype = torch.float32
    detokenizer.vocoder.to_dtype(torch.float32)
    detokenizer.semantic_fm.speech_model.float()
    return Official(detokenizer, chunk, steps)


def _stand_in_for_gpu_parts() -> None:
    def module(name: str, **content: Any) -> None:
        if name not in sys.modules:
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update(content)

    sys.modules.pop("kimia_infer.models.detokenizer", None)  # another benchmark's stand-in
    module("flash_attn", flash_attn_varlen_func=flash_attn_varlen_func, flash_attn_varlen_qkvpacked_func=None)
    module("torchdyn")
    module("torchdyn.core", NeuralODE=NeuralODE)
    module("timm")
    module("timm.models")
    module("timm.models.vision_transformer", Mlp=Mlp)
    module("librosa", filters=SimpleNamespace(mel=_slaney), util=SimpleNamespace(normalize=None))
    module("librosa.util", normalize=None)
    module("librosa.filters", mel=_slaney)


def _slaney(*, sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> Any:
    from kimi_audio.audio.log_mel import mel_filters

    return mel_filters(n_mels, n_fft, sr, fmin, fmax).numpy()
