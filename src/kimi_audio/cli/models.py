"""`verify` and `info`: does the code compute what it should, and what is in a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from kimi_audio.cli import common

FAILED = 1


@common.command
def verify(
    cases: Annotated[list[Path], typer.Argument(metavar="DIR", help="Folders of golden cases.")],
) -> None:
    """Run golden cases: each tensor's largest absolute error beside its tolerance. Code 1 if any is exceeded."""
    from kimi_audio.verify import verify_case

    table = Table("case", "tensor", "largest error", "tolerance", "")
    batch, failed = common.Batch(), 0
    for case in cases:
        with batch.item():
            for check in verify_case(case):
                verdict = "pass" if check.passed else "FAIL"
                table.add_row(case.name, check.name, f"{check.error:.3g}", f"{check.tolerance:.3g}", verdict)
                failed += not check.passed
    console = Console()
    console.print(table)
    console.print(f"{table.row_count - failed} passed, {failed} failed")
    if failed:
        raise typer.Exit(FAILED)
    batch.end()


@common.command
def info(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id; the bundled model if not given.")] = None,
) -> None:
    """Say what a checkpoint holds: sizes, parameters, id space, licence, training data."""
    from kimi_audio.checkpoint.info import describe

    for name, value in describe(model).items():
        print(f"{name:>16}  {value}")
