"""What runs before training: sources read raw data, the index measures it, a build stores finished samples."""
