"""Compiles an attention package where the compiler is: in the builder's stage, or natively on a GPU host.

The rule: standard library and images.device_code only; nothing else of this project is there.
"""
