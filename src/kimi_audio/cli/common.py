"""What the commands share: options, loading a model, and how a mistake ends a command.

PyTorch is imported when a model is loaded, not before, so that help is quick.
"""

import functools
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kimi_audio.errors import ConfigError, KimiAudioError

if TYPE_CHECKING:
    from kimi_audio.model import KimiAudio

USER_ERROR, INTERRUPTED = 2, 130


class Dtype(str, Enum):
    """Types of the weights in memory; int8 and int4 are weight-only, auto is the quickest for how they are stored."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"
    int4 = "int4"


class Device(str, Enum):
    """Where to compute."""

    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@dataclass(frozen=True)
class Loading:
    """The options of a command that uses a model."""

    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or hub id; the bundled model if not given.")
    ] = None
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Type of the weights in memory.")] = Dtype.auto
    device: Annotated[Device | None, typer.Option("--device", help="cuda or mps if present, else cpu.")] = None
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; as many as cores if not given.")
    ] = None

    def load(self, speaks: bool = True) -> "KimiAudio":
        """The model that the options name; without its speaking half unless `speaks`."""
        import torch

        from kimi_audio.model import KimiAudio

        if self.threads:
            torch.set_num_threads(self.threads)
        device = self.device and self.device.value
        present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        if device and not present[device]:
            there = ", ".join(filter(present.get, present))
            raise ConfigError(f"--device {device}: this machine has none; present is {there}")
        return KimiAudio.from_pretrained(self.model, dtype=self.dtype.value, device=device, load_detokenizer=speaks)


def need_extra(extra: str, *modules: str) -> None:
    """Raise ConfigError, and say how to install them, if modules of an extra of the package are missing."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise ConfigError(f'this needs {", ".join(missing)}; install with: pip install -e ".[{extra}]"')


def command(run: Callable[..., None]) -> Callable[..., None]:
    """Make a function a command: a user's mistake ends it with its sentence and code 2.

    A parameter of `run` that is a dataclass, like `Loading`, stands for its fields: each is an option.
    """
    signature = inspect.signature(run)
    groups: dict[str, Any] = {n: p.annotation for n, p in signature.parameters.items() if is_dataclass(p.annotation)}

    @functools.wraps(run)
    def guarded(**options: Any) -> None:
        for name, group in groups.items():
            options[name] = group(**{field.name: options.pop(field.name) for field in fields(group)})
        try:
            run(**options)
        except (KimiAudioError, OSError) as error:
            complain(error)
            raise typer.Exit(USER_ERROR) from None

    # Typer takes options from the signature and their types from the annotations.
    options: dict[str, inspect.Parameter] = {}
    for name, parameter in signature.parameters.items():
        options |= inspect.signature(groups[name]).parameters if name in groups else {name: parameter}
    by_name = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options.values()]
    guarded.__signature__ = inspect.Signature(by_name)  # pyright: ignore[reportAttributeAccessIssue]
    guarded.__annotations__ = {name: option.annotation for name, option in options.items()}
    return guarded


class Batch:
    """Several items of one command: a mistake in one is told, the others are still done; code 2 comes last."""

    failed = False

    @contextmanager
    def item(self) -> Iterator[None]:
        try:
            yield
        except (KimiAudioError, OSError) as error:
            complain(error)
            self.failed = True

    def end(self) -> None:
        if self.failed:
            raise typer.Exit(USER_ERROR)


@contextmanager
def listening(path: str) -> Iterator[Callable[[float], None]]:
    """Where someone watches, a line that tells how far into a recording the work is, and at what speed."""
    from rich.console import Console

    started = time.perf_counter()
    with Console(stderr=True).status(path) as status:

        def report(seconds: float) -> None:
            rate = seconds / (time.perf_counter() - started)
            status.update(f"{path}: {seconds / 60:.1f} min of sound heard, {rate:.0f} s of it a second")

        yield report


def complain(error: Exception) -> None:
    """One sentence on standard error: the message of ours, or what the system says about a file."""
    if isinstance(error, OSError) and not isinstance(error, KimiAudioError):
        tell(f"{error.filename or 'output'}: {error.strerror or error}")
    else:
        tell(" ".join(str(error).split()))


def tell(text: str) -> None:
    print(f"kimi-audio: {text}", file=sys.stderr, flush=True)


def print_json(**fields: Any) -> None:
    print(json.dumps(fields, ensure_ascii=False), flush=True)
