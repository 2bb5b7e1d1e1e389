"""Contract suites for people who add a source or a connector: inherit one, fill in the gaps, run pytest."""
