"""Device code in shared libraries: read, audited, slimmed. Standard library only: it also runs in a builder stage."""
