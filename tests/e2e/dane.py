"""A world for DANE: partners with their zones, mail servers and certificates, right and wrong ones.

Each partner NAME has the domain `NAME.ZONE` and, unless said otherwise, one MX host `mx.NAME.ZONE` with an address of its own.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.dnssec import Zone, host_address
from tests.hostile import Behaviour
from tests.unit.tls.pki import DAY, NOW, Issued, Wish, root, self_signed, tlsa_record

PORT = 2525
CA, OTHER = root("partner CA"), self_signed(Wish("other", names=["other.test"]))
INTERMEDIATE = CA.issue(Wish("partner intermediate", ca=True))
USELESS = "1 1 1 " + "00" * 32


@dataclass(frozen=True)
class Partner:
    """`tlsa` are records at the MX host, `certificate` is what it shows (with CA behind it), None for no STARTTLS.

    `records` take the place of the usual MX and address records; NAME and ADDRESS stand for the partner's.
    """

    zone: str = "secure.test"
    tlsa: tuple[str, ...] = ()
    certificate: Issued | None = None
    records: str = "{name} MX 10 mx.{name}\nmx.{name} A {address}\n"


def leaf(*names: str, expired: bool = False) -> Issued:
    return INTERMEDIATE.issue(Wish("mx", names=names, after=NOW - DAY if expired else NOW + 100 * DAY))


def ee(issued: Issued, selector: int = 1, matching: int = 1) -> str:
    return str(tlsa_record(3, selector, matching, issued))


def ta(issued: Issued, selector: int = 1, matching: int = 1) -> str:
    return str(tlsa_record(2, selector, matching, issued))


GOOD = leaf("mx.test")  # of no host here: DANE-EE does not look at names
NAMELESS = self_signed(Wish("nobody"))
EXPIRED = leaf("mx.test", expired=True)
WRONG = ee(OTHER)
MX = "{name} MX 10 mx.{name}\n"

PARTNERS: Mapping[str, Partner] = {
    "none": Partner(certificate=NAMELESS),
    "clear": Partner(),
    "ee": Partner(tlsa=(ee(GOOD),), certificate=GOOD),
    "ee-whole": Partner(tlsa=(ee(GOOD, 0, 0),), certificate=GOOD),
    "ee-sha512": Partner(tlsa=(ee(GOOD, 0, 2),), certificate=GOOD),
    "ee-nobody": Partner(tlsa=(ee(NAMELESS),), certificate=NAMELESS),
    "ee-expired": Partner(tlsa=(ee(EXPIRED),), certificate=EXPIRED),
    "ee-wrong": Partner(tlsa=(WRONG,), certificate=GOOD),
    "ee-clear": Partner(tlsa=(ee(GOOD),)),
    "ee-agility": Partner(tlsa=(ee(GOOD), ee(OTHER, 1, 2)), certificate=GOOD),
    "rollover": Partner(tlsa=(WRONG, ee(GOOD)), certificate=GOOD),
    "ta": Partner(tlsa=(ta(CA),), certificate=leaf("mx.ta.secure.test")),
    "ta-mid": Partner(tlsa=(ta(INTERMEDIATE, 0, 2),), certificate=leaf("mx.ta-mid.secure.test")),
    "ta-domain": Partner(tlsa=(ta(CA),), certificate=leaf("ta-domain.secure.test")),
    "ta-names": Partner(tlsa=(ta(CA),), certificate=GOOD),
    "ta-expired": Partner(tlsa=(ta(CA),), certificate=leaf("mx.ta-expired.secure.test", expired=True)),
    "ta-wrong": Partner(tlsa=(ta(root("another CA")),), certificate=leaf("mx.ta-wrong.secure.test")),
    "ta-leaf": Partner(tlsa=(ta(NAMELESS),), certificate=NAMELESS),
    "useless": Partner(tlsa=(USELESS,), certificate=NAMELESS),
    "useless-clear": Partner(tlsa=(USELESS,)),
    "implicit": Partner(records="{name} A {address}\n_2525._tcp.{name} TLSA " + ee(GOOD) + "\n", certificate=GOOD),
    # aliases
    "chain": Partner(
        records=MX + "mx.{name} CNAME end.{name}\nend.{name} A {address}\n_2525._tcp.end.{name} TLSA " + ta(CA) + "\n",
        certificate=leaf("end.chain.secure.test"),
    ),
    "chain-wrong": Partner(
        records=MX + "mx.{name} CNAME end.{name}\nend.{name} A {address}\n_2525._tcp.end.{name} TLSA " + WRONG + "\n",
        tlsa=(ee(GOOD),),
        certificate=GOOD,
    ),
    "chain-own": Partner(
        records=MX + "mx.{name} CNAME end.{name}\nend.{name} A {address}\n",
        tlsa=(ta(CA),),
        certificate=leaf("mx.chain-own.secure.test"),
    ),
    "out": Partner(records=MX + "mx.{name} CNAME mx.out.insecure.test.\n", tlsa=(ee(GOOD),), certificate=GOOD),
    "out-wrong": Partner(records=MX + "mx.{name} CNAME mx.out.insecure.test.\n", tlsa=(WRONG,), certificate=GOOD),
    "in": Partner("insecure.test", records=MX + "mx.{name} CNAME mx.ee-wrong.secure.test.\n", certificate=GOOD),
    "to-alias": Partner(records="{name} MX 10 mx.in.insecure.test.\n", certificate=GOOD),
    "tlsa-alias": Partner(
        records=MX + "mx.{name} A {address}\n_2525._tcp.mx.{name} CNAME tlsa.{name}\ntlsa.{name} TLSA " + ee(GOOD) + "\n",
        certificate=GOOD,
    ),
    "tlsa-out": Partner(
        records=MX + "mx.{name} A {address}\n_2525._tcp.mx.{name} CNAME _2525._tcp.mx.wrong.insecure.test.\n",
        certificate=GOOD,
    ),
    # zones
    "nsec3": Partner("nsec3.test", tlsa=(ee(GOOD),), certificate=GOOD),
    "nsec3-wrong": Partner("nsec3.test", tlsa=(WRONG,), certificate=GOOD),
    "nsec3-none": Partner("nsec3.test", certificate=NAMELESS),
    "wrong": Partner("insecure.test", tlsa=(WRONG,), certificate=GOOD),
    "unsigned-mx": Partner("insecure.test", records="{name} MX 10 mx.ee-wrong.secure.test.\n", certificate=GOOD),
    "to-unsigned": Partner(records="{name} MX 10 mx.wrong.insecure.test.\n", certificate=GOOD),
    "bogus": Partner("bogus.test", tlsa=(ee(GOOD),), certificate=GOOD),
    "expired": Partner("expired.test", tlsa=(ee(GOOD),), certificate=GOOD),
    "to-bogus": Partner(records="{name} MX 10 mx.bogus.bogus.test.\n", certificate=GOOD),
    "to-expired": Partner(records="{name} MX 10 mx.expired.expired.test.\n", certificate=GOOD),
    "tlsa-bogus": Partner(
        records=MX + "mx.{name} A {address}\n_2525._tcp.mx.{name} CNAME tlsa.bogus.test.\n", certificate=GOOD
    ),
}  # fmt: skip

_SHARED = {  # who stands at the address of another
    "out": "out", "out-wrong": "out", "in": "ee-wrong", "to-alias": "ee-wrong", "unsigned-mx": "ee-wrong",
    "to-unsigned": "wrong", "to-bogus": "bogus", "to-expired": "expired",
}  # fmt: skip


def domain(name: str) -> str:
    return f"{name}.{PARTNERS[name].zone}"


def address(name: str) -> str:
    return host_address(sorted(PARTNERS).index(_SHARED.get(name, name)))


def zones() -> Mapping[str, Zone]:
    """All of them, for the bench."""
    records: dict[str, list[str]] = {f"{name}.test": [] for name in ("secure", "nsec3", "insecure", "bogus", "expired")}
    for name, partner in PARTNERS.items():
        records[partner.zone].append(partner.records.format(name=name, address=address(name)))
        records[partner.zone] += [f"_{PORT}._tcp.mx.{name} TLSA {each}\n" for each in partner.tlsa]
    records["insecure.test"].append(f"mx.out A {address('out')}\n")
    records["bogus.test"].append(f"tlsa TLSA {ee(GOOD)}\n")
    texts = {name: "".join(each) for name, each in records.items()}
    return {
        "secure.test": Zone(texts["secure.test"]),
        "nsec3.test": Zone(texts["nsec3.test"], signed="nsec3"),
        "insecure.test": Zone(texts["insecure.test"], signed="", vouched=""),
        "bogus.test": Zone(texts["bogus.test"], vouched="wrong"),
        "expired.test": Zone(texts["expired.test"], signed="expired"),
    }


@dataclass
class Contexts:
    """Server contexts by certificate, made once."""

    folder: Path
    _made: dict[str, ssl.SSLContext] = field(default_factory=dict)

    def behaviour(self, name: str) -> Behaviour:
        issued = PARTNERS[name].certificate
        if issued is None:
            return Behaviour()
        if name not in self._made:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            chain = issued.pem + b"".join(each.pem for each in issued.issuers)
            (self.folder / f"{name}.pem").write_bytes(chain + issued.key_pem)
            context.load_cert_chain(self.folder / f"{name}.pem")
            self._made[name] = context
        return Behaviour(tls=self._made[name])
