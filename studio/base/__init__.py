"""The base model: where it comes from, what its files say, its linears, and how it is held in few bits."""
