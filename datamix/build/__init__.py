"""From checked dataclasses to sources, a plan and a pipeline."""
