"""Ask, then score: the two steps of an evaluation, each of which can be run alone and again.

    predictions = predict(adapter, benchmark, samples, PredictionLog(folder))
    result, items = score(benchmark, metric, samples, predictions, ...)

A model that fails on a sample gets an error for it and goes on with the next; an error counts as a wrong answer.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from kimi_audio.errors import KimiAudioError
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.samples import ItemScore, Metric, Output, Prediction, Sample
from kimi_audio.evaluation.statistics import figure, interval
from kimi_audio.evaluation.store import Asked, Item, PredictionLog, Result

LIBRARIES = ("kimi-audio", "torch", "numpy", "transformers", "faster-whisper", "jiwer", "whisper-normalizer", "wetext",
             "sacrebleu", "cn2an", "langdetect", "speechmos", "onnxruntime")  # fmt: skip
"""Those that a figure may depend on."""


class Adapter(Protocol):
    """A model under test.

    If it has a method `recipe(benchmark)`, results carry what that returns: a dict of all that its answers depend on
    besides the benchmark, such as its own instruction or the defaults of its sampling.

    Attributes:
        name: for tables and folders.
        fingerprint: changes with the weights, or names the version of what is behind an endpoint.
        takes_instructions: False for recognisers, which can only transcribe.
        speaks: whether answers have sound.
    """

    name: str
    fingerprint: str
    takes_instructions: bool
    speaks: bool

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        """Answer one sample. Whatever is raised counts as an error of the model on this sample."""
        ...


def can_do(adapter: Adapter, benchmark: Benchmark) -> bool:
    """Whether a model can be asked this at all."""
    asks = benchmark.instruction is not None or benchmark.instruction_field is not None
    return (adapter.takes_instructions or not asks) and (adapter.speaks or not benchmark.speaks)


def asking(adapter: Adapter, benchmark: Benchmark, seed: int = 0) -> Asked:
    """How a model would be asked here and now."""
    added: Any = getattr(adapter, "recipe", None)
    recipe = benchmark.asking() | ({"adapter": added(benchmark)} if added else {})
    return Asked(json.loads(json.dumps(recipe, default=str)), seed, versions(), machine())  # as it will be read back


def predict(
    adapter: Adapter, benchmark: Benchmark, samples: Sequence[Sample], log: PredictionLog
) -> Iterator[Prediction]:
    """The answers to all samples, in order; those already in `log` are not asked for again."""
    for sample in samples:
        if sample.id in log.known:
            yield log.known[sample.id]
            continue
        started = time.perf_counter()
        try:
            output = adapter.generate(sample, benchmark)
        except Exception as error:  # whatever another's model raises: told, counted, and the rest goes on
            output = Output("", error=told(error))
        took = output.took or time.perf_counter() - started
        kept = Output(output.text, output.audio, output.rate, output.error, took, output.first_sound)
        yield log.add(sample, kept)


def told(error: Exception) -> str:
    """An error in one line of at most 500 characters; an unexpected one with its type."""
    message = str(error) if isinstance(error, KimiAudioError) else f"{type(error).__name__}: {error}"
    return " ".join(message.split())[:500]


def score(
    benchmark: Benchmark,
    metric: Metric,
    samples: Sequence[Sample],
    predictions: Mapping[str, Prediction],
    *,
    model: str,
    fingerprint: str,
    faults: Sequence[str] = (),
    asked: Asked | None = None,
    tools: Mapping[str, Any] | None = None,
) -> tuple[Result, list[Item]]:
    """The figure of a model on a benchmark, and every item; samples without a prediction are counted, and in no figure.

    `asked` says how the answers were asked for: as one would ask now, if not given; `tools` what the figure depends on
    besides the benchmark: the judge, the recogniser.
    """
    asked = asked or Asked(benchmark.asking(), 0, versions(), machine())
    answered = [(sample, predictions[sample.id]) for sample in samples if sample.id in predictions]
    items = [_scored(metric, sample, prediction) for sample, prediction in answered]
    scores = [item.score for item in items]
    low, high = interval(scores, asked.seed)
    firsts = sorted(item.first_sound for item in items if item.first_sound is not None)
    result = Result(
        benchmark=benchmark.name,
        title=benchmark.title,
        kind=benchmark.kind,
        unit=metric.unit,
        lower_is_better=metric.lower_is_better,
        model=model,
        fingerprint=fingerprint,
        value=figure(scores),
        low=low,
        high=high,
        items=len(items),
        failed=sum(item.error is not None for item in items),
        faults=list(faults),
        recipe=benchmark.recipe() | dict(tools or {}) | asked.recipe,
        seed=asked.seed,
        versions=asked.versions,
        machine=asked.machine,
        took=sum(item.took for item in items),
        seconds=sum(item.seconds for item in items),
        first_sound=firsts[len(firsts) // 2] if firsts else None,
        unanswered=len(samples) - len(items),
        scored_with=dict(sorted(versions().items() - asked.versions.items())),
    )
    return result, items


def _scored(metric: Metric, sample: Sample, prediction: Prediction) -> Item:
    error = prediction.error
    try:
        scored = metric.score(sample, prediction)
    except Exception as fault:  # nothing to measure, or a judge that fails: among the failures, in no figure
        scored, error = ItemScore(sample.id, 0.0, 0.0), error or told(fault)
    return Item(
        scored,
        prediction.text,
        sample.all_sounds(),
        sample.instruction,
        str(prediction.audio) if prediction.audio else None,
        error,
        prediction.took,
        prediction.first_sound,
        sample.seconds,
    )


def versions() -> dict[str, str]:
    """Of Python and `LIBRARIES`, as far as they are there."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Where this runs, as far as times depend on it."""
    return {"processor": processor(), "cores": os.cpu_count(), "system": platform.system()}


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
