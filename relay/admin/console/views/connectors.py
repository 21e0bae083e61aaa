"""Connectors with their live state, `explain` and `probe` as pages, and the configuration that waits to be taken."""

from collections.abc import Iterator, Mapping

from starlette.responses import Response

from relay.admin.console.desk import Json
from relay.admin.console.story import demands_of, plan_of, tls_of
from relay.admin.console.visit import Visit
from relay.admin.endpoint import BadQuestionError, NotFoundError
from relay.policy.suspension import Stops

_IN_FORCE = "in force"


async def connectors(visit: Visit) -> Response:
    found = await visit.facts.connectors()
    return visit.show(
        "connectors.html",
        "/connectors",
        outbound=[_with_example(each) for each in found if each["direction"] == "outbound"],
        inbound=[each for each in found if each["direction"] == "inbound"],
        waiting=(await visit.facts.status())["configuration"]["waiting"],
        suspended={each.what for each in await visit.facts.suspensions() if each.stops is Stops.CONNECTOR},
    )


async def connector(visit: Visit) -> Response:
    name = str(visit.request.path_params["name"])[:80]
    try:
        found = await visit.facts.connector(name)
    except (BadQuestionError, NotFoundError):
        text = "The configuration in force has none by that name."
        return visit.refuse(404, "There is no such connector", text, place="/connectors", kind="warn")
    last = found["last"]
    return visit.show(
        "connector.html",
        "/connectors",
        connector=_with_example(found),
        asked={"to": f"postmaster@{_example(found)}"} if _example(found) else {},
        suspended={each.what for each in await visit.facts.suspensions() if each.stops is Stops.CONNECTOR},
        tls=tls_of(last["evidence"]) if last is not None else None,
        settings=list(_rows(found["settings"])),
    )


def _with_example(connector: Json) -> Json:
    """With `example`: a domain of its own to ask about, "" where it names only patterns."""
    return {**connector, "example": _example(connector)}


def _example(connector: Json) -> str:
    return next((str(each) for each in connector["domains"] if "*" not in each), "")


def _rows(settings: Json, place: str = "") -> Iterator[tuple[str, str]]:
    """Keys as in connectors.yaml, with dots, and their values as text; what is not set is left out."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{place}{key}.")
        elif isinstance(value, list | tuple):
            shown = [
                ", ".join(f"{k}: {v}" for k, v in each.items()) if isinstance(each, Mapping) else str(each)
                for each in value
            ]
            if shown:
                yield f"{place}{key}", "; ".join(shown)
        elif value not in (None, ""):
            yield (
                f"{place}{key}",
                {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value),
            )


async def explain(visit: Visit) -> Response:
    """What would become of a message: no mail server is spoken with."""
    asked = {name: visit.form.text(name, 320) for name in ("to", "from", "client_ip")}
    trouble, found = "", None
    try:
        found = await visit.facts.explain(asked)
    except (BadQuestionError, NotFoundError) as error:
        trouble = str(error)
    outbound = found["outbound"] if found else ()
    plans = [[(plan_of(hop["plan"]), demands_of(hop["plan"])) for hop in each["hops"]] for each in outbound]
    return visit.show(
        "explain.html",
        "/connectors",
        status=400 if trouble else 200,
        asked=asked,
        trouble=trouble,
        found=found,
        plans=plans,
    )


async def probe(visit: Visit) -> Response:
    """What a partner's hosts do: EHLO and STARTTLS, no mail."""
    domain = visit.form.text("domain", 320)
    trouble, found = "", None
    try:
        found = await visit.facts.probe(domain)
    except (BadQuestionError, NotFoundError) as error:
        trouble = str(error)
    hops = found["hops"] if found else ()
    return visit.show(
        "probe.html",
        "/connectors",
        status=400 if trouble else 200,
        domain=domain,
        trouble=trouble,
        found=found,
        plans=[(plan_of(hop["plan"]), demands_of(hop["plan"])) if hop["plan"] else None for hop in hops],
        shown=[[tls_of(each["evidence"]) for each in hop["addresses"]] for hop in hops],
        in_force=_IN_FORCE,
    )


async def change(visit: Visit) -> Response:
    return visit.show("change.html", "/connectors", change=await visit.facts.change(), result=None)


async def take(visit: Visit) -> Response:
    """As `relay reload`: the file as it is now. What its sender saw is named, so that a file that changed meanwhile is not taken unseen."""
    now = await visit.facts.change()
    if visit.form.text("seen") != now.mark:
        text = "The file has changed since that page was made. Here is what it would change now."
        return visit.show("change.html", "/connectors", status=409, change=now, result={"errors": [text]})
    result = await visit.facts.take()
    if result["errors"]:
        return visit.show("change.html", "/connectors", status=422, change=await visit.facts.change(), result=result)
    weaker = f" It allows more than before: {'; '.join(result['weaker'])}." if result["weaker"] else ""
    restart = f" Takes effect at a restart: {'; '.join(result['restart'])}." if result["restart"] else ""
    return visit.go("/change", f"The configuration is in force.{weaker}{restart}")
