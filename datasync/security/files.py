"""Secrets in files: folders 0700, files 0600, and nothing readable by others is ever used.

A secret appears whole or not at all, durably, and is never overwritten: what is derived from it would be lost.
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
        draft = path.with_name(f".{path.name}.draft")
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


def read_private(path: Path) -> bytes:
    """Return a secret file's content. Raises ConfigError when it is missing, or open to group or others."""
    try:
        for part in (path.parent, path):
            mode = stat.S_IMODE(part.stat().st_mode)
            if mode & 0o077:
                right = "700" if part.is_dir() else "600"
                raise ConfigError(
                    f"it is open to other users (mode {mode:03o})",
                    where=str(part),
                    fix=f"chmod {right} {shlex.quote(str(part))}",
                )
    except OSError as error:
        raise _unreadable(path, error) from error
    return read_file(path)


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
    text = read_private(path).strip()
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError as error:
        raise ConfigError("the file does not hold hexadecimal digits", where=str(path)) from error
    if len(key) != 32:
        raise ConfigError(f"the file holds {len(key)} bytes, not 32", where=str(path))
    return key


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"the file cannot be read: {error.strerror}", where=str(path))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
