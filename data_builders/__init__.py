"""What runs before training: sources of raw images, and the manifest that says which of them are used, and where."""
