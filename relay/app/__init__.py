"""One running relay: the only place that wires the rooms together."""

from relay.app.relay import Relay, StartError

__all__ = ["Relay", "StartError"]
