"""One evaluation: which data, which judge, where results go; asks, scores and keeps.

    session = Session(Path("data"), Path("results"))
    result = session.evaluate(session.adapter("tiny"), benchmark)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kimi_audio.errors import ConfigError
from kimi_audio.evaluation.adapters import make_adapter
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.evaluate import Adapter, can_do, predict, score
from kimi_audio.evaluation.judges import make_judge
from kimi_audio.evaluation.samples import Metric, Sample
from kimi_audio.evaluation.scoring import Judge, make_metric
from kimi_audio.evaluation.speech_metrics import SPEECH_METRICS, SpeechTools
from kimi_audio.evaluation.store import PredictionLog, Result, model_folder, write_result

Ask = Literal["missing", "errors", "everything", "nothing"]


@dataclass
class Session:
    """What all benchmarks of one call share.

    Attributes:
        data: folder of data sets; `results`: where predictions and scores go.
        judge: spec of the judge of open answers.
        recogniser: Whisper folder that writes down generated speech; `voice`: recordings of the voice it should have.
        limit: only so many items of each benchmark, spread over it.
        seed: of sampling and of the bootstrap.
    """

    data: Path
    results: Path
    judge: str | None = None
    recogniser: str | None = None
    voice: Sequence[Path] = ()
    limit: int | None = None
    seed: int = 0

    def adapter(self, spec: str) -> Adapter:
        """The model that a spec names; see `adapters.make_adapter`."""
        return make_adapter(spec, seed=self.seed)

    def evaluate(self, adapter: Adapter, benchmark: Benchmark, ask: Ask = "missing") -> Result | None:
        """Ask what is to be asked, score all answers, keep both; None for what this kind of model can't be asked.

        Raises:
            DataError: when the data are missing or unusable.
            ConfigError: when the benchmark needs a judge or recogniser that was not named.
        """
        if not can_do(adapter, benchmark):
            return None
        metric = self.metric(benchmark)
        samples, faults = benchmark.samples(self.data)
        samples = spread(samples, self.limit)
        folder = model_folder(self.results, adapter.name, adapter.fingerprint)
        log = PredictionLog(folder / (benchmark.answers or benchmark.name))
        if ask in ("everything", "errors"):
            log.forget(errors_only=ask == "errors")
        if ask != "nothing":
            with progress_bar() as progress:
                bar = progress.add_task(f"{adapter.name}: {benchmark.title}", total=len(samples))
                for _ in predict(adapter, benchmark, samples, log):
                    progress.advance(bar)
        result, items = score(
            benchmark,
            metric,
            samples,
            log.known,
            model=adapter.name,
            fingerprint=adapter.fingerprint,
            faults=faults,
            seed=self.seed,
            tools={name: value for name, value in self._tools(benchmark).items() if value},
        )
        write_result(folder / benchmark.name, result, items)
        return result

    def metric(self, benchmark: Benchmark) -> Metric:
        """The metric of a benchmark, with judge and tools if it needs them."""
        if benchmark.metric in SPEECH_METRICS:
            whisper = Path(self.recogniser) if self.recogniser else None
            normaliser = benchmark.normaliser if benchmark.normaliser != "none" else "whisper-english"
            return SPEECH_METRICS[benchmark.metric](SpeechTools(whisper, self.voice, benchmark.language, normaliser))
        return make_metric(benchmark, self._judge if benchmark.judge else None)

    @cached_property
    def _judge(self) -> Judge:
        if self.judge is None:
            raise ConfigError("open answers need a judge: --judge openai:MODEL@URL or --judge local:FOLDER")
        return make_judge(self.judge, self.results / "judge.jsonl")

    def _tools(self, benchmark: Benchmark) -> dict[str, str | None]:
        if benchmark.metric in SPEECH_METRICS:
            recogniser = self.recogniser and Path(self.recogniser).name
            return {"recogniser": recogniser, "voice": ", ".join(Path(path).name for path in self.voice)}
        return {"judged_by": self.judge if benchmark.judge else None}


def spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples, evenly spread."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return [samples[number * len(samples) // limit] for number in range(limit)]


def progress_bar() -> Progress:
    """On standard error, where someone watches; gone when done."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
