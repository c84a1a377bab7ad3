"""Mosquitto's configuration as datasync needs it: who gets in, which topics each may use, and how much it may hold.

A client is known by its certificate, whose common name is its name as topics write it (``acme.cbd``). Mosquitto takes
that for the user name, which the access list's ``%u`` stands for, and for the client id, so that nobody can take over
another's session. What the list does not allow does nothing: Mosquitto acknowledges such a packet and drops it, and
takes such a subscription and delivers nothing on it.

The list cannot tell a device from an edge, and believes every trusted authority for every name. So a device that
reaches the backbone can publish on topics that carry its own name there, and a partner's authority could vouch for a
name of another operator. Nodes take neither: they judge by signatures and by which operator vouches for whom.
"""

from dataclasses import dataclass
from pathlib import PurePath

from datasync.domain.ids import NodeName, dotted
from datasync.domain.limits import MESSAGE_BYTES_MAX
from datasync.protocol import topics
from datasync.security.certificates import Role
from datasync.security.identity import CERTIFICATE_FILE, SIGNING_FILE
from datasync.transport.link import TOPIC_BYTES_MAX
from datasync.transport.mqtt_connection import UNACKNOWLEDGED_BYTES_MAX, UNACKNOWLEDGED_MAX

CONFIGURATION_FILE = "mosquitto.conf"
ACCESS_FILE = "access.acl"
AUTHORITIES_FILE = "authorities.pem"

PACKET_BYTES_MAX = MESSAGE_BYTES_MAX + TOPIC_BYTES_MAX + 16
"""A message, its topic, and MQTT's own few bytes."""

WINDOWS_QUEUED_MAX = 64
"""How many senders' whole windows may wait for one receiver; what is over it is sent again from their databases."""

CLIENT = NodeName("%u")
"""In a pattern of Mosquitto's, whoever is connected."""


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """One broker: whose it is, where it listens, where its files are, and how large it may get.

    ``identity`` is the folder with its certificate and key, ``folder`` the one with its other files; ``crl`` a file
    with a certificate revocation list (X.509, PEM) of each authority, if there is one.
    """

    owner: NodeName
    role: Role
    host: str
    port: int
    identity: PurePath
    folder: PurePath
    window_bytes: int
    connections_max: int
    crl: PurePath | None = None


def configuration(plan: BrokerPlan) -> str:
    """Return the text of ``mosquitto.conf``."""
    is_edge = plan.role is Role.EDGE
    revoked = [] if plan.crl is None else [*_REVOKED, f"crlfile {plan.crl}"]
    lines = [
        f"# Mosquitto as the broker of {plan.owner}, made by: datasync broker config --for {plan.role}",
        "# Make it again rather than change it.",
        "",
        f"listener {plan.port} {plan.host}",
        "tls_version tlsv1.3",
        f"cafile {plan.folder / AUTHORITIES_FILE}",
        f"certfile {plan.identity / CERTIFICATE_FILE}",
        f"keyfile {plan.identity / SIGNING_FILE}",
        *revoked,
        "",
        "# A client is whom its certificate names, and has the session of that name.",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        f"acl_file {plan.folder / ACCESS_FILE}",
        "",
        "# An ack of 200 bytes must not wait for company.",
        "set_tcp_nodelay true",
        "",
        "# What datasync's own limits let a node send, leave unacknowledged, and have waiting.",
        f"max_packet_size {PACKET_BYTES_MAX}",
        f"max_inflight_messages {UNACKNOWLEDGED_MAX}",
        f"max_inflight_bytes {UNACKNOWLEDGED_BYTES_MAX}",
        f"max_queued_messages {UNACKNOWLEDGED_MAX}",
        f"max_queued_bytes {WINDOWS_QUEUED_MAX * plan.window_bytes}",
        f"max_connections {plan.connections_max}",
        "max_keepalive 600",
        "",
        *(_PERSISTENT if is_edge else _FORGETFUL),
        *([f"persistence_location {plan.folder}/"] if is_edge else []),
        "",
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "",
    ]
    return "\n".join(lines)


_REVOKED = ("# Whose certificate is revoked: read at the start and on SIGHUP, and held against whoever connects then.",)
_PERSISTENT = (
    "# What plain devices published, and the edge has not committed yet, outlasts a restart. It is on the disk as it",
    "# came, unencrypted; without plain devices put `persistence false` here.",
    "persistence true",
    "autosave_interval 60",
    "persistent_client_expiration 7d",
)
_FORGETFUL = (
    "# Edges and cloud send again from their databases what was not acknowledged, and greet when they connect.",
    "persistence false",
)


def access_list(owner: NodeName, role: Role) -> str:
    """Return the access list of an edge's broker, or of the cloud's."""
    own, everybody = (_EDGE, _DEVICES) if role is Role.EDGE else (_CLOUD, _EDGES)
    lines = [
        f"# Who may use which topics at the broker of {owner}: what is not here does nothing.",
        "",
        f"user {dotted(owner)}",
        *(f"topic {how} {topic.replace(CLIENT, dotted(owner))}" for how, topic in own),
        "",
        "# %u is whoever is connected",
        *(f"pattern {how} {topic}" for how, topic in everybody),
        "",
    ]
    return "\n".join(lines)


_ANYBODY = NodeName("+")
_EVERYWHERE = (("read", topics.BEACONS), ("read", topics.POLICY), ("read", topics.REVOKED))
_GIVEN_OUT = (("readwrite", topics.POLICY), ("readwrite", topics.REVOKED))
_EDGE = (
    *(("read", topic) for topic in topics.UPLINKS),
    ("write", topics.device_down(_ANYBODY)),
    ("write", topics.beacon(CLIENT)),
    *_GIVEN_OUT,
)
_DEVICES = (
    ("write", topics.device_up(CLIENT)),
    ("write", topics.device_segments(CLIENT)),
    ("write", topics.device_json(CLIENT)),
    ("read", topics.device_down(CLIENT)),
    *_EVERYWHERE,
)
_CLOUD = (
    ("read", topics.TO_CLOUD),
    ("write", topics.edge_in(_ANYBODY, CLIENT)),
    ("write", topics.beacon(CLIENT)),
    *_GIVEN_OUT,
)
_EDGES = (
    ("write", topics.cloud_in(CLIENT)),
    ("write", topics.edge_in(_ANYBODY, CLIENT)),
    ("write", topics.beacon(CLIENT)),
    ("read", topics.edge_inbox(CLIENT)),
    *_EVERYWHERE,
)
