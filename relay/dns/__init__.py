"""DNS: where hosts are (MX, A, AAAA), asked without blocking and remembered for as long as the answers say."""
