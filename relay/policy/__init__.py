"""The decisions: who may send, where mail goes, how much TLS a delivery needs, whether a connection satisfies that, when to try again.

Values in, values out: no I/O, no clock, no randomness (an import contract forbids them). Tested by the tables in tests/golden.
"""
