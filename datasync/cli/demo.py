"""``datasync demo``: the worked example; installs the packages that only it needs where they are missing."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata

from datasync.cli.output import add_json
from datasync.demo.options import DemoOptions
from datasync.domain.errors import DependencyMissing

EXTRA = "demo"
DEVICES_MAX = 64


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the demo."""
    defaults = DemoOptions()
    add_json(parser)
    parser.add_argument("--keep", action="store_true", help="leave it running at the end, with the addresses printed")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of all that is random (default: %(default)s)")
    parser.add_argument(
        "--devices", type=_devices, default=defaults.devices, help="how many subjects record (default: %(default)s)"
    )
    parser.add_argument(
        "--speed",
        type=_speed,
        default=defaults.speed,
        help="times real time, 0 as fast as this machine can (default: %(default)s)",
    )
    parser.add_argument("--tls", action="store_true", help="encrypt and verify every connection")
    parser.add_argument("--no-install", action="store_true", help="fail rather than install missing packages with pip")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    provide(missing_requirements(EXTRA), install=not arguments.no_install)
    from datasync.demo.run import main_demo  # only now is what it imports sure to be there

    return main_demo(
        DemoOptions(
            seed=arguments.seed,
            devices=arguments.devices,
            speed=arguments.speed,
            json=arguments.json,
            keep=arguments.keep,
            tls=arguments.tls,
        )
    )


def missing_requirements(extra: str) -> list[str]:
    """Return the requirements of one of datasync's extras, as pip takes them, that are not installed at all."""
    marked = re.compile(rf"""^(?P<requirement>(?P<name>[\w.-]+)[^;]*);.*\bextra\s*==\s*['"]{extra}['"]""")
    found = filter(None, (marked.match(text) for text in metadata.requires("datasync") or []))
    return [match["requirement"].strip() for match in found if not _is_installed(match["name"])]


def provide(requirements: Sequence[str], *, install: bool) -> None:
    """Install the requirements into this environment. Raises DependencyMissing when that may not be or fails."""
    if not requirements:
        return
    command = [sys.executable, "-m", "pip", "install", *requirements]
    error = DependencyMissing(
        f"not installed here: {', '.join(requirements)}", where="datasync demo", fix=f"run: {shlex.join(command)}"
    )
    if not install:
        raise error
    print(f"installing what the demo needs besides datasync: {', '.join(requirements)}", file=sys.stderr)
    if subprocess.run([*command, "--quiet"], stdout=sys.stderr, check=False).returncode != 0:  # noqa: S603 (no shell)
        raise error
    importlib.invalidate_caches()


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _devices(text: str) -> int:
    count = int(text)
    if not 1 <= count <= DEVICES_MAX:
        raise argparse.ArgumentTypeError(f"{count} is not in 1..{DEVICES_MAX}")
    return count


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no finite number from 0 up")
    return speed
