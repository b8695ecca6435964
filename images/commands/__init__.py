"""The commands of `./inv`, one file each: its options, what it does, what it prints.

The rule: a command parses nothing and computes nothing that another room could; `tasks.py` names them all.
"""
