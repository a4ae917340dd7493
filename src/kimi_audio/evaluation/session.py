"""One evaluation: which data, which judge, where results go; asks, scores and keeps.

    session = Session(Path("data"), Path("results"))
    result = session.evaluate(session.adapter("tiny"), benchmark)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kimi_audio.errors import ConfigError
from kimi_audio.evaluation.adapters import make_adapter
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.endpoint import Endpoint
from kimi_audio.evaluation.evaluate import Adapter, asking, can_do, predict, score
from kimi_audio.evaluation.judges import EndpointJudge, LanguageModelJudge, make_judge, prompt_hash
from kimi_audio.evaluation.samples import Metric, Sample
from kimi_audio.evaluation.scoring import make_metric
from kimi_audio.evaluation.speech_metrics import SPEECH_METRICS, SpeechTools
from kimi_audio.evaluation.store import PredictionLog, Result, fingerprint, model_folder, write_result

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
        timeout: seconds that an endpoint or a program may take for an answer; None: as they have it.
        prices: of a million tokens of an endpoint, read and written.
    """

    data: Path
    results: Path
    judge: str | None = None
    recogniser: str | None = None
    voice: Sequence[Path] = ()
    limit: int | None = None
    seed: int = 0
    timeout: float | None = None
    prices: tuple[float, float] | None = None
    _asked_anew: set[Path] = field(default_factory=set, init=False)
    _kept: Counter[Endpoint] = field(default_factory=Counter, init=False)

    def adapter(self, spec: str) -> Adapter:
        """The model that a spec names; see `adapters.make_adapter`."""
        return make_adapter(spec, seed=self.seed, timeout=self.timeout, prices=self.prices)

    def evaluate(self, adapter: Adapter, benchmark: Benchmark, ask: Ask = "missing") -> Result | None:
        """Ask what is to be asked, score all answers, keep both; None for what this kind of model can't be asked.

        Benchmarks that share answers share them here, too: what is asked anew is asked once.

        Raises:
            DataError: when the data are missing or unusable, or kept answers were asked for in another way.
            ConfigError: when the benchmark needs a judge or recogniser that was not named.
        """
        if not can_do(adapter, benchmark):
            return None
        metric = self.metric(benchmark)
        samples, faults = benchmark.samples(self.data)
        samples = spread(samples, self.limit)
        folder = model_folder(self.results, adapter.name, adapter.fingerprint)
        log = PredictionLog(folder / (benchmark.answers or benchmark.name))
        anew = log.folder not in self._asked_anew
        if ask == "everything" and anew:
            log.forget()
        asked = log.asked(asking(adapter, benchmark, self.seed))
        if ask == "errors" and anew:
            log.forget(errors_only=True)
        if ask in ("everything", "errors"):
            self._asked_anew.add(log.folder)
        if ask != "nothing":
            self._ask(adapter, benchmark, samples, log)
        result, items = score(
            benchmark,
            metric,
            samples,
            log.known,
            model=adapter.name,
            fingerprint=adapter.fingerprint,
            faults=faults,
            asked=asked,
            tools=self._tools(benchmark),
        )
        write_result(folder / benchmark.name, result, items, self.data)
        return result

    def _ask(self, adapter: Adapter, benchmark: Benchmark, samples: Sequence[Sample], log: PredictionLog) -> None:
        if endpoint := getattr(adapter, "endpoint", None):
            self._kept[endpoint] += sum(sample.id in log.known for sample in samples)
        with progress_bar() as progress:
            bar = progress.add_task(f"{adapter.name}: {benchmark.title}", total=len(samples))
            for _ in predict(adapter, benchmark, samples, log):
                progress.advance(bar)

    def spending(self) -> list[str]:
        """A line for each endpoint that was asked, as a model or as the judge: requests, kept answers, tokens, cost."""
        lines = [endpoint.spending(kept) for endpoint, kept in self._kept.items()]
        judge = self.__dict__.get("_judge")  # only if a benchmark needed it
        return [*lines, judge.client.spending(judge.remembered)] if isinstance(judge, EndpointJudge) else lines

    def metric(self, benchmark: Benchmark) -> Metric:
        """The metric of a benchmark, with judge and tools if it needs them."""
        if benchmark.metric in SPEECH_METRICS:
            whisper = Path(self.recogniser) if self.recogniser else None
            normaliser = benchmark.normaliser if benchmark.normaliser != "none" else "whisper-english"
            return SPEECH_METRICS[benchmark.metric](SpeechTools(whisper, self.voice, benchmark.language, normaliser))
        return make_metric(benchmark, self._judge if benchmark.judge else None)

    @cached_property
    def _judge(self) -> LanguageModelJudge:
        if self.judge is None:
            raise ConfigError("open answers need a judge: --judge openai:MODEL@URL or --judge local:FOLDER")
        return make_judge(self.judge, self.results / "judge.jsonl", timeout=self.timeout, prices=self.prices)

    @cached_property
    def _recogniser(self) -> dict[str, str]:
        if self.recogniser is None:
            return {}
        folder = Path(self.recogniser)
        return {"recogniser": folder.resolve().name, "recogniser_fingerprint": fingerprint(folder)}

    def _tools(self, benchmark: Benchmark) -> dict[str, Any]:
        tools: dict[str, Any] = {"limit": self.limit}
        if benchmark.metric in SPEECH_METRICS:
            tools |= self._recogniser
            tools |= {"voice": ", ".join(Path(path).name for path in self.voice)} if self.voice else {}
        if benchmark.judge:
            tools |= {"judged_by": self._judge.name, "judge_prompt": prompt_hash(benchmark.judge)}
        return tools


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
