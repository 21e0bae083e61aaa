"""Certificates: ours, the next ones, and partners' as seen; and the sheet of what partners must be told."""

from starlette.responses import Response

from relay.admin.console.glance import SOON
from relay.admin.console.visit import Visit
from relay.admin.endpoint import NotFoundError

_PAGE = 100


async def certificates(visit: Visit) -> Response:
    """`from` is how many of the partners' are passed over."""
    found = await visit.facts.certificates()
    partners = sorted(found["partners"], key=lambda each: (each["not_after"], each["domain"]))
    start = visit.number("from")
    return visit.show(
        "certificates.html",
        "/certificates",
        ours=[each for each in found["ours"] if each["state"] != "next"],
        coming=[each for each in found["ours"] if each["state"] == "next"],
        partners=partners[start : start + _PAGE],
        number=len(partners),
        start=start,
        following=start + _PAGE if len(partners) > start + _PAGE else 0,
        soon=SOON,
    )


async def sheet(visit: Visit) -> Response:
    """What partners must be told of a certificate and the one that comes after it; to be printed or sent."""
    try:
        found = await visit.facts.sheet(visit.query("name"))
    except NotFoundError as error:
        return visit.refuse(404, "There is no such certificate", str(error), place="/certificates", kind="warn")
    papers = [(title, found[key]) for key, title in (("present", "Now"), ("coming", "Next")) if found[key]]
    return visit.show("sheet.html", "/certificates", sheet=found, papers=papers)
