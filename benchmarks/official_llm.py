"""The official language model and its generation loop on a CPU, from a checkout of the official code.

    generate = load_official(Path("Kimi-Audio-Training"), config, state_dict, vocab, torch.float32)
    text_ids = generate(prompt, steps)

The checkout needs `kimia_infer/` and `finetune_codes/` (the modelling file is in the fine-tuning repository only). The
code runs as it is; what it needs of a GPU machine is stood in for: flash-attn by PyTorch's attention, the current CUDA
device by the CPU, and the parts that only speech needs by nothing.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.prompt import Prompt
from kimi_audio.vocab import AUDIO_DELAY, Vocabulary


def flash_attn_func(
    q: Tensor, k: Tensor, v: Tensor, dropout: float, softmax_scale: float | None, causal: bool
) -> Tensor:
    """PyTorch's attention in flash-attn's layout (B, T, heads, d), causal as seen from the last key."""
    q, k, v = (x.transpose(1, 2).float() if x.dtype == torch.float16 else x.transpose(1, 2) for x in (q, k, v))
    out = F.scaled_dot_product_attention(
        q, k, v, is_causal=causal and q.shape[2] > 1, scale=softmax_scale, enable_gqa=True
    )
    return out.transpose(1, 2)


def load_official(
    checkout: Path, config: KimiAudioConfig, state: Mapping[str, Tensor], vocab: Vocabulary, dtype: torch.dtype
) -> Callable[[Prompt, int, str], list[int]]:
    """The official model with our weights; a call decodes so many steps and returns the text ids."""
    _stand_in_for_gpu_parts()
    if str(checkout) not in sys.path:
        sys.path.insert(0, str(checkout))
    modelling = import_module("finetune_codes.modeling_kimia")
    api = import_module("kimia_infer.api.kimia")
    vars(api)["tqdm"] = SimpleNamespace(tqdm=lambda steps, **_: steps)

    official_config = modelling.KimiAudioConfig(**config.to_dict())
    official_config.rope_theta = config.rope_theta
    model = modelling.MoonshotKimiaForCausalLM(official_config)
    model.load_state_dict(dict(state))
    loop = object.__new__(api.KimiAudio)
    loop.alm = model.to(dtype).eval()
    loop.kimia_text_audiodelaytokens = AUDIO_DELAY
    loop.extra_tokens = SimpleNamespace(kimia_text_blank=vocab.text_blank, kimia_text_eos=vocab.text_eos)
    loop.eod_ids = [vocab.msg_end, vocab.media_end]

    def generate(prompt: Prompt, steps: int, output_type: str) -> list[int]:
        _, text_ids = loop._generate_loop(
            torch.tensor([prompt.audio_ids]),
            torch.tensor([prompt.text_ids]),
            max_new_tokens=steps,
            is_continuous_mask=torch.tensor([prompt.continuous_mask]),
            continous_feature=[feature.to(dtype) for feature in prompt.features],
            output_type=output_type,
        )
        return text_ids

    return generate


def _stand_in_for_gpu_parts() -> None:
    """Put modules in place of those that need a GPU or that only speech needs, and the CPU in place of the GPU."""

    def module(name: str, **content: Any) -> None:
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(content)

    from transformers.models.qwen2 import modeling_qwen2

    module("flash_attn", flash_attn_func=flash_attn_func, flash_attn_varlen_func=None)
    module("flash_attn.bert_padding", index_first_axis=None, pad_input=None, unpad_input=None)
    module("loguru", logger=SimpleNamespace(info=print))
    module("kimia_infer.models.detokenizer", get_audio_detokenizer=None)
    module("kimia_infer.api.prompt_manager", KimiAPromptManager=None)
    vars(import_module("transformers.utils"))["is_flash_attn_2_available"] = lambda: True
    torch.cuda.current_device = lambda: "cpu"  # type: ignore[assignment]
    rotate = modeling_qwen2.apply_rotary_pos_emb
    if rotate.__module__ == modeling_qwen2.__name__:  # later versions no longer take the unused position ids
        modeling_qwen2.apply_rotary_pos_emb = lambda q, k, cos, sin, position_ids: rotate(q, k, cos, sin)
