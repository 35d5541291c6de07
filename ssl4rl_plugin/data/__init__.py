"""Data that the trainer reads: pictures, sources, manifests, samples and rows. `data_builders` builds it."""
