"""What a node keeps: one schema, and one module of plain functions over a transaction for each thing stored.

Everything that must survive is here, so a node is a function of its database. Functions take the transaction
(``tx``, a connection of :class:`~datasync.store.database.Database`) first and never begin, commit or roll back.
"""
