"""The annotated samples under ``deploy/``: they load, they name every key, and the defaults they show are true."""

import re
from pathlib import Path

import pytest

from datasync.nodes.config import CloudConfig, DeviceConfig, EdgeConfig, NodeConfig
from datasync.nodes.config_file import load, load_any

DEPLOY = Path(__file__).parents[3] / "deploy"
SAMPLES = [("device.toml", DeviceConfig), ("edge.toml", EdgeConfig), ("cloud.toml", CloudConfig)]
COMMENTED = re.compile(r"^# (\w+ = .+)$", re.MULTILINE)
NO_DEFAULT = ("policy", "home", "admin_token_hash", "tls", "client_certificates", "probes_port")


@pytest.mark.parametrize(("name", "kind"), SAMPLES)
def test_a_sample_loads(name: str, kind: type[NodeConfig]) -> None:
    config = load_any(DEPLOY / name, {})
    assert type(config) is kind
    assert config.identity == DEPLOY / "identity"


@pytest.mark.parametrize(("name", "kind"), SAMPLES)
def test_a_sample_has_every_key(name: str, kind: type[NodeConfig]) -> None:
    text = (DEPLOY / name).read_text()
    missing = [
        key for key in kind.model_fields if not re.search(rf"^(# )?{key} = |^(#   )?\[\[?{key}\]", text, re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize(("name", "kind"), SAMPLES)
def test_what_is_commented_out_shows_the_default(name: str, kind: type[NodeConfig], tmp_path: Path) -> None:
    text = (DEPLOY / name).read_text()

    def uncomment(line: re.Match[str]) -> str:
        return line[0] if line[1].split(" = ")[0] in NO_DEFAULT else line[1]

    uncommented = COMMENTED.sub(uncomment, text)
    assert uncommented != text
    as_it_is, with_defaults = tmp_path / "a.toml", tmp_path / "b.toml"
    as_it_is.write_text(text)
    with_defaults.write_text(uncommented)
    assert load(kind, with_defaults, {}) == load(kind, as_it_is, {})
