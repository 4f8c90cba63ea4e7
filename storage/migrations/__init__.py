"""Alembic's folder. Revisions only append, and are run by `storage.database.open_database`."""
