"""``datasync enroll device --qr``, ``enroll qr`` and ``enroll scan``: a device enrolled by a picture and a code.

The picture holds the device's keys, sealed under a one-time code, which is written to a file and never shown beside it:
tell it to the device by another way. Keys that were made for a picture are in it and nowhere else. On the device,
``scan`` takes the text that a scanner read off the picture, and makes the folder that ``enroll device --folder`` makes.
"""

import argparse
import getpass
import io
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from datasync.cli import enroll_bundle as bundle
from datasync.cli.enroll_options import replace_file
from datasync.cli.output import add_json, print_json
from datasync.domain.errors import ConfigError, DependencyMissing
from datasync.domain.ids import NodeName, node_name, operator_of
from datasync.nodes.config import Broker, is_loopback
from datasync.nodes.shell import system_clock
from datasync.protocol import enrolment
from datasync.protocol.enrolment import TEXT_CHARACTERS_MAX, Enrolment
from datasync.security import certificates
from datasync.security.files import read_file, require_private
from datasync.security.identity import Identity, Role

if TYPE_CHECKING:
    from segno import QRCode

MINUTES = 60
MINUTES_MAX = 7 * 24 * 60
IMAGES = (".svg", ".png")
CODE_VARIABLE = "DATASYNC_ENROLMENT_CODE"

_ERROR_CORRECTION = "m"  # 15 % of the symbol may be unreadable
_PIXELS = 8  # of a module in an image


@dataclass(frozen=True, slots=True)
class Place:
    """Where the device is at home."""

    edge: NodeName
    broker: Broker


def configure(kinds: Any) -> None:
    """Declare the kinds among those of ``datasync enroll``."""
    issued = kinds.add_parser("qr", help="show a device's folder, made before, as a QR code")
    issued.add_argument("--folder", type=Path, required=True, help="made by `datasync enroll device --folder`")
    add_options(issued, required=True)
    issued.set_defaults(run=_show_issued)
    scan = kinds.add_parser("scan", help="on a device: make its folder from the text of a scanned QR code")
    scan.add_argument(
        "text", nargs="?", default="-", metavar="FILE", help="a file with the text (default: what is piped)"
    )
    scan.add_argument("--folder", type=Path, required=True, help="where identity/, trust/ and keys/ are made")
    scan.add_argument(
        "--code-file", type=Path, metavar="FILE", help=f"a file with the code (default: {CODE_VARIABLE}, or asked for)"
    )
    scan.set_defaults(run=_scan)
    for kind in (issued, scan):
        add_json(kind)


def add_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Declare what a QR code is made of."""
    options = parser.add_argument_group("as a QR code")
    options.add_argument("--qr", type=Path, required=required, metavar="FILE", help="the picture: FILE.svg or FILE.png")
    options.add_argument("--code-file", type=Path, metavar="FILE", help="where the one-time code is written")
    options.add_argument("--edge", metavar="NAME", help="the device's home edge, for example acme/cbd")
    options.add_argument("--broker", metavar="URL", help="that edge's broker, mqtts://host:port")
    options.add_argument(
        "--minutes", type=_minutes, default=MINUTES, help="how long it can be scanned (default: %(default)s)"
    )


def place(arguments: argparse.Namespace) -> Place:
    """Return where the device is to be at home, before anything is issued. Raises ConfigError for what is missing."""
    if arguments.code_file is None or arguments.edge is None or arguments.broker is None:
        raise ConfigError("a QR code needs more", fix="give --code-file, --edge and --broker besides --qr")
    if arguments.qr.suffix not in IMAGES:
        raise ConfigError("it is no picture", where=str(arguments.qr), fix="name it FILE.svg or FILE.png")
    _segno()
    return _place(arguments.edge, arguments.broker)


def show(
    arguments: argparse.Namespace, device: Identity, pems: Sequence[bytes], at: Place, *, with_secret: bool = False
) -> int:
    """Draw a device's enrolment at the terminal and into a picture, and write its code to a file."""
    code = enrolment.draw_code(secrets.token_bytes)
    expires_ms = system_clock().wall_ms + arguments.minutes * 60_000
    whole = Enrolment(device, _own_first(device, pems), at.edge, at.broker.url, expires_ms)
    text = enrolment.pack(whole, code, secrets.token_bytes, with_secret=with_secret)
    symbol = _segno().make(text, error=_ERROR_CORRECTION, boost_error=False, micro=False)
    replace_file(arguments.qr, _image(symbol, arguments.qr.suffix[1:]))
    replace_file(arguments.code_file, code.encode() + b"\n")
    made = {"name": device.name, "qr": str(arguments.qr), "code_file": str(arguments.code_file)}
    if arguments.json:
        print_json({**made, "text": text, "expires_ms": expires_ms, "version": symbol.version})
    else:
        symbol.terminal(compact=True)
        print(f"{device.name} scans this within {arguments.minutes} minutes, with the code in {arguments.code_file}")
    return 0


def _show_issued(arguments: argparse.Namespace) -> int:
    at = place(arguments)
    device = Identity.load(arguments.folder / "identity")
    if device.role is not Role.DEVICE:
        raise ConfigError(f"{device.name} is a {device.role}, and no device", where=str(arguments.folder))
    pems = [read_file(path) for path in sorted((arguments.folder / "trust").glob("*.pem"))]
    return show(arguments, device, pems, at, with_secret=True)


def _scan(arguments: argparse.Namespace) -> int:
    folder: Path = arguments.folder.absolute()
    bundle.require_new(folder)
    text = _text(arguments.text)
    enrolment.undamaged(text)
    scanned = enrolment.unpack(text, _code(arguments), system_clock(), secrets.token_bytes)
    home = _place(scanned.edge, scanned.broker)
    written = bundle.write(folder, scanned.identity, {_operator(each): _pem(each) for each in scanned.authorities})
    edge = {"name": home.edge, "url": home.broker.url}
    if arguments.json:
        print_json({"name": scanned.identity.name, "role": Role.DEVICE.value, **written, "edges": [edge]})
    else:
        bundle.print_toml(scanned.identity.name, written)
        print("\n".join(["", "[[edges]]", *(f"{key} = {json.dumps(value)}" for key, value in edge.items())]))
    return 0


def _place(edge: str, broker: str) -> Place:
    try:
        at = Place(node_name(edge), Broker.parse(broker))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if at.broker.embedded or not operator_of(at.edge):
        raise ConfigError(f"{edge} at {broker} is no edge's broker", fix="write operator/name, and mqtts://host:port")
    if not (at.broker.tls or is_loopback(at.broker.host)):
        raise ConfigError(f"{broker} is on another machine and without TLS", fix="write mqtts://host:port")
    return at


def _own_first(device: Identity, pems: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the authorities (DER), the one that issued the device's certificate first. Raises ConfigError."""
    known = [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in pems]
    certificate = certificates.parse(device.certificate)
    own = [der for der in known if certificates.is_issued_by(certificate, certificates.read_authority(der))]
    if not own:
        raise ConfigError(f"no authority here issued the certificate of {device.name}")
    return own[0], *(der for der in known if der != own[0])


def _operator(authority: bytes) -> str:
    return certificates.read_authority(authority).operator


def _pem(certificate: bytes) -> bytes:
    return x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM)


def _text(file: str) -> str:
    """Return what was scanned, or the beginning of it where it is far too long. Raises ConfigError."""
    if file == "-":
        return _begin(sys.stdin.buffer)
    try:
        with Path(file).open("rb") as source:
            return _begin(source)
    except OSError as error:
        raise ConfigError(f"it cannot be read: {error.strerror}", where=file) from error


def _begin(source: BinaryIO) -> str:
    return source.read(2 * TEXT_CHARACTERS_MAX).decode("ascii", errors="replace")


def _code(arguments: argparse.Namespace) -> str:
    """Return the code, never from the command line, which others can see. Raises ConfigError when nobody says it."""
    if arguments.code_file is not None:
        said = read_file(arguments.code_file)
        require_private(arguments.code_file)
        return said.decode("ascii", errors="replace")
    if code := os.environ.get(CODE_VARIABLE):
        return code
    if not Path("/dev/tty").exists() or not sys.stderr.isatty():
        raise ConfigError("it is sealed under a code, and none was given", fix=f"give --code-file, or {CODE_VARIABLE}")
    return getpass.getpass("Code: ")  # at the terminal, whatever is piped in


def _image(symbol: "QRCode", kind: str) -> bytes:
    image = io.BytesIO()
    symbol.save(image, kind=kind, scale=_PIXELS)
    return image.getvalue()


def _segno() -> Any:
    try:
        import segno
    except ImportError as error:
        raise DependencyMissing("drawing QR codes needs segno", fix="pip install 'datasync[qr]'") from error
    return segno


def _minutes(text: str) -> int:
    minutes = int(text)
    if not 1 <= minutes <= MINUTES_MAX:
        raise argparse.ArgumentTypeError(f"{minutes} is not in 1..{MINUTES_MAX}")
    return minutes
