"""Text-attributed graphs: dividing into splits, sampling, small-graph algorithms, and description in text."""
