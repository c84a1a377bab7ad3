"""Where a node's key comes from: the 32 bytes that wrap its data keys.

The configuration gives an *address*: ``file:node.key`` (or a bare path) is a file of 64 hexadecimal digits,
``passphrase:node.key.enc`` a file that a passphrase opens (:mod:`security.passphrase`), ``credential:NAME`` one of
systemd's credentials, ``env:VARIABLE`` an environment variable, and ``kms:NAME/ARGUMENT`` whatever a package that is
installed beside datasync offers as the entry point NAME of the group ``datasync.node_keys``: a callable that takes the
argument and returns a :class:`NodeKeySource`. Every failure is a ConfigError with what would put it right.
"""

import enum
import os
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Protocol, Self

from datasync.domain.errors import ConfigError
from datasync.security import files, passphrase
from datasync.security.wrapping import KEY_BYTES

PASSPHRASE_VARIABLE = "DATASYNC_PASSPHRASE"  # noqa: S105 (a variable's name)
NEW_PASSPHRASE_VARIABLE = "DATASYNC_NEW_PASSPHRASE"  # noqa: S105 (a variable's name)
SECRET_VARIABLES = frozenset(
    name + end for name in (PASSPHRASE_VARIABLE, NEW_PASSPHRASE_VARIABLE) for end in ("", "_FILE")
)
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
PLUGINS = "datasync.node_keys"


class NodeKeySource(Protocol):
    """Something that has a node's key, such as a client of a key management service."""

    def node_key(self) -> bytes:
        """Return the 32 bytes. Raises ConfigError."""
        ...


class Kind(enum.StrEnum):
    """What an address leads to."""

    FILE = "file"
    PASSPHRASE = "passphrase"  # noqa: S105 (a kind's name)
    CREDENTIAL = "credential"
    ENVIRONMENT = "env"
    KMS = "kms"


@dataclass(frozen=True, slots=True)
class KeyAddress:
    """Where a node's key is: ``what`` is an absolute path for the kinds that are files, a name for the others."""

    kind: Kind
    what: str

    @classmethod
    def parse(cls, text: str, folder: Path) -> Self:
        """Return the address; relative paths start at the folder. Raises ValueError for an unknown kind."""
        found = re.match(r"([a-z]+):", text)
        kind, what = (found.group(1), text[found.end() :]) if found else (Kind.FILE, text)
        if kind not in tuple(Kind) or not what:
            known = ", ".join(f"{each}:…" for each in Kind)
            raise ValueError(f"{text!r} leads to no key: write a path, or one of {known}")
        kind = Kind(kind)
        return cls(kind, str((folder / Path(what).expanduser()).absolute()) if cls._is_file(kind) else what)

    def __str__(self) -> str:
        return f"{self.kind}:{self.what}"

    @property
    def path(self) -> Path | None:
        """The file in which the key is, None when it is in none of this node's."""
        return Path(self.what) if self._is_file(self.kind) else None

    @staticmethod
    def _is_file(kind: Kind) -> bool:
        return kind in (Kind.FILE, Kind.PASSPHRASE)


class Surroundings:
    """What addresses mean outside of this process: environment variables, and a person to ask, if there is one.

    A passphrase is asked for, or read from its file, once. ``ask`` takes what to ask for and returns the answer;
    ``variable`` is the environment variable of the passphrase.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        ask: Callable[[str], str] | None = None,
        variable: str = PASSPHRASE_VARIABLE,
    ) -> None:
        self.environment = environment
        self._ask = ask
        self._variable = variable
        self._passphrase: str | None = None

    def passphrase(self) -> str:
        """Return the passphrase. Raises ConfigError when nobody says it."""
        if self._passphrase is None:
            self._passphrase = self._given() or self._asked("Passphrase of the node's key")
        return self._passphrase

    def new_passphrase(self) -> str:
        """Return the passphrase for a new file; a person who was not asked yet says it twice. Raises ConfigError."""
        if self._passphrase is None:
            self._passphrase = self._given() or self._asked_twice()
        return self._passphrase

    def _given(self) -> str | None:
        said = self.environment.get(self._variable)
        file = self.environment.get(f"{self._variable}_FILE")
        if said is not None or file is None:
            return said
        return files.read_private(Path(file)).decode(errors="surrogateescape").removesuffix("\n")

    def _asked_twice(self) -> str:
        said = self._asked("New passphrase for the node's key")
        if self._asked("The same passphrase again") != said:
            raise ConfigError("the two passphrases differ", fix="begin again")
        return said

    def _asked(self, what: str) -> str:
        said = self._ask(what) if self._ask is not None else ""
        if not said:
            fix = f"set {self._variable}, or {self._variable}_FILE (a file, or /dev/fd/3)"
            raise ConfigError("the node's key is under a passphrase, and none was given", fix=fix)
        return said


def read(address: KeyAddress, around: Surroundings) -> bytes:
    """Return the key at an address. Raises ConfigError."""
    key = source(address, around).node_key()
    if len(key) != KEY_BYTES:
        raise ConfigError(f"the key has {len(key)} bytes, not {KEY_BYTES}", where=str(address))
    return key


def source(address: KeyAddress, around: Surroundings) -> NodeKeySource:
    """Return what an address leads to. Raises ConfigError for a KMS that no installed package offers."""
    match address.kind:
        case Kind.FILE:
            return _FileKey(Path(address.what))
        case Kind.PASSPHRASE:
            return _PassphraseKey(Path(address.what), around)
        case Kind.CREDENTIAL:
            return _Credential(address.what, around.environment)
        case Kind.ENVIRONMENT:
            return _Variable(address.what, around.environment)
        case Kind.KMS:
            return _plugin(address.what)


def write(
    address: KeyAddress,
    key: bytes,
    around: Surroundings,
    entropy: Callable[[int], bytes],
    cost: passphrase.Cost = passphrase.COST,
) -> None:
    """Write a key to a new file in a private folder.

    Raises ConfigError when the file exists, the folder is open to others, or the address is of no file.
    """
    match address.kind:
        case Kind.FILE:
            content = key.hex().encode() + b"\n"
        case Kind.PASSPHRASE:
            content = passphrase.seal(key, around.new_passphrase(), entropy, cost)
        case _:
            raise ConfigError(
                "a key can only be written to a file", where=str(address), fix="write file:PATH or passphrase:PATH"
            )
    path = Path(address.what)
    if path.parent.exists():
        files.require_private(path.parent)
    files.write_private(path, content)


@dataclass(frozen=True, slots=True)
class _FileKey:
    path: Path

    def node_key(self) -> bytes:
        return files.read_key(self.path)


@dataclass(frozen=True, slots=True)
class _PassphraseKey:
    path: Path
    around: Surroundings

    def node_key(self) -> bytes:
        content = files.read_private(self.path)
        return passphrase.unseal(content, self.around.passphrase(), str(self.path))


@dataclass(frozen=True, slots=True)
class _Credential:
    """systemd gives a service's user the right to read by an access list, which the mode shows as the group's."""

    name: str
    environment: Mapping[str, str]

    def node_key(self) -> bytes:
        where = f"credential:{self.name}"
        folder = self.environment.get(CREDENTIALS_VARIABLE)
        fix = f"put LoadCredential={self.name}:/path/to/node.key into the unit's [Service] section"
        if not folder:
            raise ConfigError("no credentials were given to this process", where=where, fix=fix)
        path = Path(folder) / self.name
        if Path(self.name).name != self.name or not path.is_file():
            raise ConfigError("there is no such credential", where=where, fix=fix)
        if stat.S_IMODE(path.stat().st_mode) & 0o007:
            raise ConfigError("it is open to everybody", where=str(path), fix=f"chmod o= {shlex.quote(str(path))}")
        return files.parse_key(files.read_file(path), str(path))


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    environment: Mapping[str, str]

    def node_key(self) -> bytes:
        content = self.environment.get(self.name)
        if not content:
            fix = "set it to the key's 64 hexadecimal digits"
            raise ConfigError("the variable with the node's key is not set", where=self.name, fix=fix)
        return files.parse_key(os.fsencode(content), self.name)


def _plugin(what: str) -> NodeKeySource:
    name, _, argument = what.partition("/")
    found = tuple(metadata.entry_points(group=PLUGINS, name=name))
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} installed packages offer the key source {name!r}",
            where=f"kms:{what}",
            fix=f"install one that has the entry point {name!r} in the group {PLUGINS}",
        )
    made: NodeKeySource = found[0].load()(argument)
    return made
