"""TLS reports (RFC 8460): sessions counted, reports written, sent and read. What one session means is decided in `relay.policy.tlsrpt`."""
