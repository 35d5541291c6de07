"""What the trainer reads: pictures, sources and their manifests, samples and rows. Making them is `data_builders`."""
