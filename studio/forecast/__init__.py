"""What is told before a run starts besides its bytes: each `auto` settled, the time, advice, and what earlier runs
teach.
"""
