"""Sending: find the hops, connect, make TLS as the plan says, let the verdict decide, and only then say MAIL."""
