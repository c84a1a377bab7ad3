"""A view read over HTTP, with the standard library alone.

The answer is an Arrow stream that is decoded as it arrives, so a view of any size needs the memory of one batch. Its
schema carries where it ends: :func:`cursor_of` gives the ``after`` of the next call.
"""

import io
import json
from http.client import BAD_REQUEST, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pyarrow as pa

from datasync.domain.errors import (
    AccessDenied,
    CertificateForeign,
    CertificateRefused,
    CertificateRevoked,
    CredentialsDiffer,
    DatasyncError,
    Forbidden,
    LinkError,
    NotFound,
    PurposeForbidden,
    RequestError,
    Unauthenticated,
)
from datasync.views.connection import Known, connection, is_address, require_credentials
from datasync.views.formats import ARROW

CURSOR = "datasync.cursor"
POLICY = "datasync.policy"
"""Keys of the Arrow schema's metadata: the cursor to read on from, and the digest of the policy that decided."""

PROBLEM_BYTES_MAX = 1 << 20


_ANYBODY = Known()


def open_view(
    url: str, token: str | None, collection: str, purpose: str, after: int = 0, *, known: Known = _ANYBODY
) -> pa.RecordBatchReader:
    """Return a reader of what a worker may read of a collection at the node ``https://host:port``.

    ``known`` says how the node is to be known, and which certificate it is shown; the worker is the certificate's, the
    token's, or where both are given, both's. Close the reader, or read it to its end. Raises Unauthenticated,
    Forbidden, AccessDenied and NotFound as the node says, RequestError for its other refusals, and LinkError when it
    cannot be reached, or is another; reading raises LinkError when the stream breaks off.
    """
    if not is_address(url):
        raise RequestError(f"{url!r} is no node's address: write https://host:port")
    address = urlsplit(url)
    query = urlencode({"purpose": purpose, "after": after, "format": ARROW.name})
    target = f"{address.path.rstrip('/')}/v1/views/{quote(collection, safe='')}?{query}"
    require_credentials(url, token, known)
    headers = {"Connection": "close"}  # the answer keeps the socket, and ends it
    if token:
        headers["Authorization"] = f"Bearer {token}"
    node = connection(address, known)
    try:
        node.request("GET", target, headers=headers)
        response = node.getresponse()
    except (OSError, HTTPException) as error:
        node.close()
        raise LinkError(str(error), where=url) from error
    if response.status >= BAD_REQUEST:
        with response:
            raise _refusal(response.status, response.read(PROBLEM_BYTES_MAX))
    return pa.ipc.open_stream(_Body(response))


def cursor_of(reader: pa.RecordBatchReader) -> int:
    """Return the cursor up to which the reader reads; pass it as ``after`` to read on."""
    return int(reader.schema.metadata[CURSOR.encode()])


class _Body(io.RawIOBase):
    """An answer's body for Arrow to read, which takes a plain end of the bytes for the end of the stream."""

    def __init__(self, response: HTTPResponse) -> None:
        super().__init__()
        self._response = response

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._response.read(size)
        except (OSError, HTTPException) as error:
            raise LinkError("the node broke the view off before its end; read on from the last cursor") from error

    def close(self) -> None:
        self._response.close()
        super().close()


def _refusal(status: int, body: bytes) -> DatasyncError:
    try:
        problem: dict[str, Any] = json.loads(body)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        return RequestError(f"the node answered {status}")
    if code == AccessDenied.code:
        return AccessDenied(detail, reason=str(problem.get("reason", "")))
    kind = next((each for each in _REFUSALS if each.code == code), None)
    return RequestError(f"{detail} [{code}]") if kind is None else kind(detail)


_REFUSALS = (
    Unauthenticated,
    CertificateRefused,
    CertificateRevoked,
    CredentialsDiffer,
    Forbidden,
    CertificateForeign,
    PurposeForbidden,
    NotFound,
)
"""What a node refuses with, and the caller is told by an error of the same class."""
