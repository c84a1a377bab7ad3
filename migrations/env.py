"""How Alembic runs the revisions: on the connection, and in the transaction, that ``datasync.store.schema`` gives.

There is no alembic.ini and no offline mode; ``datasync db upgrade`` is the way in.
"""

from alembic import context

from datasync.store.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
