"""Multiruns: launching, watching, results, table, figure, page."""
