"""Headless Chromium, driven by its debugging protocol over a pipe."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
KEYS = {
    "Enter": 13,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
}
_PATIENCE = 60  # seconds


class Page:
    """A tab. What its scripts complain about is in `errors`."""

    def __init__(self, to, back):
        self._to, self._from, self._buffer, self._number = to, back, b"", 0
        self.errors: list[str] = []
        self._session, self._loaded = None, False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        asked = {"targetId": target, "flatten": True}
        self._session = self.call("Target.attachToTarget", **asked)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.requests: list[str] = []
        self.resize(1400, 900)

    def call(self, method: str, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _read(self):
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], _PATIENCE)[0]:
                raise TimeoutError("Chromium does not answer")
            self._buffer += os.read(self._from, 1 << 20)
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        method, params = message.get("method"), message.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:600])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(str(params["args"]))
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Page.javascriptDialogOpening":
            self.errors.append(f"a dialog: {params['message']}")
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        return message

    def open(self, path: Path | str, fragment: str = "", script: bool = True) -> None:
        """Opens a file, or an address of this machine, and waits until it has loaded."""
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        address = path if isinstance(path, str) else path.resolve().as_uri()
        for url in ("about:blank", address + fragment):
            self._loaded = False
            self.call("Page.navigate", url=url)
            while not self._loaded:
                self._read()

    def js(self, expression: str):
        """The value of an expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)  # fmt: skip
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {json.dumps(answer['exceptionDetails'])[:500]}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = _PATIENCE) -> None:
        """Waits until an expression is true."""
        end = time.monotonic() + seconds
        while not self.js(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}; errors: {self.errors}")
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Presses a key: a letter, or one of KEYS."""
        code = KEYS.get(key, ord(key[0].upper()))
        event = {"key": key, "windowsVirtualKeyCode": code}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)
        self.settle()

    def click(self, selector: str) -> None:
        """Clicks on the middle of the first node of a selector."""
        box = self.js(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)});"
            " b.scrollIntoView({block: 'center'}); const r = b.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        where = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mousePressed", **where)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **where)
        self.settle()

    def change(self, selector: str, value: str) -> None:
        """Gives a field a value, as a user does."""
        self.js(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)});"
            f" b.value = {json.dumps(value)};"
            " for (const e of ['input', 'change'])"
            " b.dispatchEvent(new Event(e, {bubbles: true})) })()"
        )
        self.settle()

    def settle(self) -> None:
        """Waits for what is due before the next picture of the screen."""
        self.js("new Promise(d => requestAnimationFrame(() => requestAnimationFrame(() => d(1))))")

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 500)  # fmt: skip

    def dark(self, on: bool = True) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, path: Path) -> None:
        """Writes a picture of the screen as PNG or WebP."""
        kind = Path(path).suffix[1:]
        data = self.call("Page.captureScreenshot", format=kind)["data"]
        Path(path).write_bytes(base64.b64decode(data))


@contextmanager
def browser() -> Iterator[Page]:
    """A tab of a browser of its own, without network."""
    if not CHROMIUM:
        pytest.skip("no Chromium: apt-get install chromium")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True) as home:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        flags += [f"--user-data-dir={home}", "--no-first-run", "--disable-extensions"]
        flags += [
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--disable-dev-shm-usage",
        ]
        wired = f'exec "$@" 3<&{to_read} 4>&{from_write}'
        command = ["bash", "-c", wired, "bash", CHROMIUM, *flags]
        process = subprocess.Popen(
            command,
            pass_fds=(to_read, from_write),
            env=dict(os.environ, HOME=home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        try:
            yield Page(to_write, from_read)
        finally:
            os.close(to_write)  # Chromium ends with its pipe
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(from_read)
