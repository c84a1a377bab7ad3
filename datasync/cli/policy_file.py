"""A policy file of the command line, read once and no further than a policy may be long."""

from pathlib import Path

from datasync.domain.errors import ConfigError
from datasync.domain.limits import POLICY_BYTES_MAX
from datasync.policy.compiled import Policy
from datasync.policy.loading import load


def load_file(path: Path) -> Policy:
    """Return the policy in a file. Raises ConfigError for one that cannot be read, and PolicyError."""
    try:
        with path.open("rb") as file:
            source = file.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    return load(source, name=str(path))
