"""Device code in shared libraries: read, audited, slimmed.

The rule: standard library only, for it also runs in a builder stage, where nothing else of this project is. That is why
it has no face: others import its modules.
"""
