"""From checked dataclasses (`load`), or from Python objects (`mix`), to sources, a plan and a pipeline."""
