"""Databases for every test: SQLite in a temporary folder, and a private PostgreSQL cluster started on first use.

The cluster belongs to the test session: a folder under the system's temporary one, reached by a Unix socket in
it, so it collides with nothing that is installed. Each test gets a database of its own. Where PostgreSQL is not
installed the tests that need it fail and say so, unless DATASYNC_TESTS_WITHOUT names ``postgres``.
"""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import URL

from datasync.store.database import Database, upgrade

SUPERUSER = "postgres"


class PostgresCluster:
    """A running cluster, whose socket is in ``folder``. ``database`` makes databases of it, ``drop`` removes them."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="datasync-pg-"))
        self._data = self.folder / "data"
        self._numbers = itertools.count(1)
        # initdb and postgres refuse to run as root.
        self._user = SUPERUSER if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.folder, self._user)

    def start(self) -> None:
        self._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={SUPERUSER}")
        self._begin()

    @contextmanager
    def away(self) -> Iterator[None]:
        """While the block runs, the server is down; it goes as if it had crashed."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")
        try:
            yield
        finally:
            self._begin()

    def _begin(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=200 -c shared_buffers=32MB"
        self._run("pg_ctl", "start", "--wait", "--silent", "--log", str(self.folder / "log"), "--options", options)

    def stop(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")
        shutil.rmtree(self.folder)

    def url(self, name: str) -> str:
        query = {"host": str(self.folder)}
        url = URL.create("postgresql+psycopg", username=SUPERUSER, database=name, query=query)
        return url.render_as_string(hide_password=False)

    def database(self, template: str = "template0") -> str:
        name = f"test_{next(self._numbers)}"
        self._sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self._sql(f"DROP DATABASE {name} WITH (FORCE)")

    def files(self, name: str) -> dict[str, bytes]:
        """Return the contents of a database's own files, with everything in them that was committed."""
        self._sql("CHECKPOINT")
        number = self._sql(f"SELECT oid FROM pg_database WHERE datname = '{name}'")
        return _contents(self._data / "base" / str(number))

    def log_files(self) -> dict[str, bytes]:
        """Return the contents of the server's write-ahead log."""
        return _contents(self._data / "pg_wal")

    def recycle_log(self) -> None:
        """Do what makes the server give back the log that it needs no more."""
        for statement in ("SELECT pg_switch_wal()", "CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT"):
            self._sql(statement)

    @contextmanager
    def setting(self, name: str, value: str) -> Iterator[None]:
        """While the block runs, the whole server has this setting."""
        before = self._sql(f"SHOW {name}")
        self._set(name, value)
        yield
        self._set(name, str(before))

    def _set(self, name: str, value: str) -> None:
        self._sql(f"ALTER SYSTEM SET {name} = {value}")
        self._sql("SELECT pg_reload_conf()")
        while self._sql(f"SHOW {name}") != value:
            pass  # the server reads its configuration soon, not at once

    def _sql(self, statement: str) -> object:
        import psycopg

        with psycopg.connect(host=str(self.folder), user=SUPERUSER, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.binaries / program), "--pgdata", str(self._data), *arguments]
        # Output goes to a file: the server inherits it, so a pipe would stay open for as long as the server runs.
        with (self.folder / "output").open("w+") as output:
            ended = subprocess.run(
                command, stdout=output, stderr=output, cwd="/", user=self._user, group=self._user, check=False
            )
            output.seek(0)
            assert ended.returncode == 0, f"{' '.join(command)} failed:\n{output.read()}"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _binaries() -> Path | None:
    on_path = shutil.which("initdb")
    installed = [Path(on_path).resolve()] if on_path else list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return max((path.parent for path in installed), key=lambda folder: folder.parent.name.zfill(4), default=None)


def _why_not_postgres(binaries: Path | None) -> str | None:
    if binaries is None or not (binaries / "pg_ctl").exists():
        return "PostgreSQL's initdb and pg_ctl are neither on the PATH nor under /usr/lib/postgresql/*/bin"
    if os.geteuid() == 0 and SUPERUSER not in {entry.pw_name for entry in pwd.getpwall()}:
        return f"PostgreSQL does not run as root, and there is no user {SUPERUSER!r}"
    return None


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[PostgresCluster]:
    """The session's cluster; ask for ``postgres_url`` or ``database`` instead."""
    if "postgres" in os.environ.get("DATASYNC_TESTS_WITHOUT", "").replace(",", " ").split():
        pytest.skip("DATASYNC_TESTS_WITHOUT leaves out what needs PostgreSQL")
    binaries = _binaries()
    reason = _why_not_postgres(binaries)
    if reason is not None or binaries is None:
        pytest.fail(f"{reason}: install the package postgresql, or set DATASYNC_TESTS_WITHOUT=postgres")
    cluster = PostgresCluster(binaries)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def migrated_template(postgres_cluster: PostgresCluster) -> str:
    """A database with the schema, to copy: faster than running the migrations for each test."""
    name = postgres_cluster.database()
    upgrade(postgres_cluster.url(name))
    return name


@pytest.fixture
def postgres_url(postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The address of a new, empty PostgreSQL database."""
    name = postgres_cluster.database()
    yield postgres_cluster.url(name)
    postgres_cluster.drop(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The address of an SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'node.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of a new, empty database, once of each kind."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A new database with the schema, once of each kind."""
    if request.param == "sqlite":
        opened = Database.open(request.getfixturevalue("sqlite_url"))
        yield opened
        opened.close()
        return
    template: str = request.getfixturevalue("migrated_template")
    cluster: PostgresCluster = request.getfixturevalue("postgres_cluster")
    name = cluster.database(template)
    opened = Database.open(cluster.url(name), create=False)
    yield opened
    opened.close()
    cluster.drop(name)
