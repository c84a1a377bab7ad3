"""A client of a node's HTTP API: what ``view``, ``status``, ``handover`` and ``enroll worker`` speak through.

A node's problem details (RFC 9457) become an error with the node's own code, so that the command line says what the
node said.
"""

import argparse
import http.client
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode, urlsplit

from datasync.domain.errors import ConfigError, LinkError, RequestError
from datasync.security.files import read_file
from datasync.views.connection import Known, connection, is_address, require_credentials

PROBLEM_BYTES_MAX = 1 << 20
PIECE_BYTES = 1 << 16


class Refused(RequestError):
    """The node refused the request."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        details = [str(problem.get("detail") or problem.get("title") or "no reason given")]
        details += [
            f"  {each.get('line')}:{each.get('column')}: {each['message']}" for each in problem.get("problems", [])
        ]
        super().__init__("\n".join(details), where=str(problem.get("where", "")), fix=str(problem.get("fix", "")))
        self.reasons = [str(reason) for reason in problem.get("reasons", [])]
        self.codes = [str(problem[key]) for key in ("code", "reason") if problem.get(key)]

    def __str__(self) -> str:
        return super().__str__().removesuffix(f"[{self.code}]") + f"[{' '.join(self.codes)}]"


_ANYBODY = Known()


class ApiClient:
    """One node's API, called with a bearer token, a certificate, or both."""

    def __init__(self, url: str, token: str = "", known: Known = _ANYBODY) -> None:
        """Take the node's address, ``https://host:port``, and how both ends are to be known.

        Raises ConfigError for any other form of address, and where there is neither token nor certificate.
        """
        if not is_address(url):
            raise ConfigError(f"{url!r} is no node's address", fix="write https://host:port")
        require_credentials(url, token, known)
        if not token.isascii() or not token.isprintable():
            raise ConfigError("the token is none that a node gives out")
        self._url = urlsplit(url)
        self._token = token
        self._known = known

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Self:
        """Return the client that the options of :func:`add_api` ask for. Raises ConfigError when nothing says who."""
        if arguments.token_file is not None:
            token = read_file(arguments.token_file).decode(errors="replace").strip()
        else:
            token = arguments.token or os.environ.get("DATASYNC_TOKEN", "")
        return cls(arguments.url, token, Known(arguments.ca, arguments.peer, arguments.cert))

    def get(self, *path: str, **query: str | int | None) -> Any:
        """Return the JSON that the node answers. Raises Refused and LinkError."""
        with self.request("GET", path, query) as response:
            return json.loads(b"".join(pieces(response)))

    def post(self, *path: str, document: object) -> Any:
        """Send a JSON document and return the JSON that the node answers. Raises Refused and LinkError."""
        with self.request("POST", path, {}, json.dumps(document).encode()) as response:
            content = b"".join(pieces(response))
        return json.loads(content) if content else None

    @contextmanager
    def request(
        self,
        method: str,
        path: Sequence[str],
        query: Mapping[str, str | int | None],
        body: bytes | None = None,
        media: str = "application/json",
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request; give its answer, to be read with :func:`pieces`. A query's None is left out.

        Raises Refused and LinkError.
        """
        node = connection(self._url, self._known)
        target = "/".join([self._url.path.rstrip("/"), *(quote(part, safe="") for part in path)])
        given = urlencode({name: value for name, value in query.items() if value is not None})
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if body is not None:
            headers["Content-Type"] = media
        try:
            with _link_errors(self._url.geturl()):
                node.request(method, f"{target}?{given}" if given else target, body, headers)
                response = node.getresponse()
                if response.status >= http.client.BAD_REQUEST:
                    raise _refused(response)
            yield response
        finally:
            node.close()


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield an answer's body as it arrives. Raises LinkError when the node breaks it off."""
    while True:
        with _link_errors("the answer broke off"):
            piece = response.read1(PIECE_BYTES)
        if not piece:
            return
        yield piece


def add_api(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Declare where the node is and what to show it; not ``required`` where there is another way to it."""
    url = os.environ.get("DATASYNC_URL")
    needed = required and url is None
    parser.add_argument(
        "--url", default=url, required=needed, help="the node's API, https://host:port (or DATASYNC_URL)"
    )
    parser.add_argument(
        "--ca",
        type=Path,
        metavar="FILE",
        default=os.environ.get("DATASYNC_CA"),
        help="authority.pem of the node's operator, to verify the node by (or DATASYNC_CA)",
    )
    parser.add_argument(
        "--peer",
        metavar="NAME",
        default=os.environ.get("DATASYNC_PEER", ""),
        help="the node's name, for one whose certificate does not have the host of the URL (or DATASYNC_PEER)",
    )
    parser.add_argument(
        "--cert",
        type=Path,
        metavar="FOLDER",
        default=os.environ.get("DATASYNC_CERT"),
        help="certificate and key to show, made by `datasync enroll worker|admin --authority` (or DATASYNC_CERT)",
    )
    token = parser.add_mutually_exclusive_group()
    token.add_argument("--token", help="other users of this machine can see it; prefer the next, or DATASYNC_TOKEN")
    token.add_argument("--token-file", type=Path, metavar="FILE", help="a file that holds the token")


def _refused(response: http.client.HTTPResponse) -> Refused:
    try:
        problem = json.loads(response.read(PROBLEM_BYTES_MAX))
    except ValueError:
        problem = {}
    if not isinstance(problem, dict) or "code" not in problem:
        problem = {"detail": f"the answer was {response.status} {response.reason}", "code": f"HTTP_{response.status}"}
    return Refused(problem)


@contextmanager
def _link_errors(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise LinkError(str(error) or type(error).__name__, where=where) from error
