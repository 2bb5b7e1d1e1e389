"""Alembic's entry: it runs on the connection that schema.upgrade hands over."""

from alembic import context

from downriver.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
