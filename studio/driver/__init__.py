"""Cards as reported by their drivers, one file per vendor, without torch; kinds.py is the table of device kinds.

A vendor's file returns Card tuples in the order in which a process counts them, and Notices on what is missing.
studio/device.py makes Devices of them.
"""
