"""Training a VITS voice: the generator's training pass, its discriminators and losses, and the run.

The run is MMEngine's runner with the language model's loop and checkpoints (`elysia.train`);
`training.launch.train` starts one, `training.export.export_voice` makes a voice of its checkpoint. Both need
torch, so this package re-exports nothing.
"""

__all__: list[str] = []
