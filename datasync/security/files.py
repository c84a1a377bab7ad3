"""Secrets in files: folders 0700, files 0600, and nothing readable by others is ever used.

A secret appears whole or not at all, durably, and is never overwritten by writing: what is derived from it would be
lost. Only who has seen to that takes a new one into its place, or destroys it. Destroying overwrites the file before it
is unlinked; what a disk or a file system keeps of former contents on its own is beyond any program.
"""

import os
import shlex
import stat
from pathlib import Path

from datasync.domain.errors import ConfigError

FILE_BYTES_MAX = 64 << 10


def write_private(path: Path, content: bytes) -> None:
    """Write a new file 0600 in a folder 0700, durably. Raises ConfigError when it exists or cannot be written."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        draft = _draft(path)
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(draft)  # unlike a rename, it never replaces what is there
        draft.unlink()
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise ConfigError(
            "the file exists and is not overwritten", where=str(path), fix="choose another folder, or remove it first"
        ) from error
    except OSError as error:
        raise ConfigError(f"the file cannot be written: {error.strerror}", where=str(path)) from error


def settle(path: Path) -> None:
    """Remove the second name that a crash can leave of a secret that was written. Raises ConfigError."""
    try:
        _draft(path).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"the file cannot be removed: {error.strerror}", where=str(_draft(path))) from error


def read_private(path: Path) -> bytes:
    """Return a secret file's content. Raises ConfigError when it is missing, or open to group or others."""
    try:
        for part in (path.parent, path):
            require_private(part)
    except OSError as error:
        raise _unreadable(path, error) from error
    return read_file(path)


def require_private(path: Path) -> None:
    """Raise ConfigError when a file or folder is open to group or others, OSError when it is not there."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        fix = f"chmod {'700' if path.is_dir() else '600'} {shlex.quote(str(path))}"
        raise ConfigError(f"it is open to other users (mode {mode:03o})", where=str(path), fix=fix)


def read_file(path: Path) -> bytes:
    """Return a small file's content. Raises ConfigError when it is missing, unreadable or too large."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"the file is larger than {FILE_BYTES_MAX} bytes", where=str(path))
    return content


def read_key(path: Path) -> bytes:
    """Return the 32 bytes that a secret file holds as 64 hexadecimal digits. Raises ConfigError."""
    return parse_key(read_private(path), str(path))


def parse_key(content: bytes, where: str) -> bytes:
    """Return the 32 bytes that are written as 64 hexadecimal digits. Raises ConfigError that says ``where``."""
    try:
        key = bytes.fromhex(content.strip().decode("ascii"))
    except ValueError as error:
        raise ConfigError("it does not hold hexadecimal digits", where=where) from error
    if len(key) != 32:
        raise ConfigError(f"it holds {len(key)} bytes, not 32", where=where)
    return key


def take_place(fresh: Path, path: Path) -> None:
    """Put a new secret in the place of an old one and destroy that; called again after a crash, it goes on.

    At any moment ``path`` holds one of the two, whole. Raises ConfigError when a file cannot be changed.
    """
    former = _former(path)
    try:
        if fresh.exists():
            former.unlink(missing_ok=True)
            former.hardlink_to(path)
            fresh.replace(path)
            _sync_folder(path.parent)
        _overwrite(former)
    except OSError as error:
        raise ConfigError(f"the file cannot be replaced: {error.strerror}", where=str(path)) from error


def destroy(path: Path) -> None:
    """Take a secret from its place, overwrite and unlink it, durably; called again after a crash, it goes on.

    Nothing is there to destroy when it is not there. Raises ConfigError when it cannot be destroyed.
    """
    try:
        if path.exists():
            path.replace(_former(path))  # a path has a whole secret or none, whenever this dies
            _sync_folder(path.parent)
        _overwrite(_former(path))
    except OSError as error:
        raise ConfigError(f"the file cannot be destroyed: {error.strerror}", where=str(path)) from error


def _overwrite(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    _sync_folder(path.parent)


def _former(path: Path) -> Path:
    return path.with_name(f".{path.name}.former")


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"the file cannot be read: {error.strerror}", where=str(path))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
