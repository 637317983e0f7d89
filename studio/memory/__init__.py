"""Bytes a training step needs: a mini autograd that counts memory instead of computing (see tape.py, then layer.py)."""
