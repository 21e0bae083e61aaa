"""Our certificates, partners' as last seen, and what partners must be told: `GET /certificates`, `/certificates/sheet`, `/certificates/page`."""

from collections.abc import Sequence
from typing import Any, Protocol

from relay.admin.endpoint import Answer, Asked, Content, Endpoint, Json, NotFoundError, Nothing, Question, Scope, Shape
from relay.admin.parameters import Text


class Certificates(Protocol):
    """What this topic asks of the relay. All may raise Unavailable."""

    async def certificates(self) -> Json:
        """In the shape of CertificateList."""
        ...

    async def certificate_sheets(self, name: str) -> Sequence[Json] | None:
        """Partner sheets in the shape of Sheet: all of ours, or of one; None where there is none of that name."""
        ...

    async def certificate_page(self, name: str) -> bytes | None:
        """One partner sheet as a page of HTML that needs nothing else; None where there is no certificate of that name."""
        ...


class SheetQuestion(Question):
    name: Text = ""
    """The certificate's file without .pem. Default: all."""


class PageQuestion(Question):
    name: Text
    """The certificate's file without .pem."""


class Trouble(Shape):
    severity: str
    """`error`: it is not used as it stands in the folder. `warning`: it is used, with a defect."""
    file: str
    text: str
    remedy: str


class Link(Shape):
    subject: str
    key: str
    sha256: str
    not_after: str
    days_left: float


class Root(Link):
    trust: str | None
    """The trust store that has it, `system` or a path; null where only the chain itself does."""


class ShownTo(Shape):
    listeners: list[str]
    policies: list[str]
    """Hosts that the policy server shows it for."""
    names: list[str]
    """Who asks for one of these is shown it."""
    otherwise: bool
    """And who asks for no name that we know."""


class Ours(Shape):
    """What a certificate says is null where it cannot be read."""

    name: str
    state: str
    """`in use`, `next` (published, shown to nobody) or `in trouble` (in the folder, not used)."""
    subject: str | None
    names: list[str] | None
    issuer: str | None
    key: str | None
    signature: str | None
    serial: str | None
    pin: str | None
    sha256: str | None
    sha1: str | None
    not_before: str | None
    not_after: str | None
    days_left: float | None
    crl: list[str] | None
    ocsp: list[str] | None
    chain: list[Link]
    """What is shown beside it."""
    root: Root | None
    shown: ShownTo
    connectors: list[str]
    """They show it to partners."""
    problems: list[Trouble]


class Sooner(Shape):
    subject: str
    sha256: str
    not_after: str


class Partners(Shape):
    connector: str
    direction: str
    """`outbound`: a hop showed it; `inbound`: a client."""
    hop: str
    """`host:port`; of a client, what its certificate calls it."""
    address: str
    domain: str
    verified: bool
    """The connector asks more of it than that there is one: its end stops mail."""
    failure: str | None
    """Why it was refused."""
    subject: str
    names: list[str]
    issuer: str
    pin: str
    sha256: str
    not_before: str
    not_after: str
    days_left: float
    sooner: Sooner | None
    """An intermediate that ends before it."""
    first_seen: str
    last_seen: str


class CertificateList(Shape):
    at: str
    ours: list[Ours]
    partners: list[Partners]


class PaperLink(Shape):
    subject: str
    sha256: str
    pin: str
    not_after: str


class TlsaLine(Shape):
    name: str
    value: str
    line: str
    """As it stands in a zone file."""
    note: str


class Paper(Shape):
    subject: str
    names: list[str]
    issuer: str
    intermediates: list[PaperLink]
    root: PaperLink | None
    key: str
    signature: str
    pin: str
    tlsa: list[TlsaLine]
    not_before: str
    not_after: str
    serial: str
    sha256: str
    sha1: str
    crl: list[str]
    ocsp: list[str]
    server: bool
    client: bool


class Changed(Shape):
    what: str
    present: str
    coming: str


class Todo(Shape):
    who: str
    """A kind of partner."""
    act: bool
    """Something must be done, else mail stops."""
    text: str


class Sheet(Shape):
    name: str
    hostname: str
    contact: str
    made_at: str
    change_on: str | None
    server: bool
    """We show it to those who send to us."""
    client: bool
    """We show it to those we send to."""
    present: Paper | None
    coming: Paper | None
    changes: list[Changed]
    tasks: list[Todo]


class SheetList(Shape):
    sheets: list[Sheet]


_LIST = "Our certificates (in use, next, in trouble and why), and those that partners showed last, with where and when."
_SHEET = "What partners must be told of a certificate and of the next one: what changes, and what each kind of partner has to do."
_PAGE = "The same as one page of HTML to be printed or sent."


def endpoints(relay: Certificates) -> tuple[Endpoint[Any], ...]:
    async def listed(_asked: Asked[Nothing]) -> Answer:
        return Answer(await relay.certificates())

    async def sheets(asked: Asked[SheetQuestion]) -> Answer:
        found = await relay.certificate_sheets(asked.given.name)
        if found is None:
            raise NotFoundError(_no_such(asked.given.name))
        return Answer({"sheets": list(found)})

    async def page(asked: Asked[PageQuestion]) -> Answer:
        found = await relay.certificate_page(asked.given.name)
        if found is None:
            raise NotFoundError(_no_such(asked.given.name))
        return Answer(Content("text/html", found))

    none = {404: "There is no certificate of that name."}
    return (
        Endpoint("GET", "/certificates", Scope.READ, _LIST, Nothing, CertificateList, listed),
        Endpoint("GET", "/certificates/sheet", Scope.READ, _SHEET, SheetQuestion, SheetList, sheets, refusals=none),
        Endpoint("GET", "/certificates/page", Scope.READ, _PAGE, PageQuestion, "text/html", page, refusals=none),
    )


def _no_such(name: str) -> str:
    return f"there is no certificate {name[:200]}: write a file's name without .pem"
