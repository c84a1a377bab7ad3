"""One page in the browser, as the one who sits before it has it: what is shown, keys, clicks and the window's size.

Each page has a browser context of its own: no storage and no cache of another test. All that the browser tells of it
is kept: what it asked of the network, what its scripts threw. Waiting is for an event, or for a condition that is
looked at in every frame, and has a deadline.
"""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from tests.browser.devtools import Devtools

PATIENCE_S = 30.0
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "ArrowRight": (39, "")}
WIDE = (1280, 900)

WAIT = """new Promise((resolve, reject) => {
  const until = performance.now() + %d;
  const look = () => {
    if (%s) resolve();
    else if (performance.now() > until) reject(new Error("not so in time; the page shows: " + document.body.innerText));
    else requestAnimationFrame(look);
  };
  look();
})"""

TABLE = """(() => {
  const [head, ...lines] = [...document.querySelectorAll("#%s tr")].map((line) => [...line.cells]);
  const headings = head.map((cell) => cell.textContent);
  return lines.map((cells) => Object.fromEntries(cells.map((cell, n) => [headings[n], cell.textContent])));
})()"""


class Page:
    """A page and the loop that its browser and its server live on; it runs while something is asked."""

    def __init__(self, devtools: Devtools, runner: asyncio.Runner) -> None:
        self._devtools = devtools
        self._runner = runner
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._news = asyncio.Event()
        self._context = ""
        self._session = ""
        runner.run(self._begin())

    def close(self) -> None:
        self._runner.run(self._devtools.call("Target.disposeBrowserContext", browserContextId=self._context))

    def open(self, url: str) -> None:
        """Load a page, and return when it and what it links are there."""
        loaded = len(self.events("Page.loadEventFired"))
        self.call("Page.navigate", url=url)
        self.wait_for_events("Page.loadEventFired", loaded + 1)

    @property
    def requests(self) -> list[str]:
        """The addresses of all that the page asked for since it was made."""
        return [values["request"]["url"] for values in self.events("Network.requestWillBeSent")]

    @property
    def errors(self) -> list[str]:
        """The exceptions that scripts of the page did not catch."""
        thrown = [values["exceptionDetails"] for values in self.events("Runtime.exceptionThrown")]
        return [details.get("exception", details).get("description", details["text"]) for details in thrown]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The parameters of each DevTools event of this name so far."""
        return [values for event, values in self._events if event == name]

    def wait_for_events(self, name: str, count: int) -> list[dict[str, Any]]:
        """Return the events of this name as soon as there are so many."""

        async def wait() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while len(self.events(name)) < count:
                    self._news.clear()
                    await self._news.wait()

        self._runner.run(wait())
        return self.events(name)

    def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression is; a promise is awaited, an exception fails the test."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        thrown = answer.get("exceptionDetails")
        assert thrown is None, f"{expression}: {thrown.get('exception', thrown).get('description', thrown)}"
        return answer["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Return when a JavaScript expression is true."""
        self.evaluate(WAIT % (PATIENCE_S * 1000, condition))

    def wait_for_text(self, text: str) -> None:
        """Return when the text can be seen on the page."""
        self.wait_until(f"document.body.innerText.includes({json.dumps(text)})")

    def shown(self) -> str:
        """The text that can be seen."""
        return str(self.evaluate("document.body.innerText"))

    def everything(self) -> str:
        """All text of the page, seen or not."""
        return str(self.evaluate("document.documentElement.textContent"))

    def table(self, name: str) -> list[dict[str, str]]:
        """The lines of a table: heading → what the cell says."""
        lines: list[dict[str, str]] = self.evaluate(TABLE % name)
        return lines

    def type(self, text: str) -> None:
        """Put text in where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        code, text = KEYS[key]
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
        self.call("Input.dispatchKeyEvent", type="keyDown", **pressed)
        self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def click(self, selector: str) -> None:
        """Click in the middle of an element with the mouse."""
        box = self.evaluate(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", mobile=mobile, **size)

    def go_offline(self, offline: bool) -> None:
        """Let the page reach nothing, or again everything."""
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.call("Network.emulateNetworkConditions", offline=offline, **speed)

    def screenshot(self, file: Path) -> None:
        """Keep a picture of the whole page, for a person to look at."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(picture["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a DevTools command to this page."""
        return self._runner.run(self._call(method, **parameters))

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return await self._devtools.call(method, session=self._session, **parameters)

    async def _begin(self) -> None:
        call = self._devtools.call
        self._context = (await call("Target.createBrowserContext"))["browserContextId"]
        target = await call("Target.createTarget", url="about:blank", browserContextId=self._context)
        attached = await call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self._devtools.follow(self._session, self._note)
        for domain in ("Page", "Runtime", "Network"):
            await self._call(f"{domain}.enable")
        await self._call("Emulation.setTimezoneOverride", timezoneId="UTC")
        await self._call("Emulation.setLocaleOverride", locale="en-GB")
        await self._call("Emulation.setFocusEmulationEnabled", enabled=True)

    def _note(self, event: str, values: dict[str, Any]) -> None:
        self._events.append((event, values))
        self._news.set()
