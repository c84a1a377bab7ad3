"""Configuration: what a file and the environment may say, and what is told about a mistake."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from datasync.domain.errors import ConfigError
from datasync.domain.ids import node_name
from datasync.nodes.config import Broker, CloudConfig, DeviceConfig, EdgeConfig, NodeConfig
from datasync.nodes.config_file import load, load_any
from datasync.nodes.run import run_cloud
from datasync.nodes.shell import system_clock
from datasync.security.identity import Role
from datasync.security.trust import Authority

DEVICE = """
identity = "identity"
trust = "/etc/datasync/trust"
node_key = "node.key"
edges = [{name = "acme/cbd", url = "mqtts://cbd:8884"}, {name = "acme/docks", url = "mqtts://docks"}]
"""
EDGE = """
identity = "identity"
trust = "trust"
database = "sqlite:///edge.db"
keys = "sqlite:////var/lib/datasync/keys.db"
node_key = "node.key"
broker = "mqtt://localhost"
backbone = "mqtts://cloud:8883"
cloud = "acme/cloud"
admin_token_hash = "8b7df143d91c716ecfa5fc1730022f6b421b05cedee8fd52b1fc65a96030ad52"
"""

CLOUD = "\n".join(line for line in EDGE.splitlines() if not line.startswith(("backbone", "cloud")))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "node.toml"


def read(kind: type[NodeConfig], file: Path, text: str, **environment: str) -> Any:
    file.write_text(text)
    return load(kind, file, environment)


def mistakes(kind: type[NodeConfig], file: Path, text: str, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(kind, file, text, **environment)
    return str(caught.value)


def test_relative_paths_and_databases_start_at_the_files_folder(file: Path) -> None:
    config = read(EdgeConfig, file, EDGE)
    assert config.identity == file.parent / "identity"
    assert config.database == f"sqlite:///{file.parent}/edge.db"


def test_absolute_paths_and_databases_stay_as_they_are(file: Path) -> None:
    assert read(DeviceConfig, file, DEVICE).trust == Path("/etc/datasync/trust")
    assert read(EdgeConfig, file, EDGE).keys == "sqlite:////var/lib/datasync/keys.db"


def test_a_relative_file_name_still_gives_absolute_paths(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(DEVICE)
    monkeypatch.chdir(file.parent)
    assert load(DeviceConfig, Path(file.name), {}).node_key.path == file.parent / "node.key"


def test_the_nodes_key_is_where_its_address_says(file: Path) -> None:
    elsewhere = DEVICE.replace("node.key", "passphrase:keys/node.key.enc")
    assert str(read(DeviceConfig, file, elsewhere).node_key) == f"passphrase:{file.parent}/keys/node.key.enc"
    assert str(read(DeviceConfig, file, DEVICE, DATASYNC_NODE_KEY="credential:key").node_key) == "credential:key"
    assert "passphrase:…" in mistakes(DeviceConfig, file, DEVICE.replace("node.key", "passprase:node.key"))
    assert "file:keys/node.key" in mistakes(DeviceConfig, file, DEVICE.replace('"node.key"', "7"))


def test_a_variable_that_holds_the_key_or_its_passphrase_is_no_address_of_it(file: Path) -> None:
    in_variable = DEVICE.replace("node.key", "env:DATASYNC_NODE_KEY")
    said = read(DeviceConfig, file, in_variable, DATASYNC_NODE_KEY="00" * 32, DATASYNC_PASSPHRASE_FILE="/dev/fd/3")
    assert str(said.node_key) == "env:DATASYNC_NODE_KEY"


def test_a_devices_databases_have_defaults_beside_the_file(file: Path) -> None:
    config = read(DeviceConfig, file, DEVICE)
    assert config.database == f"sqlite:///{file.parent}/device.db"
    assert config.keys == f"sqlite:///{file.parent}/device-keys.db"


def test_the_first_edge_is_home_unless_said_otherwise(file: Path) -> None:
    assert read(DeviceConfig, file, DEVICE).first_edge.name == "acme/cbd"
    assert read(DeviceConfig, file, DEVICE + 'home = "acme/docks"').first_edge.name == "acme/docks"


@pytest.mark.parametrize(
    ("url", "broker"),
    [
        ("mqtt://cbd", Broker("cbd", 1883)),
        ("mqtt://[::1]:1884", Broker("::1", 1884)),
        ("mqtts://cbd", Broker("cbd", 8883, tls=True)),
        ("embedded://127.0.0.1:1885", Broker("127.0.0.1", 1885, embedded=True)),
        ("embedded+mqtts://127.0.0.1", Broker("127.0.0.1", 8883, embedded=True, tls=True)),
    ],
)
def test_a_broker_is_a_host_and_a_port(url: str, broker: Broker) -> None:
    assert Broker.parse(url) == broker
    assert Broker.parse(broker.url).port == broker.port


@pytest.mark.parametrize(
    "url", ["cbd:1883", "mqttz://cbd", "mqtt://", "mqtt://user:pass@cbd", "mqtt://cbd/x", "mqtt://a:x"]
)
def test_other_forms_of_broker_are_refused(url: str, file: Path) -> None:
    assert "edges.0.url" in mistakes(DeviceConfig, file, DEVICE.replace("mqtts://cbd:8884", url))


def test_another_nodes_broker_cannot_be_embedded(file: Path) -> None:
    text = EDGE.replace("mqtts://cloud:8883", "embedded://localhost:1883")
    assert "backbone: another node's broker" in mistakes(EdgeConfig, file, text)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_a_broker_on_this_machine_may_go_without_tls(file: Path, host: str) -> None:
    read(EdgeConfig, file, EDGE.replace("mqtts://cloud:8883", f"mqtt://{host}:1883"))


@pytest.mark.parametrize("host", ["cloud", "192.0.2.1", "0.0.0.0", "localhost.example"])
def test_a_broker_on_another_machine_needs_tls_unless_the_configuration_says_insecure(file: Path, host: str) -> None:
    text = EDGE.replace("mqtts://cloud:8883", f"mqtt://{host}:1883")
    told = mistakes(EdgeConfig, file, text)
    assert f"mqtt://{host}:1883 is on another machine and without TLS; write mqtts://" in told
    assert "insecure = true" in told
    assert read(EdgeConfig, file, text + "insecure = true").backbone.host == host


def test_a_device_and_a_cloud_need_tls_too(file: Path) -> None:
    assert "without TLS" in mistakes(DeviceConfig, file, DEVICE.replace("mqtts://docks", "mqtt://docks"))
    assert "without TLS" in mistakes(CloudConfig, file, CLOUD.replace("mqtt://localhost", "embedded://192.0.2.1"))


@pytest.mark.parametrize(
    ("http", "url"),
    [
        ("", "http://127.0.0.1:8080"),
        ('host = "192.0.2.1"', "https://192.0.2.1:8080"),
        ('host = "::"', "https://[::]:8080"),
        ("tls = true", "https://127.0.0.1:8080"),
        ('host = "192.0.2.1"\ntls = false', "http://192.0.2.1:8080"),
    ],
)
def test_the_http_api_speaks_tls_outside_of_loopback_unless_said(file: Path, http: str, url: str) -> None:
    assert read(EdgeConfig, file, f"{EDGE}\n[http]\n{http}").http.url == url


@pytest.mark.parametrize(
    ("http", "asks"),
    [
        ("", "off"),
        ("tls = true", "required"),
        ('host = "192.0.2.1"', "required"),
        ('tls = true\nclient_certificates = "accepted"', "accepted"),
        ('tls = true\nclient_certificates = "off"', "off"),
        ('host = "192.0.2.1"\ntls = false', "off"),
    ],
)
def test_clients_need_certificates_wherever_the_http_api_speaks_tls_unless_said(
    file: Path, http: str, asks: str
) -> None:
    assert read(EdgeConfig, file, f"{EDGE}\n[http]\n{http}").http.asks == asks


@pytest.mark.parametrize("asks", ["required", "accepted"])
def test_certificates_are_asked_for_in_tls_alone(file: Path, asks: str) -> None:
    told = mistakes(EdgeConfig, file, f'{EDGE}\n[http]\nclient_certificates = "{asks}"')
    assert "needs tls = true" in told


@pytest.mark.parametrize(
    "variable", ["DATASYNC_CA", "DATASYNC_CERT", "DATASYNC_PEER", "DATASYNC_URL", "DATASYNC_TESTS_WITHOUT"]
)
def test_a_variable_of_the_command_line_is_no_key(file: Path, variable: str) -> None:
    read(EdgeConfig, file, EDGE, **{variable: "x"})


def test_every_mistake_is_told_at_once_with_its_key_and_what_is_right(file: Path) -> None:
    told = mistakes(DeviceConfig, file, DEVICE + 'windowbytes = 1\n[capture]\nflush_ms = "200"\nflush_rows = 0')
    assert str(file) in told
    assert "windowbytes is no key: write window_bytes" in told
    assert "capture.flush_ms: input should be a valid integer, not '200'" in told
    assert "capture.flush_rows: input should be greater than or equal to 1" in told
    assert told.endswith("[CONFIG_INVALID]")


def test_a_missing_key_is_named(file: Path) -> None:
    assert "identity is missing" in mistakes(DeviceConfig, file, DEVICE.replace('identity = "identity"', ""))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("edges = []", "edges lists no edge"),
        ('edges = [{name = "cbd", url = "mqtt://cbd"}]', "edges.0.name: 'cbd' names no operator"),
        ('edges = [{name = "a/b", url = "mqtts://b"}, {name = "a/b", url = "mqtts://c"}]', "lists a name twice"),
    ],
)
def test_edges_have_distinct_names_with_their_operator(text: str, told: str, file: Path) -> None:
    assert told in mistakes(DeviceConfig, file, DEVICE[: DEVICE.index("edges")] + text)


def test_home_is_one_of_the_edges(file: Path) -> None:
    assert "not among edges: acme/cbd, acme/docks" in mistakes(DeviceConfig, file, DEVICE + 'home = "acme/east"')


def test_keys_are_kept_in_a_database_of_their_own(file: Path) -> None:
    text = EDGE.replace("sqlite:////var/lib/datasync/keys.db", "sqlite:///edge.db")
    assert "keys and database must be two databases" in mistakes(EdgeConfig, file, text)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://localhost/x", "edge.db", "x"])
def test_only_durable_databases_that_are_tested_are_taken(url: str, file: Path) -> None:
    assert "database: write sqlite:///file.db" in mistakes(EdgeConfig, file, EDGE.replace("sqlite:///edge.db", url))


def test_a_file_that_is_no_toml_says_where(file: Path) -> None:
    assert "is not TOML" in mistakes(CloudConfig, file, "identity = ")
    assert "line 2" in mistakes(CloudConfig, file, "\nidentity = 'x' y\n")


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file cannot be read"):
        load(CloudConfig, tmp_path / "none.toml", {})


def test_the_environment_goes_over_the_file(file: Path) -> None:
    config = read(
        EdgeConfig,
        file,
        EDGE + "[http]\nport = 8081",
        DATASYNC_DATABASE="postgresql+psycopg://localhost/edge",
        DATASYNC_HTTP__PORT="9000",
        DATASYNC_HOLD_S="2.5",
    )
    assert config.database == "postgresql+psycopg://localhost/edge"
    assert config.http.port == 9000
    assert config.hold_s == 2.5


def test_text_in_the_environment_is_not_read_as_a_number(file: Path) -> None:
    digits = "1" * 64
    assert read(EdgeConfig, file, EDGE, DATASYNC_ADMIN_TOKEN_HASH=digits).admin_token_hash == digits


def test_a_list_in_the_environment_is_json(file: Path) -> None:
    config = read(DeviceConfig, file, DEVICE, DATASYNC_EDGES='[{"name": "acme/east", "url": "mqtts://east"}]')
    assert [edge.name for edge in config.edges] == ["acme/east"]


def test_a_mistake_in_the_environment_names_the_variable(file: Path) -> None:
    assert "(from DATASYNC_HTTP__PORT)" in mistakes(EdgeConfig, file, EDGE, DATASYNC_HTTP__PORT="many")


@pytest.mark.parametrize("variable", ["DATASYNC_DATABAS", "DATASYNC_HTP__PORT", "DATASYNC_HTTP__PORT__X"])
def test_a_variable_that_names_no_key_is_refused(variable: str, file: Path) -> None:
    assert f"{variable} names no key" in mistakes(EdgeConfig, file, EDGE, **{variable: "1"})


def test_variables_of_clients_and_tests_are_no_keys(file: Path) -> None:
    read(EdgeConfig, file, EDGE, DATASYNC_TOKEN="x", DATASYNC_URL="y", DATASYNC_TESTS_WITHOUT="postgres", PATH="z")


def test_an_administrator_is_known_by_the_hash_of_one_token(file: Path) -> None:
    text = EDGE[: EDGE.index("admin_token_hash")]
    assert "give one of admin_token_hash and admin_token_file" in mistakes(EdgeConfig, file, text)
    token = "x" * 43
    (file.parent / "token").write_text(token + "\n")
    config = read(EdgeConfig, file, text + 'admin_token_file = "token"')
    assert config.admin_hash() == hashlib.sha256(token.encode()).hexdigest()


def test_a_guessable_administrators_token_is_refused(file: Path) -> None:
    (file.parent / "token").write_text("secret")
    config = read(EdgeConfig, file, EDGE[: EDGE.index("admin_token_hash")] + 'admin_token_file = "token"')
    with pytest.raises(ConfigError, match="at least 32 characters"):
        config.admin_hash()


def test_the_kind_of_node_is_read_off_its_keys(file: Path) -> None:
    kinds = {}
    for kind, text in ((DeviceConfig, DEVICE), (EdgeConfig, EDGE), (CloudConfig, CLOUD)):
        file.write_text(text)
        kinds[kind] = type(load_any(file, {}))
    assert all(kind is found for kind, found in kinds.items())


API = f"""
[api]
port = 0
admin_token_hash = "{hashlib.sha256(b"token").hexdigest()}"
"""


def test_a_device_has_an_api_only_where_its_section_says_so(file: Path) -> None:
    assert read(DeviceConfig, file, DEVICE).api is None
    api = read(DeviceConfig, file, DEVICE + API, DATASYNC_API__PORT="8099").api
    assert (api.host, api.port, api.admin_hash()) == ("127.0.0.1", 8099, hashlib.sha256(b"token").hexdigest())
    assert "admin_token" in mistakes(DeviceConfig, file, DEVICE + "\n[api]\nport = 1")


def test_a_cloud_that_is_to_sign_a_policy_needs_the_key(file: Path) -> None:
    assert read(CloudConfig, file, CLOUD).policy_key is None
    assert "policy needs policy_key" in mistakes(CloudConfig, file, CLOUD + '\npolicy = "policy.yaml"')
    config = read(CloudConfig, file, CLOUD + '\npolicy = "policy.yaml"\npolicy_key = "policy-key"')
    assert config.policy_key == file.parent / "policy-key"


@pytest.mark.parametrize(
    ("name", "role"), [("acme/cbd", Role.EDGE), ("acme/cloud", Role.CLOUD), ("borealis/key", Role.POLICY)]
)
def test_a_cloud_does_not_start_with_a_key_that_is_not_its_operators_policy_key(
    tmp_path: Path, name: str, role: Role
) -> None:
    now = system_clock()
    acme, other = Authority.create("acme", now), Authority.create("borealis", now)
    acme.enrol(node_name("acme/cloud"), Role.CLOUD, now=now).save(tmp_path / "identity")
    (acme if name.startswith("acme/") else other).enrol(node_name(name), role, now=now).save(tmp_path / "policy-key")
    acme.save(tmp_path / "authority")
    text = CLOUD.replace('trust = "trust"', 'trust = "authority"').replace("/var/lib/datasync/", f"{tmp_path}/")
    config = read(CloudConfig, tmp_path / "cloud.toml", text + '\npolicy_key = "policy-key"')
    with pytest.raises(ConfigError, match="policy key"):
        run_cloud(config)
