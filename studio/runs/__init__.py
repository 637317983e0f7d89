"""A run's attempts, device locks, checkpoints, stops, recovery and diagnosis, and what is derived from its events."""
