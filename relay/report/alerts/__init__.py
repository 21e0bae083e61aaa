"""Alerts on their way to people: as mail, as a post to a webhook, and kept until they are there."""
