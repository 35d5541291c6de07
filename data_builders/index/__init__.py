"""The index of a source: which items there are, what they are like, and which belong together."""
