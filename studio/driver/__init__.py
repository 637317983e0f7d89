"""What each maker's driver says of its cards: kinds.py is the table of device kinds, then one file a maker. Never torch.

A maker's file gives plain Card tuples in the order in which a process counts them, and Notices: sentences on what is missing and
what to do about it. studio/device.py makes Devices of them.
"""
