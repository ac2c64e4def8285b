"""Reports of jobs: files, tables, figures."""
