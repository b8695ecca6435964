"""What audits of the real wheels found, kept: which stack has code for which card, and what a version dropped."""
