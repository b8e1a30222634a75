"""XTuner's own configs (0.1 and 0.2), converted to flat settings without XTuner.

`convert_config` loads a file, takes the objects that it builds apart key by key, and gives a report: the
values of settings, every change that training here makes, every reason why a config cannot be trained, and
what must be there first. `render_flat_config` writes the values as a flat config.
"""

from elysia.compat.xtuner.convert import convert_config, convert_tree
from elysia.compat.xtuner.loader import config_to_tree, is_xtuner_config, load_config_file
from elysia.compat.xtuner.map_functions import (
    is_function_path,
    load_map_function,
    load_pair_function,
)
from elysia.compat.xtuner.report import (
    ConversionReport,
    ConversionStatus,
    default_flat_path,
    render_flat_config,
)

__all__ = [
    "ConversionReport",
    "ConversionStatus",
    "config_to_tree",
    "convert_config",
    "convert_tree",
    "default_flat_path",
    "is_function_path",
    "is_xtuner_config",
    "load_config_file",
    "load_map_function",
    "load_pair_function",
    "render_flat_config",
]
