"""``datasync policy sign|push``: a policy signed where its key is kept, and given to a node by who need not have it.

The file is read once: what was checked is what is signed. With ``--digest`` it must also be what was reviewed, as
``policy check`` named it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from datasync.cli.api_client import ApiClient, add_api, pieces
from datasync.cli.output import add_json, print_json
from datasync.domain.errors import ConfigError, PolicyDigestMismatch
from datasync.domain.limits import BUNDLE_BYTES_MAX, POLICY_BYTES_MAX
from datasync.policy.compiled import Policy
from datasync.policy.loading import load
from datasync.protocol import bundle
from datasync.security.identity import Identity, Role


def configure(actions: Any) -> None:
    """Declare both actions among those of ``datasync policy``."""
    sign = actions.add_parser("sign", help="sign a policy with the policy key, for `policy push`")
    sign.add_argument("file", type=Path, metavar="FILE")
    sign.add_argument("--key", type=Path, required=True, metavar="FOLDER", help="made by `datasync enroll policy-key`")
    sign.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="new file for the signed policy")
    sign.add_argument("--digest", metavar="HEX", help="what it must be, as `datasync policy check` printed it")
    sign.set_defaults(run=_sign)
    push = actions.add_parser("push", help="have a node, as a rule the cloud, take a signed policy and pass it on")
    push.add_argument("bundle", type=Path, metavar="BUNDLE", help="written by `datasync policy sign`")
    add_api(push)
    push.set_defaults(run=_push)
    for action in (sign, push):
        add_json(action)


def _sign(arguments: argparse.Namespace) -> int:
    policy = load(_read(arguments.file, POLICY_BYTES_MAX), name=str(arguments.file))
    if arguments.digest not in (None, policy.digest):
        raise PolicyDigestMismatch(
            f"its digest is {policy.digest}, not {arguments.digest}",
            where=str(arguments.file),
            fix="it was changed since: review it again",
        )
    key = Identity.load(arguments.key)
    if key.role is not Role.POLICY:
        raise ConfigError(f"{key.name} is enrolled as {key.role}, not as a policy key", where=str(arguments.key))
    _write(arguments.out, bundle.sign(key, policy))
    _print(arguments, {**_summary(policy), "signed_by": key.name, "bundle": str(arguments.out)})
    return 0


def _push(arguments: argparse.Namespace) -> int:
    signed = _read(arguments.bundle, BUNDLE_BYTES_MAX)
    client = ApiClient.of(arguments)
    with client.request("POST", ("v1", "admin", "policies"), {}, signed, bundle.MEDIA_TYPE) as response:
        _print(arguments, json.loads(b"".join(pieces(response))))
    return 0


def _read(path: Path, bytes_max: int) -> bytes:
    """Return a file's content, and of one that is too large enough for it to be refused as that."""
    try:
        with path.open("rb") as file:
            return file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(path)) from error


def _write(path: Path, content: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(content)
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}", where=str(path)) from error


def _summary(policy: Policy) -> dict[str, Any]:
    return {"id": policy.document.id, "revision": policy.revision, "digest": policy.digest}


def _print(arguments: argparse.Namespace, done: dict[str, Any]) -> None:
    if arguments.json:
        print_json(done)
    else:
        print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in done.items()))
