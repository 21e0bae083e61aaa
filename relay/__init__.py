"""Ironpost: a self-hosted SMTP relay whose job is enforced TLS per partner. docs/flow.md follows one message through it."""

__version__ = "0.1.0"
