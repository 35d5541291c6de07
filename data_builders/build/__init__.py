"""Builds: the samples of a run written to parquet before it starts, in parallel, resumable, byte-identical."""
