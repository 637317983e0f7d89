"""Bytes of a training step: an autograd that counts memory. Read autograd_tape.py, layer.py, step.py, peak.py."""
