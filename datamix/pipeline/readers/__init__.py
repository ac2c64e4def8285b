"""Readers, which give the records of located places."""
