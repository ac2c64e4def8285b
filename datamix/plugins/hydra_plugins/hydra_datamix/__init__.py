"""Plugins that datamix adds to Hydra: the config source `plus://`, two launchers and a sweeper.

Hydra imports the modules of this package in every Hydra program of the environment, so they import only Hydra, and
datamix when they are called. `hydra_plugins` is a namespace package, which has no `__init__.py`.
"""
