"""A server as OpenAI-compatible endpoints are: it behaves, hangs, drips, refuses and lies, as a test tells it."""

from __future__ import annotations

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from kimi_audio.evaluation.endpoint import Endpoint


class Server(ThreadingHTTPServer):
    """Answers requests with `answers` one after the other, the last one for ever; keeps what it was asked.

    An answer is (status, headers, body): a body that is no bytes is written as JSON; headers or a body that are None
    drip for ever. A number is seconds to hang, and None breaks the connection off.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Any] = []
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.times: list[float] = []
        Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def endpoint(self, **options: Any) -> Endpoint:
        quick: dict[str, Any] = {"wait": 0.01, "timeout": 10.0}
        return Endpoint("a-model", self.url, **quick | options)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        self.server.times.append(time.monotonic())
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, float):
            time.sleep(answer)
            return
        if answer is None:
            return
        status, headers, content = answer
        if headers is None or content is None:
            return self.drip(b"HTTP/1.1 200 OK\r\nX-Drip: " if headers is None else b"HTTP/1.1 200 OK\r\n\r\n{")
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def drip(self, begin: bytes) -> None:
        self.wfile.write(begin)
        try:
            while True:
                self.wfile.write(b".")
                self.wfile.flush()
                time.sleep(0.02)
        except OSError:  # whoever asked has gone
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def says(text: Any, **message: Any) -> tuple[int, dict[str, str], Any]:
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    return 200, {}, {"choices": [{"message": {"content": text, **message}}], "usage": usage}
