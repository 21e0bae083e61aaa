"""DNS answers as facts, and their cache. Deciding on them is policy."""
