"""The standard library's twins, under the standard library's names: `from greenswitch.green import socket`.

A twin has every public name of its original. What would block the thread parks the task instead; all else *is* the
original's. Importing one patches nothing.
"""
