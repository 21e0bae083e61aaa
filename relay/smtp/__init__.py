"""The wire, sans-IO: bytes in, events and bytes out. No sockets, no clock, no decisions about mail."""
