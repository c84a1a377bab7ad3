"""What a run of the demo is asked for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """``speed`` is how much faster than real time the recordings play; 0 is as fast as this machine can.

    With ``tls`` every connection, to brokers and to HTTP APIs, is encrypted and verified at both ends.
    """

    seed: int = 1
    devices: int = 6
    speed: float = 0
    json: bool = False
    keep: bool = False
    tls: bool = False
