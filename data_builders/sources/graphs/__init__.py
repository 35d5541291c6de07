"""Sources of graphs: one graph in one file or folder."""
