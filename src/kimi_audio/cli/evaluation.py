"""`eval`: measure models, see the results, prepare data, check a judge.

kimi-audio eval librispeech,esc50 --model tiny --model whisper:FOLDER --data DATA -o results
kimi-audio eval report results
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from kimi_audio.cli import common
from kimi_audio.errors import ConfigError

if TYPE_CHECKING:
    from kimi_audio.evaluation.evaluate import Adapter
    from kimi_audio.evaluation.store import Result

DATA = Path(os.environ.get("KIMI_AUDIO_DATA", "data"))
DEFAULT_COMMAND = "run"


class _RunByDefault(TyperGroup):
    """`eval NAMES …` is `eval run NAMES …`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = [DEFAULT_COMMAND, *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_RunByDefault, no_args_is_help=True, help="Measure models on benchmarks: eval NAMES --model MODEL …"
)

Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder that `eval … -o` wrote.")]
Judge = Annotated[
    str | None, typer.Option("--judge", help="openai:MODEL@URL (key in OPENAI_API_KEY) or local:FOLDER, for answers.")
]
Data = Annotated[Path, typer.Option("--data", help="Folder of data sets; KIMI_AUDIO_DATA sets the default.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", min=0, help="Seconds for an answer; endpoints have 120, programs 600.")
]
Prices = Annotated[
    str | None, typer.Option("--prices", metavar="IN,OUT", help="Of a million tokens of endpoints, to show the cost.")
]


def _list(wanted: bool) -> None:
    if not wanted:
        return
    from kimi_audio.evaluation.benchmarks import bundled_benchmarks

    for benchmark in sorted(bundled_benchmarks().values(), key=lambda b: (b.kind, b.name)):
        print(f"{benchmark.name:<22} {benchmark.kind:<15} {benchmark.metric:<16} {benchmark.size:<9} {benchmark.title}")
        print(f"{'':<22} {benchmark.licence}; {benchmark.obtain or benchmark.source}")
    raise typer.Exit


@app.callback()
@common.command
def options(
    listing: Annotated[
        bool, typer.Option("--list", callback=_list, is_eager=True, help="Task, metric, size, licence, how to get it.")
    ] = False,
) -> None:
    common.need_extra("eval", "jiwer", "whisper_normalizer", "rich")


@app.command()
@common.command
def run(
    benchmarks: Annotated[str, typer.Argument(metavar="NAMES", help="Names, kinds or files of benchmarks, by commas.")],
    model: Annotated[
        list[str],
        typer.Option(
            "--model", "-m", help="tiny, a folder or hub id, whisper:FOLDER, openai:MODEL@URL, command:PROGRAM, …"
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="RESULTS", help="Folder for the results.")],
    data: Data = DATA,
    judge: Judge = None,
    recogniser: Annotated[
        str | None, typer.Option("--recogniser", help="Whisper folder that writes down generated speech.")
    ] = None,
    voice: Annotated[
        list[Path] | None, typer.Option("--voice", help="Recording of the voice that answers should have; several.")
    ] = None,
    normaliser: Annotated[
        str | None, typer.Option("--normaliser", help="Count words by another scheme (qwen2-audio), in results apart.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only so many items, spread over each.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of sampling and of the bootstrap.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Ask anew what was answered already.")] = False,
    errors_again: Annotated[bool, typer.Option("--errors-again", help="Ask anew what failed.")] = False,
    score_only: Annotated[bool, typer.Option("--score-only", help="Score the kept answers; ask nothing.")] = False,
    timeout: Timeout = None,
    prices: Prices = None,
) -> None:
    """Ask models the items of benchmarks, score their answers, keep both. What was asked once is not asked again."""
    from kimi_audio.evaluation.benchmarks import find_benchmarks
    from kimi_audio.evaluation.session import Session

    session = Session(data, output, judge, recogniser, voice or (), limit, seed, timeout, _prices(prices))
    chosen = find_benchmarks([name for name in benchmarks.split(",") if name])
    chosen = [benchmark.scored_by(normaliser) for benchmark in chosen] if normaliser else chosen
    mode = "nothing" if score_only else "everything" if again else "errors" if errors_again else "missing"
    batch = common.Batch()
    for spec in model:
        adapter: Adapter | None = None
        with batch.item():
            adapter = session.adapter(spec)
        for benchmark in chosen if adapter else ():
            with batch.item():
                assert adapter is not None
                if result := session.evaluate(adapter, benchmark, ask=mode):
                    _print(result)
                else:
                    common.tell(f"{adapter.name} can't do {benchmark.name}: left out")
    for line in session.spending():
        common.tell(line)
    batch.end()


@app.command()
@common.command
def report(
    results: Results,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="HTML", help="RESULTS/report.html")] = None,
    data: Data = DATA,
) -> None:
    """Write a page with tables, intervals, paired differences and every answer; print the table as Markdown."""
    from kimi_audio.evaluation.page import write_page
    from kimi_audio.evaluation.store import read_results
    from kimi_audio.evaluation.tables import by_benchmark, compared, markdown

    found = read_results(results, data)
    if not found:
        raise ConfigError(f"{results}: holds no results; `kimi-audio eval NAMES --model MODEL -o {results}` makes some")
    page = output or results / "report.html"
    groups = by_benchmark(found)
    write_page(groups, page)
    print(markdown(groups), compared(groups), sep="\n\n")
    common.tell(f"wrote {page}")


def _list_downloads(wanted: bool) -> None:
    if not wanted:
        return
    from kimi_audio.evaluation.prepare import PREPARERS

    for name, preparer in PREPARERS.items():
        print(f"{name:<16} {preparer.source}")
        print(f"{'':<16} {preparer.layout}")
    raise typer.Exit


@app.command()
@common.command
def prepare(
    name: Annotated[str, typer.Argument(help="Which download; --list names them.")],
    download: Annotated[Path, typer.Argument(help="The official download, unpacked.")],
    data: Annotated[Path, typer.Argument(help="Folder of data sets.")] = DATA,
    listing: Annotated[
        bool,
        typer.Option("--list", callback=_list_downloads, is_eager=True, help="Downloads: where from, what is in them."),
    ] = False,
) -> None:
    """Turn an official download into a manifest that benchmarks read."""
    from kimi_audio.evaluation.prepare import prepare as prepare_download

    done = prepare_download(name, download, data)
    for fault in done.faults:
        common.tell(fault)
    common.tell(f"{name}: {done.rows} items" + (f", {len(done.faults)} could not be used" if done.faults else ""))


@app.command(name="judge-check")
@common.command
def judge_check(judge: Judge = None, timeout: Timeout = None, prices: Prices = None) -> None:
    """Put small labelled sets to a judge and say how often it agrees."""
    from kimi_audio.evaluation import judge_check as check
    from kimi_audio.evaluation.judges import EndpointJudge, make_judge

    if judge is None:
        raise ConfigError("--judge is missing: openai:MODEL@URL or local:FOLDER")
    checked = make_judge(judge, timeout=timeout, prices=_prices(prices))
    print(check.judge_check(checked), check.rating_check(checked), sep="\n\n")
    if isinstance(checked, EndpointJudge):
        common.tell(checked.client.spending(checked.remembered))


@app.command()
@common.command
def rate(
    results: Results,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="HTML", help="The page.")] = Path("rating.html"),
    data: Data = DATA,
) -> None:
    """Write a page on which people rate the answers to the benchmark `conversation`, 1 to 5, without models' names."""
    from kimi_audio.evaluation.rating import rateable_answers, write_rating_page
    from kimi_audio.evaluation.store import read_results

    write_rating_page(rateable_answers(read_results(results, data)), output)
    common.tell(f"wrote {output}; what people save there is read by `kimi-audio eval ratings`")


@app.command()
@common.command
def ratings(files: Annotated[list[Path], typer.Argument(help="What people saved on the page of `eval rate`.")]) -> None:
    """Mean ratings of each model in each dimension, with 95 % intervals."""
    from kimi_audio.evaluation.rating import opinions, read_ratings

    for one in opinions(read_ratings(files)):
        figure = f"{one.mean:.2f} ({one.low:.2f}–{one.high:.2f})"
        print(f"{one.dimension:<8} {one.model:<24} {figure}, {one.ratings} ratings of {one.questions} questions")


def _prices(given: str | None) -> tuple[float, float] | None:
    if given is None:
        return None
    try:
        read, written = map(float, given.split(","))
    except ValueError:
        raise ConfigError(f"--prices {given}: two numbers are expected, as in 2.5,10") from None
    return read, written


def _print(result: "Result") -> None:
    percent = result.unit == "%"
    low, value, high = (f"{100 * x:.1f}" if percent else f"{x:.2f}" for x in (result.low, result.value, result.high))
    failed = f", {result.failed} failed" if result.failed else ""
    faults = f", {len(result.faults)} rows unusable" if result.faults else ""
    missing = f", {result.unanswered} not asked yet" if result.unanswered else ""
    counts = f"{result.items} items{failed}{faults}{missing}"
    print(f"{result.model}  {result.title}: {value} {result.unit} ({low}–{high}), {counts}")
