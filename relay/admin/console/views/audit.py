"""The audit log: who changed what, and who signed in, newest first."""

import json
from typing import Any

from starlette.responses import Response

from relay.admin.console.visit import Visit

_PAGE = 50


async def audit(visit: Visit) -> Response:
    """`who`, `action` and `since` filter, `below` is the number that the page begins behind."""
    asked = {name: visit.query(name, 128) for name in ("who", "action", "since", "below")}
    found = await visit.facts.audit({**asked, "limit": str(_PAGE)})
    entries = [{**each, "before": _text(each["before"]), "after": _text(each["after"])} for each in found["entries"]]
    return visit.show("audit.html", "/audit", asked=asked, entries=entries, following=found["next"])


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
