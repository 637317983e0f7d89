"""The data editor: a log of small operations on the rows of a file, applied as they are looked at, and written as a new
file.

rows        the rows of the file as they stand there, each at hand by its number
cells       the editable texts of a row, each with its path
operations  what can be done: set, delete, add, replace, fix; each checked, each a pure function of a row
fixes       what mends each kind of problem
state       the rows after some operations
scan        what a replacement or a fix would change, some rows at a time
log         the operations on one file, kept in the home: undo, redo, revisions
saving      the new file with its fingerprint
record      what a file was made from: the file before, what was done, and the log of it
"""
