"""The demo's town: what its nodes are configured to do."""

from pathlib import Path

import pytest

from datasync.demo.town import Node, Town
from datasync.nodes.config import NodeConfig, ServerConfig
from datasync.nodes.config_file import load_any

DEVICES = [("watch-1", "acme/cbd")]


def configurations(town: Town) -> list[tuple[Node, NodeConfig]]:
    return [(node, load_any(node.config, {})) for node in (*town.servers, *town.devices)]


@pytest.mark.parametrize("tls", [False, True])
def test_every_connection_is_tls_or_none_is(tmp_path: Path, tls: bool) -> None:
    town = Town(tmp_path, DEVICES, tls=tls)
    for node, config in configurations(town):
        assert {broker.tls for broker in config.brokers} == {tls}
        assert (town.caller(node) is not None) == tls
        if isinstance(config, ServerConfig):
            assert config.http.is_tls == tls
            assert config.http.url == node.url
            assert config.http.asks == ("required" if tls else "off")
            assert (node.known().ca is not None) == (node.known().identity is not None) == tls
