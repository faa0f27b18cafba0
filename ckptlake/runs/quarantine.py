"""What could not be read of a segment, set aside for a person to look at."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from ckptlake.tables.layout import Layout

logger = logging.getLogger(__name__)


def set_aside(layout: Layout, path: Path, offset: int, damage: str) -> Path:
    """Copy a segment's bytes from `offset` on into the quarantine, with a note of what is wrong with them."""
    layout.quarantine.mkdir(exist_ok=True)
    place = layout.quarantine / f"{path.name}.from-{offset}"
    place.write_bytes(path.read_bytes()[offset:])
    note = {"segment": path.name, "from_byte": offset, "size_bytes": place.stat().st_size, "damage": damage}
    place.with_name(f"{place.name}.json").write_text(json.dumps(note, indent=2))
    logger.warning("%s: %s; the frames before it are recovered, the rest is set aside in %s", path.name, damage, place)
    return place
