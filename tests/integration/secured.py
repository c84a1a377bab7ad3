"""Operators, what they enrolled, and brokers with TLS whose configuration ``datasync broker config`` made."""

import contextlib
import io
from dataclasses import dataclass, field
from pathlib import Path

from datasync.cli.main import main
from datasync.domain.clock import Instant
from datasync.domain.ids import NodeName, dotted, node_name, operator_of
from datasync.nodes.shell import system_clock
from datasync.security.identity import Role
from datasync.security.tls import Caller, calling
from datasync.security.trust import Authority, Trust
from datasync.store.workers import token_hash
from tests.integration.mosquitto import Mosquitto, mosquitto_program

CLOUD, CBD, DOCKS, HUB = (node_name(name) for name in ("acme/cloud", "acme/cbd", "acme/docks", "borealis/hub"))
WATCH, OTHER = node_name("watch-7"), node_name("watch-8")
DAY_MS = 86_400_000


@dataclass(slots=True)
class Realm:
    """The operators acme and borealis, who trust each other, and mallory, whom nobody trusts."""

    folder: Path
    authorities: dict[str, Authority] = field(init=False)
    trust: Trust = field(init=False)

    def __post_init__(self) -> None:
        self.authorities = {name: Authority.create(name, system_clock()) for name in ("acme", "borealis", "mallory")}
        self.trust = Trust([self.authorities[name].certificate for name in ("acme", "borealis")])
        for name, authority in self.authorities.items():
            authority.save(self.folder / name)

    def enrol(self, name: NodeName, role: Role, by: str = "", *, label: str = "", ago_days: int = 0) -> Path:
        """Return the folder of a new identity, valid for a day from ``ago_days`` ago."""
        now = Instant(system_clock().wall_ms - ago_days * DAY_MS, 0)
        identity = self.authorities[by or operator_of(name) or "acme"].enrol(name, role, now=now, days=1)
        folder = self.folder / f"{label or role.value}-{dotted(name)}"
        identity.save(folder)
        return folder

    def caller(self, name: NodeName, identity: Path | None) -> Caller:
        """Return how ``identity`` calls the node of that name, or its broker."""
        return Caller(name, self.trust, calling(self.trust, identity), system_clock)

    def broker(self, name: NodeName, role: Role, *options: str) -> Mosquitto:
        """Return the running broker of an edge or a cloud, which is enrolled for it."""
        home = self.folder / f"home-{dotted(name)}"
        self.enrol(name, role).rename(f"{home}-identity")
        self.enrol(name, Role.BROKER).rename(f"{home}-broker")
        config = Path(f"{home}.toml")

        def generate(port: int) -> str:
            config.write_text(self._configuration(home, role, port))
            with contextlib.redirect_stdout(io.StringIO()):
                command = ["broker", "config", "--for", role.value, "--config", str(config), "--out", str(home)]
                assert main([*command, "--identity", f"{home}-broker", *options]) == 0
            return (home / "mosquitto.conf").read_text()

        broker = Mosquitto(mosquitto_program(), self.folder / f"run-{dotted(name)}", generate=generate)
        broker.start()
        return broker

    def identity(self, name: NodeName) -> Path:
        """Return the folder of the node whose broker was started."""
        return self.folder / f"home-{dotted(name)}-identity"

    def _configuration(self, home: Path, role: Role, port: int) -> str:
        trust = home.with_name("trusted")
        trust.mkdir(exist_ok=True)
        for name in ("acme", "borealis"):
            (trust / f"{name}.pem").write_bytes((self.folder / name / "authority.pem").read_bytes())
        lines = [
            f'identity = "{home}-identity"',
            f'trust = "{trust}"',
            'node_key = "node.key"',
            'database = "sqlite:///data.db"',
            'keys = "sqlite:///keys.db"',
            f'broker = "mqtts://127.0.0.1:{port}"',
            f'admin_token_hash = "{token_hash("token")}"',
        ]
        if role is Role.EDGE:
            lines += ['backbone = "mqtts://localhost"', f'cloud = "{CLOUD}"']
        return "\n".join(lines)
