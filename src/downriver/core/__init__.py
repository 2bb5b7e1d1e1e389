"""Decisions. Standard library only; no I/O, clock, randomness or logging: time and ids are arguments."""
