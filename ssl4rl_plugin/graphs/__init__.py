"""Graphs with texts at their nodes: how they are held, sampled, put into words, divided, and asked about."""
