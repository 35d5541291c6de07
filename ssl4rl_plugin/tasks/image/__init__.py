"""Pretext tasks on images, one file each."""
