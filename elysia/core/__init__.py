"""Floor 0: the shapes every other part shares. Standard library only; knows nothing of any model or page."""
