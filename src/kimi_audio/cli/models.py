"""`verify` and `info`: does the code compute what it should, and what is in a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from kimi_audio.cli import common

FAILED = 1


@common.command
def verify(
    cases: Annotated[list[Path], typer.Argument(metavar="DIR", help="Folders of golden cases.")],
) -> None:
    """Run golden cases: each tensor's largest absolute error beside its tolerance. Code 1 if any is exceeded."""
    from kimi_audio.verify import verify_case

    batch, passed, failed = common.Batch(), 0, 0
    print(f"{'case':<18}{'error':>10}{'tolerance':>11}  {'':<6}tensor")
    for case in cases:
        with batch.item():
            for check in verify_case(case):
                passed, failed = passed + check.passed, failed + (not check.passed)
                verdict = "pass" if check.passed else "FAIL"
                line = f"{case.name:<18}{check.error:>10.2g}{check.tolerance:>11.2g}  {verdict:<6}{check.name}"
                print(line, flush=True)
    print(f"{passed} passed, {failed} failed")
    if failed:
        raise typer.Exit(FAILED)
    batch.end()


@common.command
def info(
    model: Annotated[str | None, typer.Argument(help="Folder or hub id; the bundled model if not given.")] = None,
) -> None:
    """Say what a checkpoint holds: sizes, parameters, id space, licence, training data."""
    from kimi_audio.checkpoint.info import describe

    for label, value in describe(model).items():
        print(f"{label:<24} {value}")
