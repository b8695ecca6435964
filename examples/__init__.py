"""Clients of a server, one file each, to read and to copy: nothing here is used by the package."""
