"""The settings of a cleaning, and whether there is anything new to do."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.cleaning.checks import MEASURES_VERSION
from pipeline.cleaning.options import SHARED, CleanConfig
from pipeline.cleaning.versions import Version
from pipeline.diffusion.method import Method
from pipeline.io import layout, store
from pipeline.networks.presets import Preset
from pipeline.restoration.config import RestoreConfig, fingerprint
from pipeline.restoration.method import bounds_of, choose_method
from pipeline.tracking.address import settle_uri

# Listing and settings that led to the last version again although files were touched.
SAME = f"{layout.LEDGER}/same.json"


@dataclass(frozen=True)
class Plan:
    """A start's configuration with the resolved restoration settings."""

    config: CleanConfig
    restore: RestoreConfig
    preset: Preset
    method: Method

    @property
    def measuring(self) -> str:
        """Digest of the settings that affect measurements."""
        c = self.config
        return digest(
            [MEASURES_VERSION, self.preset.side, c.detector, c.min_score, c.image_column, c.max_pixels]
        )

    @property
    def settings(self) -> str:
        """Digest of the settings that affect verdicts and repaired pixels."""
        bounds = bounds_of(self.restore, self.preset)
        gates = bounds.as_table if bounds else None
        repair = fingerprint(
            self.restore, self.method.resolved | {"preset": asdict(self.preset), "gates": gates}
        )
        return digest([self.measuring, self.config.thresholds(), self.config.repair and repair])


def digest(value: Any) -> str:
    """Sixteen hexadecimal digits that identify settings."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def make_plan(config: CleanConfig, extra: Mapping[str, Any]) -> Plan:
    """The plan of a configuration. extra: further options of jobs.restore. Raises a Refusal for invalid ones."""
    config = replace(config, input=store.absolute(config.input), output=store.absolute(config.output))
    names = ("image_column", "weights_dir", "ray_address", "max_error_rate", "experiment")
    values = dict(extra) | {name: getattr(config, name) for name in (*SHARED, *names)}
    # whoever looks at repairs looks at versions
    values |= {"mlflow_uri": mlflow_uri(config), "review": "off"}
    restore = RestoreConfig.of(config.input, config.output, **values)
    return Plan(config, restore, *choose_method(restore))


def mlflow_uri(config: CleanConfig) -> str:
    """The tracking URI of versions and repairs."""
    return settle_uri(config.mlflow_uri, config.output)


def nothing_new(plan: Plan, last: Version, listing: str) -> bool:
    """Whether a start would give the last version again, by its listing and settings."""
    if (last.listing, last.settings) == (listing, plan.settings):
        return True
    uri = store.join(plan.config.output, SAME)
    same = json.loads(store.read_bytes(uri)) if store.exists(uri) else None
    return bool(same == {"version": last.number, "listing": listing, "settings": plan.settings})
