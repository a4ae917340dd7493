"""Golden cases of the audio LLM: a prefill, and single steps with the growing cache."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor

from kimi_audio.kv_cache import KVCache
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.verify.case import Case, Results

ZERO_TEXT, NO_WHISPER = "_zero_text", "_no_whisper"
"""Variants of a prompt: all text ids 0; without continuous features."""


def read_llm(case: Case) -> AudioLLM:
    """The audio LLM of a case."""
    model = AudioLLM(KimiAudioConfig.from_dict(case.config))
    case.load(model)
    return model


def features_of(case: Case, prefix: str = "") -> list[Tensor]:
    """Continuous features of a prompt, in the order of their numbers."""
    numbered = re.compile(re.escape(prefix) + r"whisper_feature_(\d+)")
    found = {int(match[1]): name for name in case.inputs if (match := numbered.fullmatch(name))}
    return [case.inputs[found[number]] for number in sorted(found)]


@torch.inference_mode()
def prefill(case: Case) -> Results:
    """Inputs to the first layer, states, logits and cache of one pass over each prompt and its variants."""
    model = read_llm(case)
    prompts = [name.removesuffix("audio_ids") for name in case.inputs if name.endswith("audio_ids")]
    for prefix in prompts:
        variants = {prefix.removesuffix("."): ()}
        if prefix:
            variants |= {prefix.removesuffix(".") + variant: (variant,) for variant in (ZERO_TEXT, NO_WHISPER)}
        for name, changes in variants.items():
            yield from _pass(model, case, prefix, f"{name}." if name else "", changes)


def _pass(model: AudioLLM, case: Case, prefix: str, name: str, changes: tuple[str, ...]) -> Results:
    text_ids = case.inputs[f"{prefix}text_ids"]
    features = features_of(case, prefix)
    x_BTD = model.embed(
        case.inputs[f"{prefix}audio_ids"],
        torch.zeros_like(text_ids) if ZERO_TEXT in changes else text_ids,
        case.inputs[f"{prefix}is_continuous_mask"],
        None if NO_WHISPER in changes or not features else features,
    )
    cache = model.new_cache()
    text_BTD, audio_BTD = model.hidden(x_BTD, cache=cache)
    results = {"inputs_embeds": x_BTD, "hidden_norm": text_BTD, "text_logits": model.lm_head(text_BTD)}
    if audio_BTD is not None:
        results |= {"mimo_hidden_norm": audio_BTD, "audio_logits": model.audio_logits(audio_BTD)}
    results |= {f"{key}_last": results[key][:, -1] for key in list(results)}
    for key, value in (*results.items(), *_cached(model, cache)):
        yield name + key, value


def _cached(model: AudioLLM, cache: KVCache) -> Iterator[tuple[str, Tensor]]:
    n_main = model.config.num_hidden_layers
    for index in range(n_main + model.config.kimia_mimo_layers):
        label = f"layer{index}" if index < n_main else f"mimo{index - n_main}"
        for kind, tensor in zip("kv", cache.layer(index), strict=True):
            yield f"cache.{label}.{kind}", tensor


@torch.inference_mode()
def decode(case: Case) -> Results:
    """Logits of teacher-forced single steps after a prefill, and the cache at the end."""
    model, cache = read_llm(case), None
    audio_ids, text_ids = case.inputs["audio_ids"], case.inputs["text_ids"]
    cache = model.new_cache(capacity=audio_ids.shape[1])
    mask, features = case.inputs["is_continuous_mask"], features_of(case)
    model(audio_ids, text_ids, continuous_mask_BT=mask, features=features or None, cache=cache)
    steps = zip(case.inputs["step_audio_ids"].split(1, 1), case.inputs["step_text_ids"].split(1, 1), strict=True)
    outputs = [model(audio_B1, text_B1, cache=cache) for audio_B1, text_B1 in steps]
    yield "text_logits", torch.cat([output.text_logits for output in outputs], 1)
    yield "audio_logits", torch.cat([output.audio_logits for output in outputs if output.audio_logits is not None], 1)
    yield from _cached(model, cache)
