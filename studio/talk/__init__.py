"""Talking to models: voices and the server that speaks them, conversations kept on disk, blind votes."""
