"""The TLS engine: contexts, what a connection really was, whom to trust, our own certificates. Judging is policy."""
