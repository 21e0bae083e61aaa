"""The receiving side: sockets, STARTTLS, admission, logins, PROXY headers, time limits, around the machine in relay.smtp."""
