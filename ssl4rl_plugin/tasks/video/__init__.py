"""Pretext tasks on videos, one file each."""
