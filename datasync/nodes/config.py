"""What a node's configuration says: one strict, closed and immutable model for each kind of node.

:mod:`datasync.nodes.config_file` reads it from TOML. Paths and ``sqlite:///`` URLs that are relative start at the
file's folder, which the validation context carries.
"""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    model_validator,
)

from datasync.domain.errors import ConfigError
from datasync.domain.ids import NodeName, node_name, operator_of
from datasync.domain.limits import (
    FLUSH_MS,
    FLUSH_ROWS,
    MESSAGE_BYTES_MAX,
    META_ENTRIES_MAX,
    RETRY_MS,
    RETRY_MS_MAX,
    SEGMENT_ROWS_MAX,
    SIGN_MS,
    WINDOW_BYTES,
)
from datasync.security.files import read_file
from datasync.security.node_keys import KeyAddress
from datasync.store.workers import token_hash

_BROKERS = {
    "mqtts": (False, True, 8883),
    "mqtt": (False, False, 1883),
    "embedded+mqtts": (True, True, 8883),
    "embedded": (True, False, 1883),
}
"""By scheme: whether the broker is in this process, whether it speaks TLS, and its usual port."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where an MQTT broker listens, whether this process is the one that starts it, and whether it speaks TLS."""

    host: str
    port: int
    embedded: bool = False
    tls: bool = False

    @property
    def url(self) -> str:
        """The address for clients, ``mqtts://host:port``, or ``mqtt://host:port`` without TLS."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the broker that a URL means. Raises ValueError."""
        form = "write mqtts://host:port, or embedded+mqtts://host:port for a broker inside this process"
        if not isinstance(text, str):
            raise ValueError(form)
        url = urlsplit(text)
        if url.scheme not in _BROKERS or not url.hostname:
            raise ValueError(f"{text!r} is no broker; {form}")
        if url.username is not None or url.path not in ("", "/") or url.query or url.fragment:
            raise ValueError(f"{text!r} says more than a host and a port; {form}")
        embedded, tls, port = _BROKERS[url.scheme]
        return cls(url.hostname, url.port or port, embedded, tls)


def _remote(broker: Broker) -> Broker:
    if broker.embedded:
        raise ValueError("another node's broker cannot be embedded in this process; write mqtts://host:port")
    return broker


def is_loopback(host: str) -> bool:
    """Whether what is said to this host stays on this machine; of names only ``localhost`` is known to."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _under_folder(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {})["folder"]) / path.expanduser()


def _key_address(text: object, info: ValidationInfo) -> KeyAddress:
    if not isinstance(text, str):
        raise ValueError("write where the node's key is, for example file:keys/node.key")
    return KeyAddress.parse(text, Path((info.context or {})["folder"]))


def _database(url: str, info: ValidationInfo) -> str:
    if url.startswith("postgresql+psycopg://"):
        return url
    scheme, separator, path = url.partition("sqlite:///")
    if scheme or not separator or not path or path.startswith(":memory:"):
        raise ValueError("write sqlite:///file.db, or postgresql+psycopg://user@host/database")
    return f"sqlite:///{_under_folder(Path(path), info)}"


def _edge_name(text: str) -> NodeName:
    name = node_name(text)
    if not operator_of(name):
        raise ValueError(f"{text!r} names no operator: write operator/name, as in acme/cbd")
    return name


def _hash(text: str) -> str:
    if re.fullmatch("[0-9a-f]{64}", text) is None:
        raise ValueError("write the 64 hexadecimal digits that `datasync enroll admin` prints")
    return text


Url = Annotated[Broker, PlainValidator(Broker.parse)]
RemoteUrl = Annotated[Broker, PlainValidator(Broker.parse), AfterValidator(_remote)]
FilePath = Annotated[Path, AfterValidator(_under_folder)]
NodeKeyAddress = Annotated[KeyAddress, PlainValidator(_key_address)]
DatabaseUrl = Annotated[str, AfterValidator(_database)]
TokenHash = Annotated[str, AfterValidator(_hash)]
OperatedName = Annotated[NodeName, AfterValidator(_edge_name)]
ClientCertificates = Literal["required", "accepted", "off"]
Milliseconds = Annotated[int, Field(ge=1, le=3_600_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """Part of a configuration; strict, closed and immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class EdgeAddress(Section):
    """One edge that a device may attach to."""

    name: OperatedName
    url: RemoteUrl


class Capture(Section):
    """When recorded rows are made a batch: at so many rows or after so many milliseconds, whichever is first."""

    flush_rows: int = Field(default=FLUSH_ROWS, ge=1, le=SEGMENT_ROWS_MAX)
    flush_ms: Milliseconds = FLUSH_MS
    sign_ms: int = Field(default=SIGN_MS, ge=0, le=60_000)
    """Time between two signatures of small batches of a collection; an edge shows none before it is signed."""


class Http(Section):
    """Where the HTTP API listens."""

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    tls: bool | None = None
    """Whether it speaks TLS, with the node's certificate; unless said, on every address that is not loopback."""
    client_certificates: ClientCertificates | None = None
    """Whether it asks clients for certificates of trusted operators; unless said, they are required where TLS is on."""
    probes_port: int | None = Field(default=None, ge=0, le=65_535)
    """A port without TLS that answers /healthz and /readyz alone, for probers that have no certificate."""

    @property
    def asks(self) -> ClientCertificates:
        """Whether clients must, or may, show certificates."""
        if self.client_certificates is None:
            return "required" if self.is_tls else "off"
        return self.client_certificates

    @model_validator(mode="after")
    def _certificates_need_tls(self) -> Self:
        if self.asks != "off" and not self.is_tls:
            raise ValueError(f"client_certificates = {self.asks!r} needs tls = true: they are shown in TLS alone")
        return self

    @property
    def url(self) -> str:
        """The address for clients."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"

    @property
    def is_tls(self) -> bool:
        """Whether it speaks TLS."""
        return not is_loopback(self.host) if self.tls is None else self.tls


class Administered(Section):
    """Whom the HTTP API takes for the administrator."""

    admin_token_hash: TokenHash | None = None
    """SHA-256 of the administrator's token, as ``datasync enroll admin`` prints it."""
    admin_token_file: FilePath | None = None
    """A file that holds the administrator's token itself."""

    @model_validator(mode="after")
    def _one_admin_token(self) -> Self:
        if (self.admin_token_hash is None) == (self.admin_token_file is None):
            raise ValueError("give one of admin_token_hash and admin_token_file; `datasync enroll admin` makes a token")
        return self

    def admin_hash(self) -> str:
        """Return the hash of the administrator's token, 64 hexadecimal digits. Raises ConfigError."""
        if self.admin_token_hash is not None:
            return self.admin_token_hash
        if self.admin_token_file is None:
            raise AssertionError("a configuration has one of the two")
        token = read_file(self.admin_token_file).decode(errors="replace").strip()
        if len(token) < 32:
            raise ConfigError(
                "an administrator's token has at least 32 characters",
                where=str(self.admin_token_file),
                fix="make one with: datasync enroll admin",
            )
        return token_hash(token)


class Api(Http, Administered):
    """The HTTP API of a device, which has none unless this section is there."""


class NodeConfig(Section):
    """What every kind of node has."""

    identity: FilePath
    """Folder with the node's certificate and private keys; the node's name is in the certificate."""
    trust: FilePath
    """Folder with the certificates of the authorities of trusted operators."""
    database: DatabaseUrl
    keys: DatabaseUrl
    """The database of wrapped data keys, kept apart from the data that they decrypt."""
    node_key: NodeKeyAddress
    """Where the key is that wraps the data keys; :mod:`datasync.security.node_keys` reads it."""
    policy: FilePath | None = None
    """A policy to start with where the database holds none yet, or one of a lower revision."""
    retry_ms: int = Field(default=RETRY_MS, ge=1, le=RETRY_MS_MAX)
    """After how long something unacknowledged is sent again; the interval doubles up to ``RETRY_MS_MAX``."""
    window_bytes: int = Field(WINDOW_BYTES, ge=1 << 16, le=64 * MESSAGE_BYTES_MAX)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    insecure: bool = False
    """Whether brokers on other machines may be reached without TLS."""

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """All brokers that the node connects to."""
        return ()

    @model_validator(mode="after")
    def _encrypted(self) -> Self:
        for broker in self.brokers:
            if not (broker.tls or self.insecure or is_loopback(broker.host)):
                raise ValueError(
                    f"{broker.url} is on another machine and without TLS; write mqtts://, see `datasync broker config`,"
                    " or, to let everybody on the way listen and disturb, insecure = true"
                )
        return self

    @model_validator(mode="after")
    def _keys_apart(self) -> Self:
        if self.keys == self.database:
            raise ValueError("keys and database must be two databases: a stolen one must not open itself")
        return self


class DeviceConfig(NodeConfig):
    """A device's configuration."""

    database: DatabaseUrl = "sqlite:///device.db"
    keys: DatabaseUrl = "sqlite:///device-keys.db"
    edges: tuple[EdgeAddress, ...]
    home: OperatedName | None = None
    """The edge to attach to first; the first of ``edges`` unless said."""
    capture: Capture = Capture()
    meta: dict[str, str | int | float | bool] = Field(default_factory=dict, max_length=META_ENTRIES_MAX)
    """The device's constants, such as its region; the policy says which of them a collection's segments carry."""
    api: Api | None = None

    @model_validator(mode="after")
    def _edges_known(self) -> Self:
        names = [edge.name for edge in self.edges]
        if not names:
            raise ValueError("edges lists no edge; write name and url of one at least")
        if len(set(names)) < len(names):
            raise ValueError(f"edges lists a name twice: {', '.join(names)}")
        if self.home is not None and self.home not in names:
            raise ValueError(f"home is {self.home!r}, which is not among edges: {', '.join(names)}")
        return self

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """The brokers of its edges."""
        return tuple(edge.url for edge in self.edges)

    @property
    def first_edge(self) -> EdgeAddress:
        """The edge to attach to first."""
        return next((edge for edge in self.edges if edge.name == self.home), self.edges[0])


class ServerConfig(NodeConfig, Administered):
    """What edges and clouds have."""

    broker: Url
    """The node's own broker."""
    http: Http = Http()

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """Its own broker."""
        return (self.broker,)


class EdgeConfig(ServerConfig):
    """An edge's configuration."""

    backbone: RemoteUrl
    """The cloud's broker, where edges and cloud meet."""
    cloud: OperatedName
    hold_s: Seconds = 30.0
    """How long a copy of a device's state is kept, hidden from views, after the device left."""
    source_timeout_s: Seconds = 5.0
    """How long a target waits for the source before it serves the device without the source's state."""
    devices_max: int = Field(default=10_000, ge=1, le=1_000_000)
    """How many devices may be attached at one time; its share that is taken is the load in the beacon."""

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """Its own broker and the cloud's."""
        return (self.broker, self.backbone)


class CloudConfig(ServerConfig):
    """A cloud's configuration."""

    policy_key: FilePath | None = None
    """Folder of the operator's policy key, which signs policies given here; without it only signed ones are taken."""

    @model_validator(mode="after")
    def _policy_can_be_signed(self) -> Self:
        if self.policy is not None and self.policy_key is None:
            raise ValueError("policy needs policy_key, which signs it; or leave it out and use `datasync policy push`")
        return self
