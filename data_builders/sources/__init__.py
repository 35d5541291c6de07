"""The sources that come with the package, one file for each kind of storage; found by entry point like anybody's."""
