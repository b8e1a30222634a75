"""From a checkpoint to a model: adapter folder, merged weights, and the proof that they agree.

Each step reads folders and writes one whole folder with a run card. Knows nothing of serving.
"""
