"""Training a voice: VITS, its discriminators, and the run on MMEngine's runner.

Knows nothing of recordings as they come; `voice.recordings` prepares them.
"""
