"""What got its 250 and is not yet delivered: the store, intake into it, and the scheduler out of it."""
