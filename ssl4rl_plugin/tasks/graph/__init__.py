"""Pretext tasks on text-attributed graphs, one file each."""
