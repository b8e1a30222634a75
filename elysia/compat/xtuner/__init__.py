"""XTuner's own configs (0.1 and 0.2), read into this project's settings.

A config goes one road: `read` loads the file without XTuner, `judge` turns what it built into the
values of `Settings`, with every change named and every reason for refusing it; from there on it is
trained like any other. `migrate` writes those values as a flat config. Nothing here trains.
"""
