"""What happens while verl trains: settings, rewards, rows, checks before the start, the curriculum."""
