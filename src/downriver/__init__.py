"""Downriver: a dbt job finishes; every dashboard that shows its data is fresh, and says so."""

__version__ = "0.1.0"
