"""Each mode of the benchmark of speech runs, and writes what it promises. How quick things are is not tested."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_model
import torch

from kimi_audio.detokenizer.flow import FlowConfig, euler, solve

ROOT = Path(__file__).parents[2]
QUESTION = str(ROOT / "examples" / "kathleen.flac")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    generation = {"audio_temperature": 1.0, "audio_top_k": 12, "max_new_tokens": 40,
                  "speech": {"chunk_codes": 6, "look_ahead_codes": 2, "steps": 2, "guidance": 2.0}}  # fmt: skip
    tiny_model.tiny_model(generation_config=generation, speaks=True).save(folder)
    return str(folder)


@pytest.fixture
def speech(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark, with models of no size."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import speech

    small = FlowConfig(8, speech.CODES, hidden_size=16, depth=2, num_heads=2, mel_mean=-4.0, mel_std=3.0)
    monkeypatch.setattr(speech, "FLOW", small)
    monkeypatch.setattr(speech, "VOCODER", tiny_model.VOCODER)
    return speech


@pytest.fixture
def run(speech: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    def rows(*arguments: str) -> list[dict[str, Any]]:
        output = tmp_path / "results.jsonl"
        options = ["--rounds", "1", "--threads", "1", "-o", str(output)]
        monkeypatch.setattr("sys.argv", ["speech.py", *arguments, *options])
        speech.main()
        printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        stored = [json.loads(line) for line in output.read_text().splitlines()]
        assert printed == [{name: row[name] for name in row if name != "machine"} for row in stored]
        assert all(row["machine"]["cpu"] and row["device"] == "cpu" and row["threads"] == 1 for row in stored)
        return printed

    return rows


@pytest.mark.parametrize("of_a_model", [False, True])
def test_fewer_steps_stand_beside_the_official_ones(
    of_a_model: bool, model: str, run: Any, speech: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Official(SimpleNamespace):
        def __call__(self, codes: list[int]) -> None:
            assert len(codes) > 10

    asked: list[dict] = []

    def load_official(checkout: Path, folder: Path, **settings: int) -> Official:
        asked.append(settings)
        assert all((folder / name / "model.pt").exists() for name in ("audio_detokenizer", "vocoder"))
        return Official(vocode=lambda mel: None, chunk=lambda noise, codes: None)

    monkeypatch.setattr(speech, "load_official", load_official)
    which = ["--recording", QUESTION, "--model", model] if of_a_model else ["--seconds", "4"]
    rows = {(row["part"], row["system"]): row for row in run("--official", "checkout", *which)}
    assert asked == [{"look_ahead": 12, "chunk": 30, "steps": 29}]
    assert {part for part, system in rows if system == "official"} == {"stream", "vocoder", "flow"}
    assert all("ratio_to_official" in row for (_, system), row in rows.items() if system != "official")
    for steps in speech.FEWER_STEPS:
        for part in (("stream", f"ours, overlap, {steps} steps"), ("flow", f"ours, {steps} steps")):
            assert rows[part]["mel_distance_to_29_steps"] > 0
    with pytest.raises(SystemExit):
        run("--official", "checkout", "--device", "cuda")


def test_choices_are_measured_on_many_recordings(model: str, run: Any, speech: Any) -> None:
    rows = run("--choices", QUESTION, QUESTION, "--model", model)
    assert [speech.Choice(*(row[name] for name in speech.Choice._fields)) for row in rows] == speech.CHOICES
    assert {(row["recordings"], row["guidance"]) for row in rows} == {(2, 2.0)}
    for row in rows:
        assert row["rtf"] > 0 and row["mel_distance_to_whole"] > 0 and row["first_sound_seconds"] > 0
        assert row["codes_until_first_sound"] >= (row["first_chunk"] or row["chunk"]) + 1
    assert {(30, 12, 29, None), (24, 6, 8, None)} <= set(speech.CHOICES)
    assert any(choice.first_chunk for choice in speech.CHOICES)


def test_the_whole_is_made_with_the_guidance_of_the_stream(speech: Any) -> None:
    """All codes in one chunk, from the same noise: then nothing is left between the two."""
    tiny = tiny_model.tiny_detokenizer()
    config = speech.StreamConfig(40, None, 0, schedule=euler(speech.STEPS), guidance=2.0)
    detokenizer = speech.Detokenizer(tiny.flow, tiny.vocoder, config)
    codes, noise_TM = list(range(30)), torch.randn(120, 8)
    whole_TM = speech.said_at_once(detokenizer, codes, noise_TM)
    streamed_L = detokenizer(codes, speech.Noise(noise_TM, 0))
    assert torch.allclose(speech.mel_of(detokenizer, streamed_L), whole_TM, atol=1e-3)
    plain_1TM = solve(tiny.flow, noise_TM[None], torch.tensor([codes]), euler(speech.STEPS))
    assert not torch.allclose(tiny.vocoder(plain_1TM * 3.0 - 4.0)[0], streamed_L, atol=1e-3)


def test_conversations_are_timed_to_their_first_sound(model: str, run: Any) -> None:
    (row,) = run("--conversation", QUESTION, QUESTION, "--model", model)
    assert (row["questions"], row["answers_without_sound"]) == (2, 0)
    assert 0 < row["first_text_seconds"] < row["first_sound_seconds"] <= row["slowest_first_sound_seconds"]
    assert row["prompt_seconds"] > 0 and row["rtf"] > 0 and row["speech_seconds"] > 0
