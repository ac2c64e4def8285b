"""The config source behind `source=mnist+fashion`."""

from __future__ import annotations

import os
import re

from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource

_LONGEST = 240  # characters; most file systems allow 255, including the suffix


class PlusSource(ConfigSource):
    """Configs of the group `source` that join datasets: `source/a+b`.

    It is the entry `plus://` of the search path. An entry `plus://few+fewer` also has the datasets `few` and `fewer`,
    which are sources in memory that no file describes. An entry `plus://+few+fewer` only has configs whose names are
    too long for a file.
    """

    @staticmethod
    def scheme() -> str:
        return "plus"

    def _in_memory(self) -> list[str]:
        return [name for name in self.path.split("+") if name]

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return config_path == "source" or (config_path == "dataset" and bool(self._in_memory()))

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        if self.path.startswith("+"):
            return group == "source" and len(name) > _LONGEST
        return group == "source" or (group == "dataset" and f"+{name}+" in f"+{self.path}+")

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if results_filter == ObjectType.GROUP:
            return ["source"] if not config_path else []
        if config_path == "dataset":
            return self._in_memory()
        if config_path != "source":
            return []
        from datamix.config.files import choices_of

        typed = re.search(r" source=((?:\w+\+)+)\w*$", os.environ.get("COMP_LINE", ""))  # to be completed for a shell
        return sorted((typed[1] if typed else "") + name for name in [*choices_of("source"), *self._in_memory()])

    def load_config(self, config_path: str) -> ConfigResult:
        from datamix.config.plus import in_memory, joined

        group, _, name = config_path.removesuffix(".yaml").rpartition("/")
        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=joined(name, self._in_memory()) if group == "source" else in_memory(),
            header={"package": "_global_" if group == "source" else None},
        )
