"""The base model: where it comes from, what its files say, which of its linears a method touches, and how it is held in
few bits.
"""
