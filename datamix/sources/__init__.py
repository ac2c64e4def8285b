"""Sources: whole datasets, read as arrays of records of one spec."""
