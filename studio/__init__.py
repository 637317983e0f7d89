"""Fine-Tuning Studio."""
