"""Where run-finished news comes from: one file per kind of sender."""
