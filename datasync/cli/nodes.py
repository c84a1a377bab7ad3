"""``datasync device|edge|cloud``: run one node until it is told to stop."""

import argparse
import os
from pathlib import Path

from datasync.nodes.config import CloudConfig, DeviceConfig, EdgeConfig
from datasync.nodes.config_file import load
from datasync.nodes.run import run_cloud, run_device, run_edge


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of a node."""
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="TOML; DATASYNC_… variables go over it (see deploy/)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "device":
            run_device(load(DeviceConfig, arguments.config, os.environ))
        case "edge":
            run_edge(load(EdgeConfig, arguments.config, os.environ))
        case "cloud":
            run_cloud(load(CloudConfig, arguments.config, os.environ))
        case other:
            raise AssertionError(f"{other} is no kind of node")
    return 0
