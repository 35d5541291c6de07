"""Pretext tasks on images with depth, one file each."""
