"""What is said about mail: delivery status notifications and traces."""
