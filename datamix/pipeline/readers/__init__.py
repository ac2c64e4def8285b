"""Where the records of located places come from."""
