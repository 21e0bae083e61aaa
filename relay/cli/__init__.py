"""The command line: one file per group of commands. Talks to a running relay over its admin socket only."""
