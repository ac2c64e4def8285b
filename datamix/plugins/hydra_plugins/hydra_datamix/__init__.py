"""Plugins that datamix adds to Hydra: the config source `plus://`, two launchers and a sweeper.

Hydra imports the modules of this package in every Hydra program of the environment, so they import Hydra alone; what
they do is imported when it is called. `hydra_plugins` is a namespace that packages share: it has no `__init__.py`.
"""
