"""Floor 2: training. Settings become a recipe (a full MMEngine config), which MMEngine's runner carries out.

Knows nothing of chat, engines or serving. What a later stage needs travels in `run_card.json`.
"""
