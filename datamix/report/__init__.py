"""What a job shows: files, tables, figures."""
