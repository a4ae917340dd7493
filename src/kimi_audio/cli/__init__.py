"""The command `kimi-audio`: parse, call, print.

    kimi-audio transcribe a.wav b.mp3          kimi-audio verify CASE…
    kimi-audio ask "What do you hear?" dog.wav kimi-audio info [MODEL]
    kimi-audio say "Good morning." -o hi.wav   kimi-audio train RECIPE.yaml
    kimi-audio chat question.wav -o answer.wav kimi-audio eval NAMES --model MODEL -o RESULTS

Results go to standard output, everything else to standard error. Exit codes: 0 all done; 1 a verification failed;
2 something the user can mend (each with one sentence; the rest of a batch is still done); 130 interrupted.
"""

import os
import signal
from typing import NoReturn

import typer

from kimi_audio.cli import evaluation
from kimi_audio.cli.common import INTERRUPTED
from kimi_audio.cli.listen import ask, transcribe
from kimi_audio.cli.models import info, verify
from kimi_audio.cli.speak import chat, revoice, say
from kimi_audio.cli.training import train

app = typer.Typer(
    help="Kimi-Audio: sound and text in, text and sound out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
for command in (transcribe, ask, say, revoice, chat, verify, info, train):
    app.command()(command)
app.add_typer(evaluation.app, name="eval")


def main() -> None:
    """Entry point of the installed command."""
    signal.signal(signal.SIGINT, _interrupted)
    app()


def _interrupted(number: int, frame: object) -> NoReturn:
    # At once: what was done is written already, and an exception raised in a library's callback would be swallowed.
    os.write(2, b"\nkimi-audio: interrupted\n")
    os._exit(INTERRUPTED)
