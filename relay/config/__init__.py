"""connectors.yaml into frozen models. Every error names file, line, key and a fix; nothing here talks to a network."""
