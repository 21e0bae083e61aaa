"""The nouns of mail: addresses, envelopes, replies, TLS facts, outcomes. Values only; nothing here does anything."""
