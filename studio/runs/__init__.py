"""What keeps a run going and its word true: attempts, claims, checkpoints, stops, recovery, diagnosis, and what is read off its diary."""
