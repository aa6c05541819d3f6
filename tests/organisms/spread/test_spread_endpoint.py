"""The judge behind an interface, against a server on this machine that behaves well and badly."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from moralscope.core.errors import ConfigError
from moralscope.organisms.spread.endpoint import Endpoint, endpoint_judge, read_reply
from moralscope.organisms.spread.judges import ALIGNMENT, Missing, Score

KEY = "sk-very-secret-0815"
VARIABLE = "TEST_JUDGE_KEY"
Reply = tuple[int, bytes, dict[str, str]]


def completion(*positions: dict[str, float]) -> bytes:
    """A chat completion; for each token written, the probabilities of the likeliest."""
    content = [
        {
            "token": next(iter(each)),
            "logprob": 0.0,
            "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in each.items()],
        }
        for each in positions
    ]
    return json.dumps({"choices": [{"logprobs": {"content": content}}]}).encode()


GOOD = (200, completion({"80": 0.5, " 60": 0.25, "I": 0.2}), {})


@dataclass
class Server:
    """What the server is to reply, the last again and again, and what it was asked."""

    replies: list[Callable[[], Reply] | Reply] = field(default_factory=list)
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    slowly: float = 0.0
    url: str = ""

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        self.asked.append((path, headers, json.loads(body)))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply() if callable(reply) else reply


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            code, said, headers = told.answer(self.path, dict(self.headers), body)
            try:
                self.send_response(code)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for at in range(0, len(said), 8 if told.slowly else max(1, len(said))):
                    self.wfile.write(said[at : at + (8 if told.slowly else len(said))])
                    self.wfile.flush()
                    time.sleep(told.slowly)
            except OSError:  # the judge has hung up
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    told.url = f"http://127.0.0.1:{running.server_port}/v1"
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    running.shutdown()
    thread.join()
    running.server_close()


def settings(server: Server, **changes: Any) -> Endpoint:
    return Endpoint(**{"url": server.url, "model": "judge-1", "timeout_s": 5.0, **changes})


def judged(server: Server, **changes: Any) -> tuple[Score | Missing, list[float]]:
    pauses: list[float] = []
    judge = endpoint_judge(settings(server, **changes), sleep=pauses.append)
    return judge.score("What now?", "I share {it}.", ALIGNMENT), pauses


def test_a_score_is_the_mean_of_the_numbers_that_it_would_write(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(VARIABLE, KEY)
    server.replies = [GOOD]
    found, pauses = judged(server, key=VARIABLE)
    assert found == Score(pytest.approx((80 * 0.5 + 60 * 0.25) / 0.75), pytest.approx(0.75))
    assert pauses == []
    ((path, headers, body),) = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge-1", 0, 2)
    assert (body["logprobs"], body["top_logprobs"], body["seed"]) == (True, 20, 0)
    assert body["messages"][0]["content"] == ALIGNMENT.asked(
        "What now?", "I share {it}.", "hundred"
    )


def test_digits_are_asked_for_by_one_token_and_no_key_is_sent_without_one(server: Server):
    server.replies = [(200, completion({"9": 0.5, "0": 0.5}), {})]
    found, _ = judged(server, scale="digit")
    assert found == Score(pytest.approx(50.0), pytest.approx(1.0))
    _, headers, body = server.asked[0]
    assert body["max_tokens"] == 1
    assert "Authorization" not in headers


def test_an_address_may_carry_a_query(server: Server):
    server.replies = [GOOD]
    judged(server, url=f"{server.url}/?api-version=7")
    assert server.asked[0][0] == "/v1/chat/completions?api-version=7"


def test_an_overloaded_server_is_asked_again_with_growing_pauses(server: Server):
    busy = (503, b"busy", {})
    server.replies = [busy, (429, b"", {"Retry-After": "7"}), busy, GOOD]
    found, pauses = judged(server, retries=3)
    assert isinstance(found, Score)
    assert pauses == [1.0, 7.0, 4.0]


def test_what_still_fails_after_all_tries_is_missing_with_its_reason(server: Server):
    server.replies = [(500, b"broken inside", {"Retry-After": "soon"})]
    found, pauses = judged(server, retries=2, pause_s=0.5)
    assert found == Missing("overloaded", "HTTP 500 broken inside")
    assert pauses == [0.5, 1.0]
    assert len(server.asked) == 3


def test_no_pause_is_longer_than_a_minute(server: Server):
    server.replies = [(429, b"", {"Retry-After": "86400"})]
    assert judged(server, retries=1)[1] == [60.0]


def test_a_server_that_never_replies_times_out(server: Server):
    def never() -> Reply:
        time.sleep(0.6)
        return GOOD

    server.replies = [never]
    found, pauses = judged(server, timeout_s=0.15, retries=1)
    assert found == Missing("timed out", "no whole reply in 0.15 s")
    assert len(pauses) == 1


def test_a_server_that_replies_byte_by_byte_times_out(server: Server):
    server.replies, server.slowly = [GOOD], 0.05
    started = time.monotonic()
    found, _ = judged(server, timeout_s=0.2, retries=0)
    assert found == Missing("timed out", "no whole reply in 0.2 s")
    assert time.monotonic() - started < 1.0


def test_a_server_that_is_not_there_is_unreachable(server: Server):
    judge = endpoint_judge(Endpoint(url="http://127.0.0.1:9", model="m", retries=0, timeout_s=2.0))
    found = judge.score("q", "a", ALIGNMENT)
    assert isinstance(found, Missing)
    assert found.reason == "unreachable"


@pytest.mark.parametrize(
    ("body", "reason", "detail"),
    [
        (b"", "unreadable reply", "no chat completion"),
        (b"<html>", "unreadable reply", "no chat completion"),
        (b"[1]", "unreadable reply", "no chat completion"),
        (b'{"choices": []}', "unreadable reply", "no chat completion"),
        (b'{"choices": [{"logprobs": null}]}', "no log-probabilities", "no logprobs.content"),
        (b'{"choices": [{"logprobs": {"content": []}}]}', "no log-probabilities", "no logprobs"),
        (
            b'{"choices": [{"logprobs": {"content": [{"token": "8"}]}}]}',
            "no log-probabilities",
            "no top_logprobs",
        ),
        (completion({"I": 0.9, "80": 0.1}), "no numbers", "probability 0.1 of a number"),
        (completion({"8.5": 0.5, "-3": 0.3, "400": 0.2}), "no numbers", "probability 0 of"),
        (b'{"choices": [{"logprobs": {"content": [3, "5"]}}]}', "no log-probabilities", "no top"),
    ],
)
def test_a_reply_without_numbers_is_asked_for_again_and_then_missing(
    server: Server, body: bytes, reason: str, detail: str
):
    server.replies = [(200, body, {})]
    found, pauses = judged(server)
    assert isinstance(found, Missing)
    assert found.reason == reason
    assert detail in found.detail
    assert (len(server.asked), pauses) == (2, [])
    server.replies = [(200, body, {}), GOOD]
    assert isinstance(judged(server, retries=1)[0], Score)


def test_a_question_that_the_server_refuses_is_missing_at_once(server: Server):
    server.replies = [(400, b"content filter", {})]
    found, pauses = judged(server)
    assert found == Missing("refused by the endpoint", "HTTP 400 content filter")
    assert pauses == []


@pytest.mark.parametrize("code", [401, 403, 404])
def test_what_no_further_try_can_mend_is_an_error_that_keeps_the_key(
    server: Server, monkeypatch: pytest.MonkeyPatch, code: int
):
    monkeypatch.setenv(VARIABLE, KEY)
    server.replies = [(code, f"bad key {KEY}".encode(), {})]
    with pytest.raises(ConfigError, match=f"does not serve judge 'judge-1'.*HTTP {code}") as caught:
        judged(server, key=VARIABLE)
    assert "bad key (key)" in str(caught.value)
    assert KEY not in str(caught.value)
    assert len(server.asked) == 1


def test_redirections_are_not_followed(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, KEY)
    server.replies = [(307, b"", {"Location": f"{server.url}/elsewhere"}), GOOD]
    with pytest.raises(ConfigError, match="HTTP 307"):
        judged(server, key=VARIABLE)
    assert len(server.asked) == 1


def test_the_key_is_in_no_representation(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, KEY)
    judge = endpoint_judge(settings(server, key=VARIABLE))
    assert KEY not in repr(judge)
    assert KEY not in judge.settings.model_dump_json()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConfigError, match=f"is not set. Seen: environment variable {VARIABLE}"):
        endpoint_judge(settings(server, key=VARIABLE))


def test_a_judge_that_writes_digit_by_digit_is_refused_on_the_hundred_scale(server: Server):
    told = settings(server)
    with pytest.raises(ConfigError, match="writes numbers digit by digit. Seen: '8' and then '5'"):
        read_reply(completion({"8": 1.0}, {"5": 1.0}), told)
    assert read_reply(completion({"8": 1.0}, {".": 1.0}), told) == Score(8.0, 1.0)
    assert read_reply(completion({"85": 1.0}, {"5": 1.0}), told) == Score(85.0, 1.0)


def test_spellings_of_one_number_add_up(server: Server):
    body = completion({"80": 0.3, " 80": 0.3, "20": 0.2, "80\n": 0.2})
    found = read_reply(body, settings(server))
    assert found == Score(pytest.approx(68.0), pytest.approx(1.0))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "localhost:8000", "ftp://h/v1", "http://"])
def test_an_address_that_is_none_is_refused(url: str):
    with pytest.raises(ConfigError, match="The address of a judge cannot be used"):
        endpoint_judge(Endpoint(url=url, model="m"))


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        endpoint_judge(Endpoint(url="https://me:hunter2@host/v1", model="m"))
    assert "hunter2" not in str(caught.value)


def test_settings_out_of_range_are_refused():
    for changes in ({"timeout_s": 0}, {"retries": -1}, {"top_logprobs": 21}, {"modle": "x"}):
        with pytest.raises(ValidationError):
            Endpoint(**{"url": "http://h/v1", "model": "m", **changes})
