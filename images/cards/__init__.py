"""Cards: what their names mean, and which image each of them should have."""
