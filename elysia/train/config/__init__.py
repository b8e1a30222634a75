"""Settings, what they refuse, and the MMEngine config that is built from them (`builder.py`)."""

from elysia.train.config.schema import SettingsModel
from elysia.train.config.settings import Settings, build_settings, load_settings

__all__ = ["Settings", "SettingsModel", "build_settings", "load_settings"]
