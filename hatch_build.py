"""Put the bundled model into wheels; an editable installation finds it in the checkout."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundledModel(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        model = Path(self.root) / "models" / "tiny"
        if version == "standard" and model.is_dir():
            build_data["force_include"][str(model)] = "kimi_audio/models/tiny"
