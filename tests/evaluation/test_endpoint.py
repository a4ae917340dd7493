"""The client, the judge and the adapters that use it, against a real server."""

import base64
import io
import json
import time
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from evaluation.endpoint_server import Server, says

from kimi_audio.errors import ConfigError
from kimi_audio.evaluation.adapters import TRANSCRIBE, make_adapter
from kimi_audio.evaluation.benchmarks import Benchmark
from kimi_audio.evaluation.endpoint import Endpoint, EndpointError, Usage, audio_part, wav_bytes
from kimi_audio.evaluation.evaluate import can_do, predict
from kimi_audio.evaluation.judges import EndpointJudge, make_judge
from kimi_audio.evaluation.samples import Sample
from kimi_audio.evaluation.store import PredictionLog
from kimi_audio.messages import Message

QUESTION = [{"role": "user", "content": "Hello?"}]
TONE = np.sin(np.arange(8000) * 0.2).astype(np.float32) * 0.5


def form_of(headers: dict[str, str], body: bytes) -> dict[str, Any]:
    parsed: Any = BytesParser().parsebytes(f"Content-Type: {headers['Content-Type']}\n\n".encode() + body)
    parts = parsed.get_payload()
    return {part.get_param("name", header="Content-Disposition"): part.get_payload(decode=True) for part in parts}


def test_it_chats_and_counts_tokens_and_cost(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    server.answers = [says("Good day.")]
    endpoint = server.endpoint(prices=(2.0, 10.0))
    assert endpoint.chat(QUESTION, temperature=0).text == "Good day."
    assert endpoint.chat(QUESTION).usage == Usage(100, 20)
    assert endpoint.usage == Usage(200, 40)
    assert endpoint.cost == pytest.approx(200 * 2e-6 + 40 * 10e-6)
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert json.loads(body) == {"model": "a-model", "messages": QUESTION, "temperature": 0}


def test_sound_goes_out_and_comes_back(server: Server) -> None:
    spoken = base64.b64encode(wav_bytes(TONE, 24_000)).decode()
    server.answers = [says(None, audio={"data": spoken, "transcript": "Beep."})]
    reply = server.endpoint().chat([{"role": "user", "content": [audio_part(wav_bytes(TONE))]}])
    sent = json.loads(server.asked[0][2])["messages"][0]["content"][0]["input_audio"]
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(sent["data"])))
    assert sent["format"] == "wav" and rate == 16_000
    assert np.allclose(heard, TONE, atol=1e-4)
    assert reply.text == "Beep." and reply.audio == wav_bytes(TONE, 24_000)


def test_it_transcribes(server: Server) -> None:
    server.answers = [(200, {}, {"text": "hello world"})]
    assert server.endpoint().transcribe(wav_bytes(TONE), "en") == "hello world"
    path, headers, body = server.asked[0]
    form = form_of(headers, body)
    assert path == "/v1/audio/transcriptions"
    assert (form["model"], form["language"], form["file"]) == (b"a-model", b"en", wav_bytes(TONE))


@pytest.mark.parametrize("trouble", [(429, {}, {}), (500, {}, b"oops"), (503, {}, {}), None], ids=str)
def test_a_busy_server_is_asked_again(trouble: Any, server: Server) -> None:
    server.answers = [trouble, trouble, says("At last.")]
    assert server.endpoint().chat(QUESTION).text == "At last."
    assert len(server.asked) == 3


def test_waits_double(server: Server) -> None:
    server.answers = [(503, {}, {}), (503, {}, {}), says("ok")]
    server.endpoint(wait=0.2).chat(QUESTION)
    first, second = np.diff(server.times)
    assert first >= 0.2 and second >= 0.4


def test_retry_after_is_honoured(server: Server) -> None:
    server.answers = [(429, {"Retry-After": "1"}, {}), says("ok")]
    server.endpoint().chat(QUESTION)
    assert server.times[1] - server.times[0] >= 1.0


@pytest.mark.parametrize("header", ["3600", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_server_that_asks_for_too_long_a_wait_is_given_up(header: str, server: Server) -> None:
    server.answers = [(429, {"Retry-After": header}, {})]
    with pytest.raises(EndpointError, match="asks to wait for"):
        server.endpoint().chat(QUESTION)
    assert len(server.asked) == 1


def test_a_strange_or_past_retry_after_is_no_wait(server: Server) -> None:
    server.answers = [(429, {"Retry-After": "soon"}, {}), (429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, {}),
                      says("ok")]  # fmt: skip
    assert server.endpoint().chat(QUESTION).text == "ok"


def test_a_server_that_stays_busy_is_given_up_with_its_words(server: Server) -> None:
    server.answers = [(429, {}, {"error": {"message": "quota used up"}})]
    with pytest.raises(EndpointError, match=r"a-model.*429: quota used up; 3 attempts were made"):
        server.endpoint(retries=2).chat(QUESTION)
    assert len(server.asked) == 3


def test_a_server_that_hangs_is_given_up(server: Server) -> None:
    server.answers = [2.0]
    with pytest.raises(EndpointError, match=r"no answer within 0\.2 s; 2 attempts"):
        server.endpoint(retries=1, timeout=0.2).chat(QUESTION)


@pytest.mark.parametrize("headers", [{}, None], ids=["body", "headers"])
def test_a_server_that_drips_is_given_up(headers: Any, server: Server) -> None:
    server.answers = [(200, headers, None)]
    began = time.monotonic()
    with pytest.raises(EndpointError, match=r"no answer within 0\.3 s; 1 attempts"):
        server.endpoint(retries=0, timeout=0.3).chat(QUESTION)
    assert time.monotonic() - began < 3


def test_a_deadline_can_be_chosen() -> None:
    def deadline(made: Any) -> float:
        return (made.client if isinstance(made, EndpointJudge) else made.endpoint)._timeout

    url, chosen = "m@http://h/v1", {"timeout": 9.0}
    assert deadline(make_adapter(f"openai:{url}", **chosen)) == deadline(make_judge(f"openai:{url}", **chosen)) == 9
    assert deadline(make_adapter(f"openai-transcribe:{url}")) == deadline(make_judge(f"openai:{url}")) == 120


def test_an_endpoint_that_fails_on_one_sample_is_asked_the_rest(server: Server, tmp_path: Path) -> None:
    server.answers = [says("one"), (400, {}, {"error": {"message": "I dislike twos"}}), says("three")]
    samples = [Sample(name, (), "Count.", name) for name in ("1", "2", "3")]
    adapter = make_adapter(f"openai:a-model@{server.url}")
    kept = list(predict(adapter, benchmark(instruction="Count."), samples, PredictionLog(tmp_path)))
    assert [(row.text, row.error is None) for row in kept] == [("one", True), ("", False), ("three", True)]
    assert "400: I dislike twos" in (kept[1].error or "")


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(EndpointError, match=r"http://127\.0\.0\.1:9/v1 \(a-model\) cannot be reached"):
        Endpoint("a-model", "http://127.0.0.1:9/v1").chat(QUESTION)


@pytest.mark.parametrize(
    ("variable", "key", "wanted"),
    [("OPENAI_API_KEY", "", "key missing from OPENAI_API_KEY"), ("MY_KEY", "wrong", "key in MY_KEY.*401: bad key")],
)
def test_a_refused_key_is_named(
    variable: str, key: str, wanted: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        monkeypatch.setenv(variable, key)
    server.answers = [(401, {}, {"error": {"message": "bad key"}})]
    with pytest.raises(EndpointError, match=wanted):
        server.endpoint(variable=variable).chat(QUESTION)
    assert len(server.asked) == 1


def test_a_bad_request_is_told_with_the_words_of_the_server(server: Server) -> None:
    server.answers = [(404, {}, {"error": {"message": "no such model"}})]
    with pytest.raises(EndpointError, match="404: no such model"):
        server.endpoint().chat(QUESTION)


@pytest.mark.parametrize("content", [b"<html>Welcome</html>", b"", b"[1]", b'"yes"', b"\xff\xfe"], ids=str)
def test_what_is_no_json_object_is_told(content: bytes, server: Server) -> None:
    server.answers = [(200, {}, content)]
    with pytest.raises(EndpointError, match="something else than a JSON object"):
        server.endpoint().chat(QUESTION)


@pytest.mark.parametrize(
    "content",
    [{}, {"choices": []}, {"choices": None}, {"choices": [{"text": "old form"}]}, {"choices": [{"message": "hi"}]},
     {"choices": [{"message": {"content": None}}]}, {"choices": [{"message": {"content": 5}}]},
     {"choices": [{"message": {"content": "hi", "audio": {"data": "no base64!"}}}]}],
    ids=str,
)  # fmt: skip
def test_a_lie_is_told(content: dict[str, Any], server: Server) -> None:
    server.answers = [(200, {}, content)]
    endpoint = server.endpoint()
    with pytest.raises(EndpointError, match="without choices"):
        endpoint.chat(QUESTION)
    with pytest.raises(EndpointError, match="without the field text"):
        endpoint.transcribe(wav_bytes(TONE))


@pytest.mark.parametrize(
    "usage", [None, "many", {}, [], {"prompt_tokens": None}, {"prompt_tokens": "many"}, {"completion_tokens": [1]},
              {"prompt_tokens": -5, "completion_tokens": 1e400}]
)  # fmt: skip
def test_usage_may_be_left_out_or_make_no_sense(usage: Any, server: Server) -> None:
    server.answers = [(200, {}, {"choices": [{"message": {"content": "hi"}}], "usage": usage})]
    endpoint = server.endpoint()
    assert endpoint.chat(QUESTION).text == "hi"
    assert endpoint.usage == Usage()


def test_what_was_asked_and_what_it_cost_is_told(server: Server) -> None:
    server.answers = [(503, {}, {}), says("Good day.")]
    endpoint = server.endpoint(prices=(2.0, 10.0))
    endpoint.chat(QUESTION)
    assert endpoint.spending(7) == ("a-model: 2 requests, 7 answers kept from before, 100 tokens read and 20 written, "
                                    "cost 0.0004")  # fmt: skip
    server.answers = [(200, {}, {"text": "hi", "usage": {"input_tokens": 50, "output_tokens": 3}})]
    unpriced = server.endpoint()
    unpriced.transcribe(wav_bytes(TONE))
    assert unpriced.spending(0).endswith("1 requests, 0 answers kept from before, 50 tokens read and 3 written")


def test_a_spec_names_model_url_and_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    endpoint = Endpoint.from_spec("org/model-1@http://localhost:8000/v1/#MY_KEY")
    assert (endpoint.model, endpoint.url, endpoint.variable) == ("org/model-1", "http://localhost:8000/v1", "MY_KEY")
    assert Endpoint.from_spec("m@https://host/v1").variable == "OPENAI_API_KEY"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY with the key is not set"):
        Endpoint.from_spec("m@https://host/v1#MY_KEY")


@pytest.mark.parametrize(
    "spec", ["", "gpt-4o", "gpt-4o@", "@http://host/v1", "gpt-4o@host/v1", "m@ftp://host", "a b@http://h"]
)
def test_any_other_spec_is_a_mistake(spec: str) -> None:
    with pytest.raises(ConfigError, match="MODEL@URL is accepted"):
        Endpoint.from_spec(spec)


SAMPLE = Sample("7", (), "What is the capital of France?", "Paris")


def test_a_judge_asks_once_and_never_again(server: Server, tmp_path: Path) -> None:
    server.answers = [says("**Yes**\nBoth are Paris.")]
    judge = EndpointJudge(server.endpoint(prices=(2.0, 10.0)), tmp_path / "new" / "replies.jsonl")
    verdict = judge.verdict("yes-no", SAMPLE, "It is {Paris}.")
    assert verdict.score == 1.0 and "Both are Paris." in verdict.reason
    asked = json.loads(server.asked[0][2])
    prompt = asked["messages"][0]["content"]
    assert all(part in prompt for part in ("What is the capital of France?", ">Paris<", "It is {Paris}."))
    assert asked["temperature"] == 0
    assert judge.client.usage == Usage(100, 20) and judge.client.cost > 0

    again = EndpointJudge(server.endpoint(), tmp_path / "new" / "replies.jsonl")
    assert again.verdict("yes-no", SAMPLE, "It is {Paris}.") == verdict
    assert again.asked == 0 and again.client.usage == Usage() and len(server.asked) == 1
    other = EndpointJudge(Endpoint("another", server.url), tmp_path / "new" / "replies.jsonl")
    other.verdict("yes-no", SAMPLE, "It is {Paris}.")
    assert other.asked == 1 and len(server.asked) == 2


def test_a_judge_behind_a_broken_endpoint_keeps_nothing(server: Server, tmp_path: Path) -> None:
    server.answers = [(200, {}, {}), says("4")]
    judge = make_judge(f"openai:a-model@{server.url}", tmp_path / "replies.jsonl")
    with pytest.raises(EndpointError):
        judge.verdict("answer-1-5", SAMPLE, "Paris.")
    assert judge.verdict("answer-1-5", SAMPLE, "Paris.").score == 4.0


def benchmark(**fields: Any) -> Benchmark:
    wanted: dict[str, Any] = {"name": "b", "title": "B", "kind": "chat", "folder": "b", "metric": "m"}
    return Benchmark(**wanted | fields)


@pytest.fixture
def beep(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "beep.wav", TONE, 16_000)
    return tmp_path / "beep.wav"


def test_a_chat_model_is_asked_about_sounds(server: Server, beep: Path) -> None:
    server.answers = [says("A beep.")]
    adapter = make_adapter(f"openai:a-model@{server.url}", seed=3)
    assert can_do(adapter, benchmark(instruction="What?")) and not can_do(adapter, benchmark(speaks=True))
    asked = benchmark(instruction="What?", sampling={"text_temperature": 0.5, "max_new_tokens": 20.0})
    output = adapter.generate(Sample("1", (beep, beep), "What?", "beep"), asked)
    assert output.text == "A beep." and output.audio is None
    request = json.loads(server.asked[0][2])
    assert [part["type"] for part in request["messages"][0]["content"]] == ["text", "input_audio", "input_audio"]
    assert (request["temperature"], request["max_tokens"], request["seed"]) == (0.5, 20, 3)
    assert "modalities" not in request


def test_a_chat_model_is_told_earlier_turns(server: Server, beep: Path) -> None:
    server.answers = [says("Higher.")]
    history = (Message("user", "audio", str(beep)), Message("assistant", "text", "A beep."))
    make_adapter(f"openai:a-model@{server.url}").generate(Sample("1", (), "And?", "", history=history), benchmark())
    heard, said, asked = json.loads(server.asked[0][2])["messages"]
    assert (heard["role"], heard["content"][0]["type"]) == ("user", "input_audio")
    assert said == {"role": "assistant", "content": "A beep."}
    assert asked == {"role": "user", "content": [{"type": "text", "text": "And?"}]}


def test_a_chat_model_is_asked_to_transcribe(server: Server, beep: Path) -> None:
    server.answers = [says("beep")]
    make_adapter(f"openai:a-model@{server.url}").generate(Sample("1", (beep,), None, "beep"), benchmark())
    content = json.loads(server.asked[0][2])["messages"][0]["content"]
    assert content[0]["text"] == TRANSCRIBE


def test_a_chat_model_speaks(server: Server, beep: Path) -> None:
    spoken = base64.b64encode(wav_bytes(TONE, 16_000)).decode()
    server.answers = [says(None, audio={"data": spoken, "transcript": "Beep."})]
    adapter = make_adapter(f"openai-speech:a-model@{server.url}")
    assert can_do(adapter, benchmark(speaks=True))
    output = adapter.generate(Sample("1", (beep,), None, "beep"), benchmark(speaks=True))
    assert output.text == "Beep." and output.audio is not None
    assert len(output.audio) / output.rate == pytest.approx(len(TONE) / 16_000, abs=1e-3)
    request = json.loads(server.asked[0][2])
    assert request["modalities"] == ["text", "audio"]
    assert [part["type"] for part in request["messages"][0]["content"]] == ["input_audio"]


def test_a_recogniser_transcribes_each_sound(server: Server, beep: Path) -> None:
    server.answers = [(200, {}, {"text": " one "}), (200, {}, {"text": "two"})]
    adapter = make_adapter(f"openai-transcribe:a-model@{server.url}")
    assert not can_do(adapter, benchmark(instruction="What?"))
    output = adapter.generate(Sample("1", (beep, beep), None, "one two"), benchmark(language="de"))
    assert output.text == "one two"
    assert form_of(*server.asked[0][1:])["language"] == b"de"


def test_models_behind_endpoints_are_told_apart() -> None:
    specs = ["openai:a@http://h/v1", "openai:b@http://h/v1", "openai:a@http://h/v2", "openai-speech:a@http://h/v1",
             "openai-transcribe:a@http://h/v1"]  # fmt: skip
    assert len({make_adapter(spec).fingerprint for spec in specs}) == 5
    assert make_adapter(specs[0]).fingerprint == make_adapter("openai:a@http://h/v1/").fingerprint
    assert all(make_adapter(spec).fingerprint.isalnum() for spec in specs)
