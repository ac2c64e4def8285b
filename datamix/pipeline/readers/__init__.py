"""Readers, which read located records."""
