"""The only room with SQL: tables, migrations, and one module of plain functions per table.

Functions take an open SQLAlchemy `Connection` first and run inside the transaction of `Store.write`
or `Store.read` (db.py). Times are integer microseconds since the epoch in the database.
"""
