"""The Chrome DevTools Protocol: commands to a browser over one WebSocket, and the events that it sends back.

A command carries a number and its answer carries the same one, so any number may be under way at once. Each page is
a *session* of the connection; the events of a session go to whoever follows it, in the order in which they came.
See https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

ANSWER_S_MAX = 30.0

Follower = Callable[[str, dict[str, Any]], None]


class DevtoolsError(Exception):
    """The browser refused a command, or is gone."""


class Devtools:
    """A connection to a browser, made by ``connect`` and ended by ``close``."""

    def __init__(self, http: ClientSession, socket: ClientWebSocketResponse) -> None:
        self._http = http
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._followers: dict[str, Follower] = {}
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, url: str) -> "Devtools":
        http = ClientSession()
        try:
            return cls(http, await http.ws_connect(url, max_msg_size=0))
        except BaseException:
            await http.close()
            raise

    async def close(self) -> None:
        await self._socket.close()
        await self._reader
        await self._http.close()

    def follow(self, session: str, follower: Follower) -> None:
        """Call ``follower`` with the name and the parameters of each event of this session."""
        self._followers[session] = follower

    async def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Give a command and return what it answers. Raises DevtoolsError when it is refused."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message if session is None else message | {"sessionId": session})
        async with asyncio.timeout(ANSWER_S_MAX):
            return await answer

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                self._take(message.json())
        for answer in self._answers.values():
            answer.cancel("the browser is gone")

    def _take(self, message: dict[str, Any]) -> None:
        if "id" not in message:
            follower = self._followers.get(message.get("sessionId", ""))
            if follower is not None:
                follower(message["method"], message["params"])
            return
        answer = self._answers.pop(message["id"])
        if answer.done():
            return  # nobody waits any more
        if "error" in message:
            answer.set_exception(DevtoolsError(f"{message['error']['message']} {message['error'].get('data', '')}"))
        else:
            answer.set_result(message["result"])
