"""Events into a structured log and metrics, and the HTTP listener that shows them."""
