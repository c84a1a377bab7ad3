"""The schema in the database: which revision it has, bringing it up, and comparing it with ``tables.py``.

The revisions are Alembic's, in ``migrations/``: beside the package in a checkout, inside it in a wheel. They
run in the caller's transaction, so an upgrade that fails leaves the database as it was.
"""

from importlib import resources
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from datasync.domain.errors import SchemaOutdated, StoreError
from datasync.store.tables import metadata

_UPGRADE_LOCK = 0x75_70_67_72_61_64_65
"""The advisory lock of whoever upgrades: "upgrade" in ASCII."""


def migrations() -> Path:
    """Return the folder of the revisions. Raises StoreError when the installation lacks it."""
    package = Path(str(resources.files("datasync")))
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise StoreError(f"the migrations are neither in {package} nor beside it", fix="install datasync again")


def upgrade(connection: Connection) -> list[str]:
    """Apply the revisions that are missing; return them, the oldest first."""
    if connection.dialect.name == "postgresql":  # SQLite's writers take turns anyway
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_UPGRADE_LOCK})")
    config = _config()
    config.attributes["connection"] = connection
    missing = ScriptDirectory.from_config(config).iterate_revisions("head", _revision(connection) or "base")
    applied = [script.revision for script in missing][::-1]
    if applied:
        command.upgrade(config, "head")
    return applied


def differences(connection: Connection) -> list[str]:
    """Return what would have to change in the database to equal ``tables.py``; nothing when all is well."""
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return [repr(change) for change in compare_metadata(context, metadata)]


def require(connection: Connection) -> None:
    """Raise SchemaOutdated unless the database has exactly the newest revision."""
    found = _revision(connection)
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    if found != wanted:
        detail = f"the database has the schema's revision {found or 'none'}, this version needs {wanted}"
        raise SchemaOutdated(detail, fix="run: datasync db upgrade")


def is_empty(connection: Connection) -> bool:
    """Whether the database has no tables at all."""
    return not inspect(connection).get_table_names()


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
