"""Other people's models, measured as a program in an environment of its own.

The program reads a JSON line for each sample from standard input,

    {"id": "7", "audios": ["/data/7.wav"], "instruction": null, "language": "en", "speak": false, "sampling": {}}

(after earlier turns also `history`, a list of messages `{"role", "message_type", "content"}`) and writes a JSON line to
standard output, `{"id": "7", "text": "..."}`, with the path of a sound file in `audio` if it speaks; everything else it
has to say belongs on standard error. It is started for the first sample, and again after each failure.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from kimi_audio.audio.decode import load_audio
from kimi_audio.errors import ConfigError, KimiAudioError
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.samples import Output, Sample
from kimi_audio.messages import Message

SPEECH_RATE = 24_000


class CommandAdapter:
    """A program; the protocol is told above."""

    takes_instructions = True

    def __init__(self, command: str, timeout: float = 600.0, speaks: bool = False) -> None:
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"command {command!r}: {error}") from error
        if not self._arguments or shutil.which(self._arguments[0]) is None:
            raise ConfigError(f"command {command!r}: there is no such program; command:PROGRAM ARGUMENTS is accepted")
        self.name, self.speaks = command, speaks
        self.fingerprint = hashed(f"{'command-speech' if speaks else 'command'}:{command}")
        self._timeout = timeout
        self._program: _Program | None = None

    def generate(self, sample: Sample, benchmark: Benchmark) -> Output:
        self._program = self._program or _Program(self._arguments)
        request = {
            "id": sample.id,
            "audios": [str(path.resolve()) for path in sample.audios],
            "instruction": sample.instruction,
            "language": benchmark.language,
            "speak": benchmark.speaks,
            "sampling": whole_options(benchmark.sampling),
        }
        if sample.history:
            request["history"] = [_earlier(message) for message in sample.history]
        try:
            reply = _checked_reply(self._program.exchange(json.dumps(request), self._timeout), sample.id)
        except BaseException:
            self.close()  # what it still has to say would be taken for the answer to the next sample
            raise
        audio = load_audio(reply["audio"], SPEECH_RATE) if reply.get("audio") else None
        return Output(reply["text"], audio, SPEECH_RATE)

    def close(self) -> None:
        """End the program."""
        if self._program:
            self._program.end()
            self._program = None

    def __del__(self) -> None:
        if getattr(self, "_program", None):
            self.close()


def _earlier(message: Message) -> dict[str, Any]:
    heard = message.type == "audio"
    content = str(Path(message.content).resolve()) if heard else message.content
    return {"role": message.role, "message_type": message.type, "content": content}


class ProgramError(KimiAudioError):
    """A program under test that dies, hangs, or says something else than it should."""


class _Program:
    """A running program: a line in, a line out. Its standard error goes to a file, for its last words."""

    def __init__(self, arguments: list[str]) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        # A session of its own, so that programs that it starts end with it.
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True
        )
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        threading.Thread(target=_read_lines, args=(self._process.stdout, self._lines), daemon=True).start()

    def exchange(self, line: str, timeout: float) -> str:
        """The line with which the program answers a line. Raises ProgramError if none comes."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended, and the reader finds out
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        try:
            answer = self._lines.get(timeout=timeout)
        except queue.Empty:
            raise ProgramError(f"the program wrote no line within {timeout:g} s") from None
        if answer is None:
            code = self._process.wait()
            raise ProgramError(f"the program ended with code {code} instead of answering{self._last_words()}")
        return answer.decode("utf-8", "replace")

    def end(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]
        self._errors.close()

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        return next((f": {line.strip()[:200]}" for line in reversed(lines) if line.strip()), "")


def _read_lines(stream: Any, lines: queue.Queue[bytes | None]) -> None:
    """Pass a program's lines on, and None at the end."""
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _checked_reply(line: str, wanted: str) -> dict[str, Any]:
    try:
        reply = json.loads(line)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise ProgramError(f"the program wrote {line.strip()[:80]!r} where a JSON object is expected")
    if reply.get("id") != wanted:
        raise ProgramError(f"the program answered {reply.get('id')!r}, but {wanted!r} was asked")
    if not isinstance(reply.get("text"), str):
        raise ProgramError("the program's answer has no field 'text' with a text")
    return reply


def whole_options(options: dict[str, float]) -> dict[str, Any]:
    """Options as their types were meant: YAML numbers arrive as floats."""
    return {name: int(value) if float(value).is_integer() else value for name, value in options.items()}


def hashed(text: str) -> str:
    """Twelve hex digits that stand for a text in names of folders."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
