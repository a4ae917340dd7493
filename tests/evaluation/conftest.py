"""A results folder, its report page, and the data in it; an endpoint."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from evaluation.endpoint_server import Server
from evaluation.results_maker import data_of, make_results

from kimi_audio.evaluation.page import write_page
from kimi_audio.evaluation.store import read_results
from kimi_audio.evaluation.tables import by_benchmark


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("page") / "results")


@pytest.fixture(scope="module")
def html(results: Path) -> Path:
    write_page(by_benchmark(read_results(results)), results.parent / "report.html", title="A <report> & more")
    return results.parent / "report.html"


@pytest.fixture(scope="module")
def data(html: Path) -> dict[str, Any]:
    return data_of(html)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running = Server()
    yield running
    running.shutdown()
    running.server_close()
