"""What the processes of one relay have in common: memory, locks, a line to each other, and the one that keeps them alive."""
