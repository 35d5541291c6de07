"""Pretext tasks on pictures, one file each."""
