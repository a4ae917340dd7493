"""A client for OpenAI-compatible endpoints: chat, with sound in and out, and transcription.

    endpoint = Endpoint.from_spec("qwen2-audio@http://localhost:8000/v1")
    endpoint.chat([{"role": "user", "content": "Hello."}]).text
    endpoint.transcribe(wav_bytes(samples_L))
    endpoint.usage, endpoint.cost

The key is in the environment: in `OPENAI_API_KEY`, or in the variable named behind a `#` at the end of a spec. Where
the server is busy (429, 5xx) or late, a request is made again after a while that doubles; a Retry-After is honoured.
A request has a deadline, however the server spends the time until then.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

import numpy as np

from kimi_audio.errors import ConfigError, KimiAudioError

KEY_VARIABLE = "OPENAI_API_KEY"
LONGEST_WAIT = 120.0
"""Seconds; a server that asks for more is given up."""
TRANSCRIPTION = {"response_format": "json", "temperature": "0"}
"""Fields of each request for a transcript."""
_COUNTS = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))  # of chat, of transcription
_SPEC = re.compile(r"(?P<model>[^@\s]+)@(?P<url>https?://[^#\s]+)(#(?P<variable>\w+))?")


class EndpointError(KimiAudioError):
    """An endpoint that can't be reached, refuses, or answers something else than it should."""


@dataclass(frozen=True)
class Usage:
    """Tokens that were read (`prompt`) and written (`completion`)."""

    prompt: int = 0
    completion: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.prompt + other.prompt, self.completion + other.completion)


@dataclass(frozen=True)
class ChatReply:
    """`audio` is the bytes of a WAV file where the model spoke."""

    text: str
    usage: Usage
    audio: bytes | None = None


class Endpoint:
    """One model behind one base URL.

    Args:
        model, url: as the server calls the model; `url` is what `/chat/completions` is appended to.
        variable: environment variable with the key; may be unset where the server wants none.
        timeout: seconds until the whole answer to a request must be there.
        retries: how often a request is repeated; the first time after `wait` seconds, then after twice as long, ...
        prices: of a million tokens, read and written; None if nobody knows.

    Attributes:
        requests: how often the server was asked, repetitions included; `usage` of tokens so far.
    """

    def __init__(
        self,
        model: str,
        url: str,
        variable: str = KEY_VARIABLE,
        *,
        timeout: float = 120.0,
        retries: int = 4,
        wait: float = 1.0,
        prices: tuple[float, float] | None = None,
    ) -> None:
        import httpx

        self.model, self.url, self.variable = model, url.rstrip("/"), variable
        self.requests, self.usage = 0, Usage()
        self._timeout, self._retries, self._wait, self._prices = timeout, retries, wait, prices
        key = os.environ.get(variable)
        self._client = httpx.AsyncClient(timeout=None, headers={"Authorization": f"Bearer {key}"} if key else {})

    @classmethod
    def from_spec(cls, spec: str, **options: Any) -> Endpoint:
        """The endpoint named `MODEL@URL` or `MODEL@URL#VARIABLE`. Raises ConfigError for anything else."""
        if (match := _SPEC.fullmatch(spec)) is None:
            raise ConfigError(f"endpoint {spec!r}; MODEL@URL is accepted, as in gpt-4o@https://api.openai.com/v1, and "
                              f"#VARIABLE behind it for a key that is not in {KEY_VARIABLE}")  # fmt: skip
        variable = match["variable"]
        if variable and variable not in os.environ:
            raise ConfigError(f"endpoint {spec!r}: the environment variable {variable} with the key is not set")
        return cls(match["model"], match["url"], variable or KEY_VARIABLE, **options)

    @property
    def cost(self) -> float:
        """Price of all tokens so far; 0 where prices aren't known."""
        read, written = self._prices or (0.0, 0.0)
        return (self.usage.prompt * read + self.usage.completion * written) / 1e6

    def spending(self, kept: int) -> str:
        """What was asked, for people; `kept` answers were there already."""
        cost = f", cost {self.cost:.4f}" if self._prices else ""
        return (f"{self.model}: {self.requests} requests, {kept} answers kept from before, {self.usage.prompt} tokens "
                f"read and {self.usage.completion} written{cost}")  # fmt: skip

    def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> ChatReply:
        """The answer to a conversation in the official form; `options` are fields of the request.

        Raises:
            EndpointError: when there is none, in the end.
        """
        response = self._post("/chat/completions", json={"model": self.model, "messages": list(messages)} | options)
        try:
            message = response["choices"][0]["message"]
            audio = message.get("audio") or {}
            text = next(text for text in (message.get("content"), audio.get("transcript"), message.get("refusal"))
                        if isinstance(text, str))  # fmt: skip
            sound = base64.b64decode(audio["data"], validate=True) if audio.get("data") else None
        except (LookupError, TypeError, AttributeError, StopIteration, ValueError):
            raise self._error("answered, but without choices[0].message.content") from None
        usage = _usage(response.get("usage"))
        self.usage += usage
        return ChatReply(text, usage, sound)

    def transcribe(self, wav: bytes, language: str | None = None) -> str:
        """What is said in a WAV file.

        Raises:
            EndpointError: when there is no answer, in the end.
        """
        form = TRANSCRIPTION | {"model": self.model} | ({"language": language} if language else {})
        response = self._post("/audio/transcriptions", data=form, files={"file": ("audio.wav", wav, "audio/wav")})
        if not isinstance(text := response.get("text"), str):
            raise self._error("answered, but without the field text")
        self.usage += _usage(response.get("usage"))
        return text

    def _post(self, path: str, **request: Any) -> dict[str, Any]:
        """The JSON object that the server answers with, after as many attempts as it takes."""
        import httpx

        wait = self._wait
        for attempt in range(self._retries + 1):
            asked_to_wait = 0.0
            try:
                response = self._within_time(self._client.post(self.url + path, **request))
            except httpx.ConnectError as error:
                raise self._error(f"cannot be reached ({error})") from error
            except asyncio.TimeoutError:
                problem = f"gave no answer within {self._timeout:g} s"
            except httpx.HTTPError as error:
                problem = f"broke the connection off ({type(error).__name__})"
            except httpx.InvalidURL as error:
                raise self._error(f"is no URL ({error})") from error
            else:
                if response.status_code != 429 and response.status_code < 500:
                    return self._content(response)
                problem = f"answered {response.status_code}{_message(response)}"
                asked_to_wait = _seconds(response.headers.get("Retry-After", ""))
            if asked_to_wait > LONGEST_WAIT:
                raise self._error(f"{problem}, and asks to wait for {asked_to_wait:.0f} s")
            if attempt < self._retries:
                time.sleep(max(wait, asked_to_wait))
                wait *= 2
        raise self._error(f"{problem}; {self._retries + 1} attempts were made")

    def _within_time(self, request: Coroutine[Any, Any, Any]) -> Any:
        """The answer to a request. Raises asyncio.TimeoutError when it is not there in time."""
        self.requests += 1
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(request, self._timeout), _event_loop()).result()

    def _content(self, response: Any) -> dict[str, Any]:
        if response.status_code in (401, 403):
            state = "in" if os.environ.get(self.variable) else "missing from"
            raise self._error(f"refuses the key {state} {self.variable} ({response.status_code}{_message(response)})")
        if not response.is_success:
            raise self._error(f"answered {response.status_code}{_message(response)}")
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise self._error(f"answered something else than a JSON object: {response.text[:80]!r}")
        return content

    def _error(self, problem: str) -> EndpointError:
        return EndpointError(f"{self.url} ({self.model}) {problem}")


def audio_part(wav: bytes) -> dict[str, Any]:
    """A WAV file as a part of a message's content."""
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav).decode(), "format": "wav"}}


def wav_bytes(samples_L: np.ndarray, rate: int = 16_000) -> bytes:
    """A WAV file of 16 bits."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, samples_L, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


@cache
def _event_loop() -> asyncio.AbstractEventLoop:
    """In it requests can be ended at any moment. It has a thread of its own: the caller may be in a loop already."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    return loop


def _usage(field: Any) -> Usage:
    """What a server says that it counted; nothing where it leaves that out, or can't have counted so."""
    counts = [field.get(chat, field.get(speech)) for chat, speech in _COUNTS] if isinstance(field, dict) else []
    return Usage(*(count if isinstance(count, int) and count > 0 else 0 for count in counts))


def _message(response: Any) -> str:
    """What the server says about an error, if it says so in the official form."""
    try:
        return f": {response.json()['error']['message']}"[:300]
    except (ValueError, LookupError, TypeError):
        return ""


def _seconds(retry_after: str) -> float:
    """A Retry-After header, which is a number of seconds or a date."""
    try:
        return float(retry_after)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds())
