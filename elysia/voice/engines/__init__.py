"""Speech engines, one file each: eSpeak NG, a VITS model, another program over HTTP, and silence.

Each module offers `build(settings, folder)`, which `voice.registry` calls with the settings of a voice
file. They are imported only when a voice asks for them, so this package re-exports nothing.
"""

__all__: list[str] = []
