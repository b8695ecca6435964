"""A light image against the same with untouched packages, on a card: every bit of answers, speed, memory, calls.

The rule: both are asked the same on the same card, in turns where time is taken, and what differs fails.
"""
