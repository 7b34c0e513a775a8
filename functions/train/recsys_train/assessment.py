"""Assess a new version before it is published, by comparing it with the current version of its key."""

from __future__ import annotations

import logging
from typing import Final

from recsys.errors import ArtifactDamaged, KeyNotFound
from recsys.model import artifact
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.erasures import hidden_users
from recsys.registry.records import Assessment
from recsys.registry.registry import Registry
from recsys_train.build import BuiltVersion
from recsys_train.comparison import compare

_logger: Final = logging.getLogger("recsys.train")


def assess(built: BuiltVersion, key_id: str, store: ObjectStore, registry: Registry, *, may_hold: bool) -> Assessment:
    """Compare a new version with the current version of its key.

    Parameters
    ----------
    built
        The new version.
    key_id
        Id of the version's key.
    store, registry
        Object store and registry that contain the current version.
    may_hold
        Whether the new version may be held. If False, the assessment has a comparison but no reasons.

    Returns
    -------
    Assessment
        The comparison, and the reasons to hold the new version. Both are missing if the key does not exist, has no
        version yet, or has a damaged current version. Any new version is an improvement in these cases.
    """
    try:
        key = registry.get_key(key_id)
    except KeyNotFound:
        return Assessment(None)
    name = key.current_version
    if name is None:
        return Assessment(None)
    metrics = next((each.metrics for each in registry.list_versions(key_id) if each.version == name), {})
    prefix = layout.model_prefix(key_id, name)
    try:
        current = artifact.read_model(
            lambda file: store.read(prefix + file), manifest_sha256=key.current_manifest_sha256
        )
    except ArtifactDamaged as error:
        _logger.warning("Version %s cannot be compared with: %s", name, error.detail)
        return Assessment(name)
    figures, reasons = compare(
        built.interactions, built.test, built.metrics, current, metrics, erased_users=hidden_users(key)
    )
    return Assessment(name, figures, reasons if may_hold else [])
