"""The folder of an enrolled node: ``identity/``, ``trust/``, ``keys/``, and what its configuration says of them."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from datasync.domain.errors import ConfigError
from datasync.security.files import write_private
from datasync.security.identity import Identity
from datasync.security.vault import load_or_create_node_key


def require_new(folder: Path, *others: Path) -> None:
    """Raise ConfigError when one of the paths is there already."""
    for path in (*_paths(folder).values(), *others):
        if path.exists():
            raise ConfigError("it exists and is not overwritten", where=str(path), fix="choose another --folder")


def write(folder: Path, identity: Identity, trusted: Mapping[str, bytes]) -> dict[str, str]:
    """Write all that a node needs; return where it is, by the key of the configuration.

    ``trusted`` are the authorities' certificates (PEM) by operator. Raises ConfigError.
    """
    paths = _paths(folder)
    identity.save(paths["identity"])
    load_or_create_node_key(paths["node_key"], secrets.token_bytes)
    for operator, pem in trusted.items():
        write_private(paths["trust"] / f"{operator}.pem", pem)
    return {key: str(path) for key, path in paths.items()}


def print_toml(name: str, written: Mapping[str, str]) -> None:
    """Print the lines of the configuration."""
    print(f"# for the configuration of {name}")
    print("\n".join(f"{key} = {json.dumps(path)}" for key, path in written.items()))


def _paths(folder: Path) -> dict[str, Path]:
    return {"identity": folder / "identity", "trust": folder / "trust", "node_key": folder / "keys" / "node.key"}
