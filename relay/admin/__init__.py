"""The HTTP API on a unix socket that the command line uses."""
