"""Everything that touches verl's insides, except for the CPU platform (`ssl4rl_plugin.cpu`)."""
