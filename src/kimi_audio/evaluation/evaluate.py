"""Ask, then score: the two steps of an evaluation, each of which can be run alone and again.

    predictions = predict(adapter, benchmark, samples, PredictionLog(folder))
    result, items = score(benchmark, metric, samples, predictions, ...)

A model that fails on a sample gets an error for it and goes on with the next; an error counts as a wrong answer.
"""

from __future__ import annotations

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
from kimi_audio.evaluation.store import Item, PredictionLog, Result

LIBRARIES = ("kimi-audio", "torch", "numpy", "transformers", "faster-whisper", "jiwer", "whisper-normalizer", "wetext",
             "sacrebleu", "cn2an", "langdetect", "speechmos", "onnxruntime")  # fmt: skip
"""Those that a figure may depend on."""


class Adapter(Protocol):
    """A model under test.

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
            message = str(error) if isinstance(error, KimiAudioError) else f"{type(error).__name__}: {error}"
            output = Output("", error=" ".join(message.split())[:500])
        took = output.took or time.perf_counter() - started
        kept = Output(output.text, output.audio, output.rate, output.error, took, output.first_sound)
        yield log.add(sample, kept)


def score(
    benchmark: Benchmark,
    metric: Metric,
    samples: Sequence[Sample],
    predictions: Mapping[str, Prediction],
    *,
    model: str,
    fingerprint: str,
    faults: Sequence[str] = (),
    seed: int = 0,
    tools: Mapping[str, Any] | None = None,
) -> tuple[Result, list[Item]]:
    """The figure of a model on a benchmark, and every item; samples without a prediction are left out.

    `tools` says what the figure depends on besides the benchmark: the judge, the recogniser.
    """
    items = []
    for sample in samples:
        if (prediction := predictions.get(sample.id)) is None:
            continue
        error = prediction.error
        try:
            scored = metric.score(sample, prediction)
        except KimiAudioError as fault:  # nothing to measure, or a judge that fails: among the failures, in no figure
            scored, error = ItemScore(sample.id, 0.0, 0.0), error or str(fault)
        items.append(
            Item(
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
        )
    scores = [item.score for item in items]
    low, high = interval(scores, seed)
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
        recipe=benchmark.recipe() | dict(tools or {}),
        seed=seed,
        versions=versions(),
        machine=machine(),
        took=sum(item.took for item in items),
        seconds=sum(item.seconds for item in items),
        first_sound=firsts[len(firsts) // 2] if firsts else None,
    )
    return result, items


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
