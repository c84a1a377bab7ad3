"""A device that is enrolled by a picture and a code: other decoders read what is drawn, and it makes the folder."""

import contextlib
import io
import json
import shutil
import stat
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import deqr
import numpy as np
import pytest

from datasync.cli.main import main
from datasync.nodes.config import DeviceConfig
from datasync.nodes.config_file import load
from datasync.nodes.shell import system_clock
from datasync.security.files import read_key
from datasync.security.identity import Identity, Role
from datasync.security.trust import Trust

SCAN = ("enroll", "scan", "scanned", "--folder", "watch", "--code-file", "watch.code")
HOME = ("--edge", "acme/cbd", "--broker", "mqtts://cbd.example:8884")
SHOWN = ("--qr", "watch.png", "--code-file", "watch.code", *HOME)
DEVICE = ("enroll", "device", "watch-7", "--authority", "acme")


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the authorities of two operators, and an enrolment that was drawn."""
    folder = tmp_path_factory.mktemp("issued")
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as said:
        for operator in ("acme", "borealis"):
            assert main(["enroll", "ca", operator, "--folder", operator]) == 0
        before = {path for path in Path().rglob("*") if path.is_file()}
        said.truncate(said.seek(0))
        assert main([*DEVICE, "--trust", "borealis/authority.pem", *SHOWN, "--json"]) == 0
        made = [str(path) for path in Path().rglob("*") if path.is_file() and path not in before]
    (folder / "said.json").write_text(json.dumps(json.loads(said.getvalue()) | {"made": made}))
    return folder


@pytest.fixture(autouse=True)
def said(issued: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A copy of that folder to work in; what the command said as JSON, and the files that it made."""
    shutil.copytree(issued, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)  # as a home is
    said: dict[str, Any] = json.loads(Path("said.json").read_text())
    Path("scanned").write_text(said["text"] + "\n")
    return said


def pixels(png: bytes) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return the grey values of a PNG file of one bit for each pixel, as drawn here."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        chunks[kind] = chunks.get(kind, b"") + png[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, depth, colours = struct.unpack(">IIBB", chunks[b"IHDR"][:10])
    assert (depth, colours) == (1, 0)
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1).copy()
    assert set(rows[:, 0]) <= {0, 2}  # a row as it is, or the difference to the one above
    for row in np.flatnonzero(rows[:, 0]):
        rows[row] += rows[row - 1]
    return np.unpackbits(rows[:, 1:], axis=1)[:, :width] * np.uint8(255)


@pytest.mark.parametrize("decoder", [deqr.QRdecDecoder, deqr.QuircDecoder])
def test_a_picture_is_read_by_other_decoders(said: dict[str, Any], decoder: Any) -> None:
    (symbol,) = decoder().decode(pixels(Path("watch.png").read_bytes()))
    (entry,) = symbol.data_entries
    text = entry.data if isinstance(entry.data, str) else bytes(entry.data).decode("ascii")
    assert text == said["text"]
    assert said["version"] <= 18


def test_what_is_scanned_makes_the_folder_that_a_file_based_enrolment_makes(capsys: Any) -> None:
    assert main([*DEVICE, "--folder", "other", "--trust", "borealis/authority.pem"]) == 0
    capsys.readouterr()
    assert main(SCAN) == 0
    configuration = capsys.readouterr().out
    files = {path.relative_to("watch") for path in Path("watch").rglob("*") if path.is_file()}
    assert files == {path.relative_to("other") for path in Path("other").rglob("*") if path.is_file()}
    assert {stat.S_IMODE((Path("watch") / path).stat().st_mode) for path in files} == {0o600}
    identity = Identity.load(Path("watch/identity"))
    peer = Trust.load(Path("watch/trust")).verify(identity.certificate, system_clock())
    assert (peer.name, peer.role, peer.operator) == ("watch-7", Role.DEVICE, "acme")
    assert len(read_key(Path("watch/keys/node.key"))) == 32
    Path("watch/device.toml").write_text(configuration)
    home = load(DeviceConfig, Path("watch/device.toml"), {}).first_edge
    assert (home.name, home.url.url) == ("acme/cbd", "mqtts://cbd.example:8884")
    assert main(SCAN) == 1
    assert "not overwritten" in capsys.readouterr().err
    assert Identity.load(Path("watch/identity")).secret == identity.secret


def test_its_keys_are_in_the_picture_and_nowhere_else(said: dict[str, Any]) -> None:
    made = [Path(path) for path in said["made"]]
    assert sorted(path.name for path in made if path.parent == Path()) == ["watch.code", "watch.png"]
    assert {path.parent.name for path in made if path.parent != Path()} == {"issued"}
    assert all(b"PRIVATE" not in path.read_bytes() for path in made)
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o600}


def test_the_code_is_not_shown_beside_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DEVICE, "--qr", "watch.svg", "--code-file", "watch.code", *HOME]) == 0
    told = capsys.readouterr()
    code = Path("watch.code").read_text().strip()
    assert len(code.replace("-", "")) == 16
    assert code not in told.out + told.err + Path("watch.svg").read_text()
    assert "█" in told.out


def test_the_text_may_be_piped_and_the_code_be_in_the_environment(
    said: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said["text"].encode())))
    monkeypatch.setenv("DATASYNC_ENROLMENT_CODE", Path("watch.code").read_text().lower())
    assert main(["enroll", "scan", "--folder", "watch"]) == 0
    assert Identity.load(Path("watch/identity")).name == "watch-7"


def test_a_folder_that_was_made_before_is_shown_with_its_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*DEVICE, "--folder", "before", "--kem", "mlkem768-x25519"]) == 0
    capsys.readouterr()
    assert main(["enroll", "qr", "--folder", "before", *SHOWN, "--json"]) == 0
    Path("scanned").write_text(json.loads(capsys.readouterr().out)["text"])
    assert main(SCAN) == 0
    before, after = Identity.load(Path("before/identity")), Identity.load(Path("watch/identity"))
    assert after.certificate == before.certificate
    assert after.secret == before.secret


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text[:-1], "ENROLMENT_DAMAGED"),
        (lambda text: text.replace("DS1:", "DS1:0"), "ENROLMENT_DAMAGED"),
        (lambda text: text + "0" * 5_000, "ENROLMENT_TOO_LARGE"),
        (lambda text: "0" * 100_000, "ENROLMENT_TOO_LARGE"),
        (lambda text: "", "ENROLMENT_DAMAGED"),
    ],
)
def test_what_is_not_whole_is_refused_before_a_code_is_asked_for_and_leaves_nothing(
    said: dict[str, Any], capsys: pytest.CaptureFixture[str], change: Any, code: str
) -> None:
    Path("scanned").write_text(change(said["text"]))
    assert main(SCAN[:-2]) == 1
    assert capsys.readouterr().err.rstrip().endswith(f"[{code}]")
    assert not Path("watch").exists()


def test_a_wrong_code_and_a_file_of_it_that_others_can_read_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATASYNC_ENROLMENT_CODE", "0000-0000-0000-0000")
    assert main(SCAN[:-2]) == 1
    assert "[ENROLMENT_CODE_WRONG]" in capsys.readouterr().err
    monkeypatch.delenv("DATASYNC_ENROLMENT_CODE")
    Path("watch.code").chmod(0o644)
    assert main(SCAN) == 1
    assert "chmod 600 watch.code" in capsys.readouterr().err
    assert main(SCAN[:-2]) == 1
    assert "none was given" in capsys.readouterr().err
    assert not Path("watch").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--qr", "watch.png", *HOME),
        ("--qr", "watch.png", "--code-file", "watch.code"),
        ("--qr", "watch.jpeg", "--code-file", "watch.code", *HOME),
        ("--qr", "watch.png", "--code-file", "watch.code", *HOME, "--folder", "watch"),
        ("--qr", "watch.png", "--code-file", "watch.code", "--edge", "cbd", *HOME[2:]),
        ("--qr", "watch.png", "--code-file", "watch.code", *HOME[:2], "--broker", "mqtt://cbd.example"),
        ("--qr", "watch.png", "--code-file", "watch.code", *HOME[:2], "--broker", "embedded://127.0.0.1"),
        (),
    ],
)
def test_what_makes_no_qr_code_is_refused_before_anything_is_issued(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(list(Path("acme/issued").iterdir()))
    assert main([*DEVICE, *words]) == 1
    assert "[CONFIG_INVALID]" in capsys.readouterr().err
    assert len(list(Path("acme/issued").iterdir())) == before


def test_a_folder_of_another_node_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["enroll", "edge", "acme/cbd", "--authority", "acme", "--folder", "cbd"]) == 0
    assert main(["enroll", "qr", "--folder", "cbd", *SHOWN]) == 1
    assert "no device" in capsys.readouterr().err
