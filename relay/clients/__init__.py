"""What clients are held to at every door that takes logins or connections: limits, and passwords."""
