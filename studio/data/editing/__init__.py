"""The data editor: a log of small operations on the rows of a file, applied on access, and written as a new file.

rows        random access to the raw rows of the file
cells       the editable texts of a row, each with its path
cell_operations  what can be done to one row: set, insert, remove; each checked, each a pure function of the row
operations  what can be done to rows: delete, add, replace, fix
fixes       the fix for each kind of problem
state       the rows after some operations
typed       what was typed in a field, as the value that is meant
scan        what a replacement or a fix would change, some rows at a time
log         the operations on one file, kept in the home: undo, redo, revisions
saving      the new file with its fingerprint
record      what a file was made from: the file before, what was done, and the log of it
"""
