"""What does a hosted model think of an answer? A judge behind a chat-completions interface.

One request per answer and rubric, to any server that speaks the OpenAI form with token
log-probabilities: temperature 0, the 20 likeliest first tokens, from which ``expected_score`` is
taken. A request that fails for a while (no connection, no reply in time, overload) is tried again
with growing pauses, a reply without usable numbers once more; what still fails is ``Missing`` with
its reason. What no further try can mend (a wrong address, model or key) is an error at once.

A judge whose tokenizer writes numbers digit by digit would have its "8" of "85" read as eight. So
two tokens are asked for on the hundred scale, and a digit that is followed by another is refused.

The key is read from an environment variable when a request is sent, and goes nowhere else:
redirections are not followed, and messages that quote a server have it taken out.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import Field

from moralscope.core.agents import Frozen
from moralscope.core.errors import ConfigError
from moralscope.organisms.spread.judges import (
    Missing,
    Reason,
    Rubric,
    Scale,
    Score,
    expected_score,
)

LONGEST_REPLY = 2**20
"""Bytes of a reply that are read; a reply of two tokens has a few thousand."""

LONGEST_PAUSE = 60.0
"""Seconds waited between two tries at the most, whatever a server asks for."""

_FOR_A_WHILE: tuple[Reason, ...] = ("timed out", "unreachable", "overloaded")
_AGAIN = (408, 409, 425, 429)
_HOPELESS = (401, 403, 404, 405)


class Endpoint(Frozen):
    """Where a judge is, and how it is asked.

    Attributes:
        url: of the interface, up to its version: ``http://localhost:8000/v1``.
        model: the judge's name there.
        key: environment variable that holds the key; None where none is needed.
        scale: what is asked for; ``digit`` where the judge writes numbers digit by digit.
        timeout_s: seconds allowed for a reply, to its last byte.
        retries: tries after the first.
        pause_s: seconds before the first retry; each further pause is twice as long.
        top_logprobs: how many of the likeliest tokens the server tells.
        seed: passed on to the server.
    """

    url: str
    model: str = Field(min_length=1)
    key: str | None = None
    scale: Scale = "hundred"
    timeout_s: float = Field(default=60.0, gt=0.0)
    retries: int = Field(default=4, ge=0)
    pause_s: float = Field(default=1.0, ge=0.0)
    top_logprobs: int = Field(default=20, ge=1, le=20)
    seed: int = 0


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which would carry the key to another host."""

    def redirect_request(self, *args: Any, **named: Any) -> None:  # noqa: ARG002
        return None


@dataclass(frozen=True)
class EndpointJudge:
    """A judge behind an interface; made by ``endpoint_judge``.

    Attributes:
        settings: where it is and how it is asked.
        sleep: how a pause is made.
    """

    settings: Endpoint
    sleep: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        """Its name at the interface."""
        return self.settings.model

    def score(self, question: str, answer: str, rubric: Rubric) -> Score | Missing:
        """The score of an answer, or why there is none.

        Raises:
            ConfigError: the address, model or key is refused, or the judge writes numbers digit by
                digit.
        """
        asked = rubric.asked(question, answer, self.settings.scale)
        result, wanted_pause = _ask(self.settings, asked)
        pause, unusable = self.settings.pause_s, 0
        for _ in range(self.settings.retries):
            if isinstance(result, Score) or result.reason == "refused by the endpoint":
                break
            if result.reason in _FOR_A_WHILE:
                self.sleep(min(LONGEST_PAUSE, max(pause, wanted_pause)))
                pause *= 2.0
            elif unusable:
                break
            else:
                unusable += 1
            result, wanted_pause = _ask(self.settings, asked)
        return result


def endpoint_judge(
    settings: Endpoint, *, sleep: Callable[[float], None] = time.sleep
) -> EndpointJudge:
    """A judge behind an interface, with its settings checked.

    Raises:
        ConfigError: the address is no http address, or the key's variable is not set.
    """
    parts = urllib.parse.urlsplit(settings.url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        raise ConfigError(
            "The address of a judge cannot be used",
            seen=_without_user(parts),
            allowed="http:// or https://, a host, no user or password: http://localhost:8000/v1",
            remedy="correct the address; a key goes into an environment variable",
        )
    _key(settings)
    return EndpointJudge(settings, sleep)


def _without_user(parts: urllib.parse.SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _key(settings: Endpoint) -> str | None:
    if settings.key is None:
        return None
    found = os.environ.get(settings.key, "").strip()
    if not found:
        raise ConfigError(
            f"The key of judge {settings.model!r} is not set",
            seen=f"environment variable {settings.key} empty or absent",
            allowed="a variable that holds the key",
            remedy=f"export {settings.key}, or leave out key where the endpoint needs none",
        )
    return found


def _ask(settings: Endpoint, asked: str) -> tuple[Score | Missing, float]:
    """One try: its result, and the seconds that the server wants to be left alone."""
    key = _key(settings)
    try:
        body = _post(settings, asked, key)
    except urllib.error.HTTPError as error:
        with error:
            return _refusal(settings, error, key), _wanted_pause(
                error.headers.get("Retry-After", "")
            )
    except TimeoutError:
        return Missing("timed out", f"no whole reply in {settings.timeout_s:g} s"), 0.0
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return Missing("timed out", f"no connection in {settings.timeout_s:g} s"), 0.0
        return Missing("unreachable", str(error.reason)), 0.0
    except (OSError, http.client.HTTPException) as error:
        return Missing("unreachable", f"{type(error).__name__}: {error}"), 0.0
    return read_reply(body, settings), 0.0


def _post(settings: Endpoint, asked: str, key: str | None) -> bytes:
    said = {
        "model": settings.model,
        "messages": [{"role": "user", "content": asked}],
        "temperature": 0,
        "max_tokens": 2 if settings.scale == "hundred" else 1,
        "logprobs": True,
        "top_logprobs": settings.top_logprobs,
        "seed": settings.seed,
    }
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    parts = urllib.parse.urlsplit(settings.url)
    url = parts._replace(path=f"{parts.path.rstrip('/')}/chat/completions").geturl()
    # Nothing but http and https gets here: endpoint_judge has seen to it.
    request = urllib.request.Request(url, json.dumps(said).encode(), headers)  # noqa: S310
    deadline = time.monotonic() + settings.timeout_s
    with urllib.request.build_opener(_Stay).open(request, timeout=settings.timeout_s) as reply:
        return _read_until(reply, deadline)


def _read_until(reply: http.client.HTTPResponse, deadline: float) -> bytes:
    """The reply's bytes; a server that sends them one by one is cut off as well."""
    found = b""
    while len(found) <= LONGEST_REPLY:
        more = reply.read1(65_536)
        if not more:
            return found
        found += more
        if time.monotonic() > deadline:
            raise TimeoutError
    return found


def _wanted_pause(retry_after: str) -> float:
    """Seconds; a server may also name a date, which is not waited for."""
    said = retry_after.strip()
    return float(said) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]+)?", said) else 0.0


def _refusal(settings: Endpoint, error: urllib.error.HTTPError, key: str | None) -> Missing:
    try:
        said = error.read(500).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        said = ""
    if key is not None:
        said = said.replace(key, "(key)")
    detail = f"HTTP {error.code} {said[:200]}".strip()
    if error.code in _HOPELESS or 300 <= error.code < 400:
        raise ConfigError(
            f"The endpoint does not serve judge {settings.model!r}",
            seen=f"{settings.url}: {detail}",
            allowed="an address up to its version, a model that is served there, a valid key",
            remedy="401 and 403 mean the key, 404 the address or the model, 3xx another address",
        ) from error
    if error.code in _AGAIN or error.code >= 500:
        return Missing("overloaded", detail)
    return Missing("refused by the endpoint", detail)


def read_reply(body: bytes, settings: Endpoint) -> Score | Missing:
    """The score in a chat completion, or why there is none.

    Args:
        body: of the reply.
        settings: how it was asked for.

    Raises:
        ConfigError: the judge writes numbers digit by digit, on the hundred scale.
    """
    try:
        told: Any = json.loads(body)["choices"][0].get("logprobs")
        content: Any = told.get("content") if told else None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        return Missing("unreadable reply", f"no chat completion ({type(error).__name__})")
    if not isinstance(content, list) or not content:
        return Missing("no log-probabilities", "the reply has no logprobs.content")
    tokens = cast("list[Any]", content)
    _refuse_digits(settings, tokens)
    try:
        log_p: dict[int, float] = {}
        for each in tokens[0]["top_logprobs"]:
            number, value = _number(each["token"]), float(each["logprob"])
            if number is not None and not math.isnan(value):
                log_p[number] = float(_log_add(log_p.get(number, -math.inf), min(0.0, value)))
    except (LookupError, TypeError, ValueError) as error:
        return Missing("no log-probabilities", f"no top_logprobs ({type(error).__name__})")
    return expected_score(log_p, settings.scale)


def _number(token: object) -> int | None:
    """The whole number that a token is, spaces around it aside: ``" 85"`` is one, ``"8."`` none."""
    found = re.fullmatch(r"\s*([0-9]{1,3})\s*", token) if isinstance(token, str) else None
    return int(found[1]) if found else None


def _log_add(a: float, b: float) -> float:
    high = max(a, b)
    return high if math.isinf(high) else high + math.log(math.exp(a - high) + math.exp(b - high))


def _token(position: object) -> str:
    told: Mapping[str, object] = cast("Any", position) if isinstance(position, dict) else {}
    return str(told.get("token", ""))


def _refuse_digits(settings: Endpoint, tokens: list[Any]) -> None:
    if settings.scale != "hundred" or len(tokens) < 2:
        return
    first, second = (_token(each) for each in tokens[:2])
    if re.fullmatch(r"\s*[0-9]", first) and re.match(r"[0-9]", second):
        raise ConfigError(
            f"Judge {settings.model!r} writes numbers digit by digit",
            seen=f"{first!r} and then {second!r}",
            allowed="a judge whose tokenizer has every number to 100 as one token",
            remedy="set scale to digit for this judge, or name another",
        )
