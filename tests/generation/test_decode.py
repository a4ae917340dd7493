"""The generation loop against the official one (golden case ``llm_generate``), and batches against single prompts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kimi_audio.errors import ConfigError, DataError
from kimi_audio.generation import SamplingParams, budget, collect, decode
from kimi_audio.llm.config import KimiAudioConfig
from kimi_audio.llm.model import AudioLLM
from kimi_audio.prompt import Prompt
from kimi_audio.vocab import Vocabulary

GOLDEN = Path(__file__).parents[1] / "golden" / "llm_generate"
CONFIG = json.loads((GOLDEN / "config.json").read_text())
CASES = json.loads((GOLDEN / "generate.json").read_text())
VOCAB = Vocabulary.from_config(CONFIG)


@pytest.fixture(scope="module")
def llm() -> AudioLLM:
    model = AudioLLM(KimiAudioConfig.from_dict(CONFIG))
    model.load_state_dict(load_file(GOLDEN / "weights.safetensors"))
    return model.eval()


@pytest.fixture(scope="module")
def prompt() -> Prompt:
    tensors = load_file(GOLDEN / "inputs.safetensors")
    features = [tensors[name] for name in sorted(tensors) if name.startswith("whisper_feature")]
    ids = (tensors[name][0].tolist() for name in ("audio_ids", "text_ids", "is_continuous_mask"))
    return Prompt(*ids, features=features)


@pytest.mark.parametrize("name", CASES)
def test_golden_generation(name: str, llm: AudioLLM, prompt: Prompt) -> None:
    case = CASES[name]
    arguments: dict[str, Any] = dict(case["args"])
    output_type = arguments.pop("output_type")
    params = SamplingParams(**arguments)
    generator = torch.Generator().manual_seed(case.get("seed", 0))
    steps = list(
        decode(llm, VOCAB, [prompt], [params.max_new_tokens], params, output_type=output_type, generator=generator)
    )
    assert len(steps) == case["steps"]
    assert [step.audio_ids for step in steps[:-1]] == case["fed_audio"]
    assert [step.text_ids for step in steps[:-1]] == case["fed_text"]
    assert [step.ended for step in steps] == [[]] * (len(steps) - 1) + [[0]]
    (answer,) = collect(steps, VOCAB, 1)
    assert answer.text_ids == case["return_text_tokens"]
    assert answer.audio_ids == case["return_audio_tokens"]
    assert answer.audio_codes(VOCAB) == case["filtered_audio_tokens"]


def text_prompt(text_ids: list[int]) -> Prompt:
    prompt = Prompt()
    prompt.add([VOCAB.kimia_user_msg_start], [VOCAB.text_blank])
    prompt.add([VOCAB.text_blank] * len(text_ids), text_ids)
    prompt.add([VOCAB.msg_end, VOCAB.kimia_assistant_msg_start], [VOCAB.text_blank] * 2)
    return prompt


def without_ids(llm: AudioLLM, *ids: int) -> AudioLLM:
    """A copy of the model that is unlikely to write these text ids."""
    copy = AudioLLM(llm.config).eval()
    copy.load_state_dict(llm.state_dict())
    with torch.no_grad():
        copy.lm_head.weight[list(ids)] = 0
    return copy


@pytest.mark.parametrize("output_type", ["text", "both"])
def test_batch_equals_single_prompts(output_type: Any, llm: AudioLLM, prompt: Prompt) -> None:
    # A call whose text ids are all 0 leaves out the text embedding, which a row alone does sooner than a batch.
    llm = without_ids(llm, 0)
    prompts = [prompt, text_prompt([5, 9, 200]), text_prompt(list(range(60))), prompt, text_prompt([77])]
    limits = [40, 25, 40, 3, 30]
    params = SamplingParams(text_repetition_penalty=1.5, text_repetition_window_size=4)
    single = [
        collect(decode(llm, VOCAB, [p], [limit], params, output_type=output_type), VOCAB, 1)[0]
        for p, limit in zip(prompts, limits, strict=True)
    ]
    steps = list(decode(llm, VOCAB, prompts, limits, params, output_type=output_type))
    assert collect(steps, VOCAB, len(prompts)) == single
    assert sorted(row for step in steps for row in step.ended) == list(range(len(prompts)))


def test_loops_are_broken(llm: AudioLLM, prompt: Prompt) -> None:
    """The random model begins with five ids over and over (see greedy_text)."""
    (looping,) = collect(decode(llm, VOCAB, [prompt], [18], SamplingParams()), VOCAB, 1)
    assert looping.text_ids == (looping.text_ids[:5] * 4)[:18]
    (broken,) = collect(decode(llm, VOCAB, [prompt], [18], SamplingParams(), break_loops=True), VOCAB, 1)
    assert broken.text_ids[:15] == looping.text_ids[:15]
    assert broken.text_ids[15:16] != looping.text_ids[15:16]


def test_a_row_that_goes_on_looping_is_ended(prompt: Prompt) -> None:
    """With all logits 0 the model says id 0, and id 1 where 0 is forbidden."""
    stuck = AudioLLM(KimiAudioConfig.from_dict(CONFIG)).eval()
    with torch.no_grad():
        stuck.lm_head.weight.zero_()
    steps = list(decode(stuck, VOCAB, [prompt], [500], SamplingParams(), break_loops=True))
    assert len(steps) < 200
    assert steps[-1].ended == [0]


def test_stopping_early_leaves_the_model_usable(llm: AudioLLM, prompt: Prompt) -> None:
    steps = decode(llm, VOCAB, [prompt], [40], SamplingParams())
    first = next(steps)
    steps.close()
    assert next(decode(llm, VOCAB, [prompt], [40], SamplingParams())) == first


def test_budgets() -> None:
    assert budget(100, "text") == 7400
    assert budget(100, "both") == 1400
    assert budget(9000, "both", 20) == 20
    with pytest.raises(DataError, match="1500 positions and leaves none"):
        budget(1500, "both")


def test_speech_needs_an_audio_branch(prompt: Prompt) -> None:
    mute = AudioLLM(KimiAudioConfig.from_dict(CONFIG | {"kimia_mimo_layers": 0})).eval()
    with pytest.raises(ConfigError, match="no audio branch"):
        next(decode(mute, VOCAB, [prompt], [5], SamplingParams(), output_type="both"))
