"""Data sets of the Hugging Face Hub, by their name."""
