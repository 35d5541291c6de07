"""Pretext tasks on pictures with depth, one file each."""
