"""Look-up of slots in the compiled program, one file for each kind of period."""
