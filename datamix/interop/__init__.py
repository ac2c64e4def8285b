"""Mixes as other libraries take them: one module for each library, imported when it is asked for."""
