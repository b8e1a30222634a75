"""From a script (a play, subtitles, a novel, a chat log) to rows in which one character answers.

`compile.py` puts the parts together. Knows nothing of training or of models.
"""
