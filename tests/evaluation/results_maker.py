"""A small but varied folder of results: three models, speech, labels and spoken answers, failures and lost sounds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.evaluate import score
from kimi_audio.evaluation.samples import ItemScore, Metric, Output, Prediction, Sample
from kimi_audio.evaluation.store import PredictionLog, model_folder, write_result, write_wav

MODELS = {"tiny": "3fa9c2d1", "whisper-base": "77b0e4aa", "talker <b>2</b>": "0c19d8ef"}
LABELS = ("dog bark", "rain", "siren", "speech", "door knock", "clock tick")
WORDS = """the old house by river stood empty for years until a young painter from south bought it and filled every
room with light music colour""".split()  # noqa: SIM905
OPERATIONS = {"equal": "equal", "replace": "substitute", "delete": "delete", "insert": "insert"}


class WordErrors:
    """Word errors by the differ of the standard library, with the alignment that the page colours."""

    name, unit, lower_is_better = "word_error_rate", "%", True

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        ours, theirs = (re.findall(r"[\w']+", text.lower()) for text in (sample.reference, prediction.text))
        steps = SequenceMatcher(a=ours, b=theirs, autojunk=False).get_opcodes()
        alignment = [[OPERATIONS[kind], ours[a:b], theirs[c:d]] for kind, a, b, c, d in steps]
        errors = sum(max(b - a, d - c) for kind, a, b, c, d in steps if kind != "equal")
        detail = {"reference": " ".join(ours), "hypothesis": " ".join(theirs), "alignment": alignment}
        return ItemScore(sample.id, errors, len(ours), detail)


class Accuracy:
    """Right if the answer names the label and no other."""

    name, unit, lower_is_better = "label_accuracy", "%", False

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        named = [label for label in LABELS if label in prediction.text]
        predicted = named[0] if len(named) == 1 else None
        detail = {"expected": sample.reference, "predicted": predicted}
        return ItemScore(sample.id, float(predicted == sample.reference), 1.0, detail)


class Length:
    """A figure from 1 to 5 with a reason, as a judge gives it."""

    name, unit, lower_is_better = "judged", "1-5", False

    def score(self, sample: Sample, prediction: Prediction) -> ItemScore:
        figure = min(5, 1 + len(prediction.text.split()) // 3)
        return ItemScore(sample.id, figure, 1.0, {"reason": f"It has the length of a {figure}."})


def make_results(results: Path, items: int = 36) -> Path:
    """Write the folder and return it."""
    rng = np.random.default_rng(4)
    sounds = results.parent / "heard"
    sounds.mkdir(parents=True, exist_ok=True)

    sentences = [" ".join(rng.choice(WORDS, rng.integers(4, 14))) for _ in range(items)]
    read = Benchmark(name="read", title="Read sentences", kind="recognition", folder="read", metric="word_error_rate",
                     normaliser="whisper-english")  # fmt: skip
    questions = [_sample(sounds, f"read/{i:04}", text, None, i) for i, text in enumerate(sentences)]
    questions[3].audios[0].unlink()
    faults = {"tiny": ["read/manifest.jsonl:40: the sound file read/0040.wav does not exist"]}
    for (model, rate), fails in zip({"tiny": 0.12, "whisper-base": 0.02, "talker <b>2</b>": 0.14}.items(), (2, 0, 0)):  # noqa: B905
        answers = {q.id: _garbled(rng, q.reference, rate) for q in questions}
        _write(results, model, read, WordErrors(), questions, answers, fails, faults=faults.get(model, []))

    sorted_ = Benchmark(name="sounds", title="Everyday sounds", kind="classification", folder="sounds",
                        metric="label_accuracy", instruction="Which sound is this? Name one of: dog bark, rain, siren, "
                        "speech, door knock, clock tick.", sampling={"temperature": 0.0})  # fmt: skip
    labelled = [_sample(sounds, f"sounds/{i:04}", LABELS[i % 6], sorted_.instruction, i) for i in range(items)]
    for model, rate in {"tiny": 0.25, "talker <b>2</b>": 0.35}.items():
        answers = {
            q.id: f"I hear {rng.choice(LABELS) if rng.random() < rate else q.reference}." for q in labelled[:-2]
        } | {q.id: "I can't tell." for q in labelled[-2:]}
        _write(results, model, sorted_, Accuracy(), labelled, answers, fails=1)

    chat = Benchmark(name="chat", title="Spoken answers", kind="speech", folder="chat", metric="judged", speaks=True,
                     judge="open-answer")  # fmt: skip
    asked = [Sample(f"chat-{i}", (), f"Tell me about {WORDS[i]}.", "") for i in range(8)]
    answers = {sample.id: " ".join(rng.choice(WORDS, rng.integers(2, 12))) for sample in asked}
    _write(results, "talker <b>2</b>", chat, Length(), asked, answers, fails=1, voice=_tone)
    return results


def data_of(page: Path) -> dict[str, Any]:
    """What a written page holds for its script."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def benchmark_of(data: dict[str, Any], title: str) -> dict[str, Any]:
    return next(each for each in data["benchmarks"] if each["title"] == title)


def _sample(sounds: Path, name: str, reference: str, instruction: str | None, number: int) -> Sample:
    path = sounds / f"{name.replace('/', '-')}.wav"
    seconds = 0.6 + 0.1 * (number % 7)
    write_wav(path, _tone(seconds, 200 + 20 * number), 16_000)
    return Sample(name, (path,), instruction, reference, seconds)


def _tone(seconds: float, pitch: float = 220.0, rate: int = 16_000) -> np.ndarray:
    return 0.2 * np.sin(2 * np.pi * pitch * np.arange(int(seconds * rate)) / rate)


def _garbled(rng: np.random.Generator, text: str, rate: float) -> str:
    said = []
    for word in text.split():
        fate = rng.random() / rate
        said += [word] if fate >= 1 else [] if fate < 0.3 else [word, "um"] if fate < 0.5 else [f"{word[:2]}er"]
    return " ".join(said).capitalize() + "."


def _write(
    results: Path, model: str, benchmark: Benchmark, metric: Metric, samples: list[Sample], answers: Mapping[str, str],
    fails: int, voice: Callable[[float], np.ndarray] | None = None, faults: list[str] | None = None,
) -> None:  # fmt: skip
    """Answers are kept and scored as an evaluation does it; the last `fails` are errors."""
    log = PredictionLog(model_folder(results, model, MODELS[model]) / benchmark.name)
    rng = np.random.default_rng(len(model))
    for number, sample in enumerate(samples):
        took = float(0.05 * len(model) * rng.lognormal(0, 0.4))
        if number >= len(samples) - fails:
            log.add(sample, Output("", error="RuntimeError: out of memory", took=took))
        elif voice is not None:
            log.add(sample, Output(answers[sample.id], voice(0.5), 16_000, took=took, first_sound=took / 4))
        else:
            log.add(sample, Output(answers[sample.id], took=took))
    result, items = score(benchmark, metric, samples, log.known, model=model, fingerprint=MODELS[model],
                          faults=faults or [])  # fmt: skip
    write_result(log.folder, result, items)
