"""``datasync broker config``: what it writes, what it refuses, and that the samples in ``deploy/`` are just that."""

import re
from pathlib import Path, PurePosixPath

import pytest

from datasync.cli.main import main
from datasync.domain.ids import node_name
from datasync.domain.limits import MESSAGE_BYTES_MAX, WINDOW_BYTES
from datasync.protocol import topics
from datasync.security.certificates import Role
from datasync.security.trust import Trust
from datasync.transport import mosquitto
from datasync.transport.mqtt_connection import UNACKNOWLEDGED_MAX

SAMPLES = Path(__file__).parents[3] / "deploy" / "mosquitto"
EDGE, CLOUD = node_name("acme/cbd"), node_name("acme/cloud")
COMMON = """
identity = "identity"
trust = "trust"
node_key = "keys/node.key"
database = "sqlite:///data.db"
keys = "sqlite:///keys.db"
admin_token_hash = "8b7df143d91c716ecfa5fc1730022f6b421b05cedee8fd52b1fc65a96030ad52"
"""
CONFIG = {
    Role.EDGE: 'broker = "mqtts://127.0.0.1:8884"\nbackbone = "mqtts://cloud"\ncloud = "acme/cloud"\ndevices_max = 500',
    Role.CLOUD: 'broker = "mqtts://127.0.0.1:8883"',
}


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    assert main(["enroll", "ca", "acme", "--folder", str(tmp_path / "authority")]) == 0
    return tmp_path / "authority"


def enrolled(authority: Path, role: Role) -> Path:
    """Return the configuration of a new edge or cloud."""
    home = authority.with_name(role.value)
    name = EDGE if role is Role.EDGE else CLOUD
    assert main(["enroll", role.value, name, "--authority", str(authority), "--folder", str(home)]) == 0
    (home / "node.toml").write_text(COMMON + CONFIG[role])
    return home / "node.toml"


def made(config: Path, role: Role, *options: str) -> tuple[int, dict[str, str]]:
    """Run the command; return its exit code and the settings it wrote."""
    code = main(["broker", "config", "--for", role.value, "--config", str(config), *options])
    file = config.parent / "broker" / "mosquitto.conf"
    lines = file.read_text().splitlines() if file.exists() else []
    return code, dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("role", [Role.EDGE, Role.CLOUD])
def test_the_brokers_folder_gets_all_that_mosquitto_needs(authority: Path, role: Role) -> None:
    config = enrolled(authority, role)
    code, settings = made(config, role)
    assert code == 0
    assert settings["listener"].split(" ")[1] == "127.0.0.1"
    for name in ("cafile", "certfile", "keyfile", "acl_file"):
        assert Path(settings[name]).parent == config.parent / "broker"
        assert Path(settings[name]).exists()
    assert Trust.load(Path(settings["cafile"])).certificates == Trust.load(config.parent / "trust").certificates
    assert settings["require_certificate"] == settings["use_identity_as_username"] == "true"
    assert settings["allow_anonymous"] == "false"


def test_the_limits_are_those_of_the_nodes(authority: Path) -> None:
    _, settings = made(enrolled(authority, Role.EDGE), Role.EDGE)
    assert MESSAGE_BYTES_MAX < int(settings["max_packet_size"]) < MESSAGE_BYTES_MAX + (1 << 17)
    assert int(settings["max_inflight_messages"]) == UNACKNOWLEDGED_MAX
    assert int(settings["max_queued_bytes"]) == mosquitto.WINDOWS_QUEUED_MAX * WINDOW_BYTES
    assert int(settings["max_connections"]) > 500


def test_only_an_edge_has_something_to_keep_that_no_database_has(authority: Path) -> None:
    assert made(enrolled(authority, Role.EDGE), Role.EDGE)[1]["persistence"] == "true"
    assert made(enrolled(authority, Role.CLOUD), Role.CLOUD)[1]["persistence"] == "false"


def test_where_it_listens_and_who_is_revoked_can_be_said(authority: Path, tmp_path: Path) -> None:
    config = enrolled(authority, Role.EDGE)
    _, settings = made(config, Role.EDGE, "--listen", "[::]:9883", "--crl", str(tmp_path / "revoked.pem"))
    assert settings["listener"] == "9883 ::"
    assert settings["crlfile"] == str(tmp_path / "revoked.pem")
    assert made(config, Role.EDGE)[1]["listener"] == "8884 127.0.0.1"


@pytest.mark.parametrize("text", ["8883", "0.0.0.0", "0.0.0.0:x", "0.0.0.0:0", "a@b:1", "mqtts://b:1"])
def test_an_address_is_a_host_and_a_port(authority: Path, text: str) -> None:
    with pytest.raises(SystemExit):
        made(enrolled(authority, Role.EDGE), Role.EDGE, "--listen", text)


def test_the_broker_of_another_node_is_refused(authority: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edge, cloud = enrolled(authority, Role.EDGE), enrolled(authority, Role.CLOUD)
    assert made(edge, Role.EDGE, "--identity", str(cloud.parent / "broker"))[0] == 1
    assert "broker acme/cloud, and not the broker of acme/cbd" in capsys.readouterr().err
    assert made(edge, Role.EDGE, "--identity", str(edge.parent / "identity"))[0] == 1
    assert "edge acme/cbd, and not the broker of acme/cbd" in capsys.readouterr().err


def test_the_configuration_of_another_kind_of_node_is_refused(
    authority: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert made(enrolled(authority, Role.EDGE), Role.CLOUD)[0] == 1
    assert "backbone is no key" in capsys.readouterr().err


@pytest.mark.parametrize(("role", "owner", "port"), [(Role.EDGE, EDGE, 8884), (Role.CLOUD, CLOUD, 8883)])
def test_the_samples_are_what_the_command_writes(role: Role, owner: str, port: int) -> None:
    folder = PurePosixPath(f"/var/lib/datasync/{role}/broker")
    plan = mosquitto.BrokerPlan(
        owner=node_name(owner),
        role=role,
        host="127.0.0.1",
        port=port,
        identity=folder,
        folder=folder,
        window_bytes=WINDOW_BYTES,
        connections_max=10_064 if role is Role.EDGE else 1_088,
    )
    assert (SAMPLES / f"{role}.conf").read_text() == mosquitto.configuration(plan)
    assert (SAMPLES / f"{role}.acl").read_text() == mosquitto.access_list(plan.owner, role)


def test_no_client_has_a_topic_that_does_not_name_it_but_what_is_for_all() -> None:
    """Whoever adds a topic must think of who may use it."""
    for role, owner in ((Role.EDGE, EDGE), (Role.CLOUD, CLOUD)):
        patterns = re.findall(r"^pattern (\w+) (.+)$", mosquitto.access_list(owner, role), re.MULTILINE)
        without = {(how, topic) for how, topic in patterns if "%u" not in topic}
        assert without == {("read", topics.BEACONS), ("read", topics.POLICY), ("read", topics.REVOKED)}
