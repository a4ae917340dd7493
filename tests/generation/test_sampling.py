"""The official sampler's draws and penalties (golden case ``sampler``)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kimi_audio.errors import ConfigError
from kimi_audio.generation.sampling import SamplingParams, StreamSampling, discard_draw, draw, penalise

GOLDEN = Path(__file__).parents[1] / "golden" / "sampler"
CASES = json.loads((GOLDEN / "config.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["case"]))
def test_golden_draws(case: dict[str, Any]) -> None:
    inputs, expected = load_file(GOLDEN / "inputs.safetensors"), load_file(GOLDEN / "expected.safetensors")
    sampling = StreamSampling(case["temperature"], case["top_k"], case["repetition_penalty"], case["window"])
    generator = torch.Generator().manual_seed(case["manual_seed"])
    history = inputs["recent"][None, : case["n_recent"]]
    for index, logits in enumerate(inputs["logits"]):
        last = logits[:, -1].clone()
        penalise(last, history, sampling)
        assert draw(last, sampling, generator).item() == expected[f"case{case['case']}.tokens"][index]
        torch.testing.assert_close(last[0], expected[f"case{case['case']}.logits_after"][index], atol=0, rtol=0)


@pytest.mark.parametrize("top_k", [0, 1, 10, 500])
def test_discarded_draw_uses_the_same_random_numbers(top_k: int) -> None:
    sampling = StreamSampling(0.8, top_k, 1.0, 16)
    drawing, discarding = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    draw(torch.randn(1, 300), sampling, drawing)
    discard_draw((1, 300), sampling, torch.device("cpu"), discarding)
    assert torch.equal(drawing.get_state(), discarding.get_state())


def test_rows_are_penalised_by_their_own_history() -> None:
    sampling = StreamSampling(0.0, 5, 2.0, 2)
    logits = torch.tensor([[4.0, 2.0, -1.0, 0.5], [4.0, 2.0, -1.0, 0.5]])
    penalise(logits, torch.tensor([[3, 0, 2], [0, 1, 1]]), sampling)
    assert logits.tolist() == [[2.0, 2.0, -2.0, 0.5], [4.0, 1.0, -1.0, 0.5]]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("text_temperature", -0.1),
        ("audio_top_k", -1),
        ("max_new_tokens", 0),
        ("text_repetition_penalty", 0.5),
        ("audio_repetition_window_size", 0),
    ],
)
def test_options_out_of_range_are_named(option: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{option} is {value}"):
        SamplingParams(**{option: value})  # type: ignore[arg-type]
