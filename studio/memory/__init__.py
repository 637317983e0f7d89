"""Bytes a training step needs: an autograd that counts memory instead of computing.

Read autograd_tape.py, then layer.py, step.py and peak.py.
"""
