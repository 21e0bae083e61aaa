"""Our certificates as `relay.policy.holdings` has them: from the folder (or what a running relay loaded), and from the configuration that
uses them.

Synchronous and slow (path checks): for commands and the admin API, never on the way of a message.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from OpenSSL import crypto

from relay.config.certificates import CertificateFiles, Folder, Problem, Severity, find_certificate
from relay.config.models import Config, ListenerKind, Switch
from relay.config.references import trust_places
from relay.mail.tls import SYSTEM_TRUST
from relay.policy.candidate import Remark, lost
from relay.policy.holdings import Anchor, Holding, Shown, Standing, chain_defects, is_error, troubled
from relay.policy.stsfile import HOST
from relay.tls.details import details_of
from relay.tls.keyring import Keyring
from relay.tls.stores import StoreShelf, Unusable
from relay.tls.trust import verified_path

_NOWHERE = Path()


class Anchors:
    """Finds where chains end, among the trust stores that the configuration names and the system's."""

    def __init__(self, config: Config) -> None:
        named = (trust for _place, trust in trust_places(config))
        self._trusts = tuple(dict.fromkeys((config.trust, SYSTEM_TRUST, *named)))
        self._shelf = StoreShelf(interval=timedelta(seconds=1))

    def of(self, chain: Sequence[bytes], now: datetime) -> Anchor | None:
        """`chain` is DER, leaf first. None where it leads to nobody: an intermediate is missing, or it is not in order."""
        for trust in self._trusts:
            store = self._shelf.get(trust, now)
            path = () if isinstance(store, Unusable) else verified_path(store, chain, now)
            if path:
                return Anchor(details_of(path[-1]), trust)
        # A CA of one's own shows its root, and a self-signed leaf is its own.
        last = details_of(chain[-1])
        return Anchor(last, "") if last.self_issued and _hangs_together(chain) else None


def _hangs_together(chain: Sequence[bytes]) -> bool:
    """Each certificate's signature is the next one's."""
    try:
        parsed = [crypto.load_certificate(crypto.FILETYPE_ASN1, der).to_cryptography() for der in chain]
        for each, above in zip(parsed, [*parsed[1:], parsed[-1]], strict=True):
            each.verify_directly_issued_by(above)
    except Exception:  # noqa: BLE001 - a signature that cannot be checked is none, whatever the library calls it
        return False
    return True


def holding_of(
    files: CertificateFiles, config: Config, anchors: Anchors, now: datetime, connectors: Sequence[str] = ()
) -> Holding:
    """One pair by itself, with the defects of its chain as warnings. Who is shown it: `holdings`."""
    chain = tuple(map(details_of, files.chain))
    # One that begins later is judged as of then.
    anchor = anchors.of(files.chain, min(max(now, files.not_before), files.not_after))
    file = (config.certificates or _NOWHERE) / f"{files.name}.pem"
    defects = chain_defects(chain, anchor, client=bool(connectors))
    problems = tuple(Problem(Severity.WARNING, file, each.text, each.remedy) for each in defects)
    standing = Standing.NEXT if files.is_next else Standing.IN_USE
    return Holding(files.name, standing, chain, anchor, connectors=tuple(connectors), problems=problems)


def holdings(config: Config, keyring: Keyring, now: datetime) -> tuple[Holding, ...]:
    """All of ours: those in use, then the next ones, then what is in trouble."""
    anchors, users = Anchors(config), _users(config, keyring)
    found = []
    for files in (*keyring.certificates, *keyring.next):
        holding = holding_of(files, config, anchors, now, users.get(files.name, ()))
        told = tuple(each for each in keyring.problems if each.file.stem == files.name)
        shown = Shown() if files.is_next else _shown(config, keyring, files)
        found.append(replace(holding, shown=shown, problems=(*told, *holding.problems)))
    held = {each.name for each in found}
    others: dict[str, list[Problem]] = {}
    for problem in keyring.problems:
        if problem.file.stem not in held:
            others.setdefault(problem.file.stem, []).append(problem)
    return (*found, *(troubled(name, problems) for name, problems in others.items()))


def worse(before: CertificateFiles, after: CertificateFiles, config: Config, now: datetime) -> tuple[Remark, ...]:
    """As `relay.policy.candidate.lost`."""
    anchors = Anchors(config)
    present, coming = (holding_of(each, config, anchors, now) for each in (before, after))
    return tuple(lost(present, coming))


def folder_defects(config: Config, folder: Folder, now: datetime) -> Iterable[Problem]:
    """What partners will stumble over in the chains of a folder: for `relay check`."""
    anchors = Anchors(config)
    named = (each.client_certificate for each in (*config.outbound, config.default) if each.client_certificate)
    clients = {files.name for name in named if (files := find_certificate(folder.certificates, name))}
    for files in (*folder.certificates, *folder.next):
        shown = ("",) if files.name in clients else ()
        yield from holding_of(files, config, anchors, now, shown).problems


def _users(config: Config, keyring: Keyring) -> dict[str, tuple[str, ...]]:
    """By certificate, the connectors that show it to partners."""
    found: dict[str, tuple[str, ...]] = {}
    for each in (*config.outbound, config.default):
        files = keyring.by_name(each.client_certificate) if each.client_certificate else None
        if files is not None:
            found[files.name] = (*found.get(files.name, ()), each.name)
    return found


def _shown(config: Config, keyring: Keyring, files: CertificateFiles) -> Shown:
    def picked(name: str) -> bool:
        return any(each.name == files.name for each in keyring.pick(name))

    names = tuple(each for each in files.names if picked(each.replace("*", "any", 1)))
    policy_hosts = [f"{HOST}{domain}" for domain in config.published_domains] if config.publish.https else []
    return Shown(
        listeners=tuple(
            each.name
            for each in config.listeners
            if each.starttls is Switch.ON or each.kind is ListenerKind.SUBMISSIONS
        ),
        policies=tuple(host for host in policy_hosts if picked(host)),
        names=names,
        otherwise=picked(""),
    )


def worst(holdings: Iterable[Holding]) -> bool:
    """True where anything in the folder is not used as it stands there."""
    return any(any(map(is_error, each.problems)) for each in holdings)
