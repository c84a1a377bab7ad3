"""A visit: one watch of the demo goes to another operator's edge, as a process of its own, and says how it went."""

import argparse
import json
import sys
import time
from pathlib import Path

from datasync.demo.watch import is_safe, until
from datasync.nodes.agent import Device


def main() -> int:
    """Go there, wait until the edge serves the device, print that as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--edge", required=True)
    parser.add_argument("--agree", action="store_true", help="the wearer allows that state crosses to the operator")
    said = parser.parse_args()
    with Device(said.config) as device:
        until(lambda: is_safe(device), "the device to be where it was")
        device.consent("roaming", given=said.agree)
        until(lambda: is_safe(device), "the consent to arrive")
        began = time.monotonic()
        device.move(said.edge, planned=False)
        until(lambda: device.whereabouts.edge == said.edge and is_safe(device), f"{said.edge} to serve the device")
        print(json.dumps({"ms": round(1_000 * (time.monotonic() - began))}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
