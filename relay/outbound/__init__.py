"""The sending side: look-ups, connections and their reuse, one attempt. Every delivery goes through a verdict."""
