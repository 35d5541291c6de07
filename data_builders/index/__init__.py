"""The index of a source: lists its items, measures them, and groups duplicates."""
