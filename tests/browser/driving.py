"""A headless Chromium, told what to do through its debugging pipe; the standard library alone.

The browser resolves no name, so whatever a page tried to load would fail and be told as a request.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

PATIENCE = 60.0
"""Seconds that an answer may take; machines may be busy."""


@dataclass
class Opened:
    """What happened while a page was opened: requests, and everything the console said."""

    requests: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Browser:
    """One browser with one tab."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._number = 0
        self._buffer = b""
        self._session: str | None = None
        self._events: list[dict] = []

    def __enter__(self) -> Self:
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        os.set_inheritable(to_browser, True)
        os.set_inheritable(from_browser, True)
        # The browser reads from descriptor 3 and writes to 4.
        self._process = subprocess.Popen(
            [shutil.which("bash") or "/bin/bash", "-c",
             f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}', self._path,
             "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-pipe", "--no-first-run", "--disable-extensions",
             "--disable-background-networking", "--disable-component-update",
             "--host-resolver-rules=MAP * ~NOTFOUND",
             f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        try:
            target = self.tell("Target.createTarget", url="about:blank")["targetId"]
            session = self.tell("Target.attachToTarget", targetId=target, flatten=True)
            self._session = session["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.tell(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def tell(self, method: str, **parameters: object) -> dict:
        """Give an order and wait for its answer."""
        self._number += 1
        message: dict[str, object] = {
            "id": self._number, "method": method, "params": parameters,
        }  # fmt: skip
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._events.append(answer)

    def open(self, page: Path, width: int = 1280, scheme: str = "light") -> Opened:
        """Open a file at a width, and wait until everything in it is there."""
        self.tell(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        scheme_now = [{"name": "prefers-color-scheme", "value": scheme}]
        self.tell("Emulation.setEmulatedMedia", features=scheme_now)
        self.tell("Page.navigate", url="about:blank")
        self._until_loaded()
        start = time.monotonic()
        self.tell("Page.navigate", url=page.resolve().as_uri())
        events = self._until_loaded()
        # Pictures are part of the page, and drawn when it says so.
        self.run("Promise.all([...document.images].map(i => i.decode().catch(() => 0)))")
        seconds = time.monotonic() - start
        events += self._events
        self._events = []
        return _told(events, seconds)

    def run(self, code: str) -> object:
        """The value of a JavaScript expression in the page."""
        result = self.tell(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """A key down and up."""
        code = {"Tab": 9, "Enter": 13}[key]
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        self.tell("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.tell("Input.dispatchKeyEvent", type="keyUp", **common)

    def _until_loaded(self) -> list[dict]:
        events = self._events
        self._events = []
        while not any(event.get("method") == "Page.loadEventFired" for event in events):
            events.append(self._next())
        return events

    def _next(self) -> dict:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], PATIENCE)
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


def _told(events: list[dict], seconds: float) -> Opened:
    opened = Opened(seconds=seconds)
    for event in events:
        method, what = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            opened.requests.append(what["request"]["url"])
        elif method == "Log.entryAdded":
            opened.said.append(what["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            opened.said.append(str(what))
        elif method == "Page.javascriptDialogOpening":
            opened.dialogs.append(what["message"])
    return opened
