"""Our own certificates in use: chosen by server name, loaded anew without a restart.

`relay.config.certificates` reads the folder and says what is wrong with it. Here stands what is in use: a file that cannot be read
any more, or is half written, changes nothing, the certificate loaded before stays. Says nothing to anybody by itself: `reload`
and `expiring` return what happened, the caller makes events of it.

Threat: a renewal that is half done when we look; a name in SNI that is made to hurt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from OpenSSL import SSL

from relay.config.certificates import (
    HAS_ENDED,
    WILL_BEGIN,
    CertificateFiles,
    Folder,
    Problem,
    Severity,
    covers,
    find_certificate,
    read_folder,
)
from relay.tls.engine import server_engine
from relay.tls.facts import facts_of


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reload did, by certificate name. `kept` are problems of certificates that stay in use as they were loaded before."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    kept: tuple[Problem, ...] = ()

    @property
    def any(self) -> bool:
        """True where something in use is different from before."""
        return bool(self.added or self.removed or self.replaced)


@dataclass(frozen=True, slots=True)
class Keys:
    """The certificates in use at one time, in the order of their files, and an index over their names."""

    certificates: tuple[CertificateFiles, ...]
    default: tuple[CertificateFiles, ...]
    by_san: dict[str, tuple[CertificateFiles, ...]] = field(repr=False)

    @classmethod
    def of(cls, certificates: Sequence[CertificateFiles], hostname: str) -> "Keys":
        """`default` are those that hold `hostname`, else the first."""
        by_san: dict[str, tuple[CertificateFiles, ...]] = {}
        for files in certificates:
            for name in files.names:
                by_san[name] = (*by_san.get(name, ()), files)
        own = tuple(files for files in certificates if covers(files.names, hostname))
        return cls(tuple(certificates), own or tuple(certificates[:1]), by_san)

    def candidates(self, server_name: str) -> tuple[CertificateFiles, ...]:
        """Those that speak for a name: exactly, else by wildcard, else the default ones."""
        _label, _dot, parent = server_name.partition(".")
        return self.by_san.get(server_name) or self.by_san.get(f"*.{parent}") or self.default


class Keyring:
    """The certificates of one folder. `hostname` (lower case) says which is shown where SNI says nothing known.

    `next` wait to take another's place: for `relay publish` only, no peer is ever shown one.
    """

    def __init__(self, folder: Path, *, hostname: str, clock: Callable[[], datetime]) -> None:
        self._folder = folder
        self._hostname = hostname
        self._clock = clock
        self.keys = Keys.of((), hostname)
        self.next: tuple[CertificateFiles, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self.generation = 0
        self._waiting: tuple[datetime, ...] = ()
        self.reload()

    @property
    def certificates(self) -> tuple[CertificateFiles, ...]:
        return self.keys.certificates

    @property
    def waits_until(self) -> datetime | None:
        """When a new pair begins that is not in use before that, since the one loaded before is valid; None where none waits."""
        return min(self._waiting, default=None)

    @property
    def usable(self) -> bool:
        """True where there is any certificate to show, ended or not: an ended one still keeps mail from going in clear."""
        return bool(self.keys.certificates)

    def by_name(self, name: str) -> CertificateFiles | None:
        """The certificate that `client_certificate: NAME` means; see `find_certificate`."""
        return find_certificate(self.keys.certificates, name)

    def pick(self, server_name: str) -> tuple[CertificateFiles, ...]:
        """The certificates for a server name, "" for none: one for each kind of key (EC, RSA, ...), of which the client takes what it
        can check. Empty only where there is no certificate at all."""
        return self.pick_from(self.keys, server_name.encode("utf-8", "replace")) if self.usable else ()

    def pick_from(self, keys: Keys, server_name: bytes) -> tuple[CertificateFiles, ...]:
        """As `pick`, among the certificates that one context was made with, and from the bytes of SNI, whatever they are."""
        name = server_name.decode("ascii", "replace").lower().rstrip(".")
        candidates = keys.candidates(name)
        if len(candidates) == 1:
            return candidates
        now = self._clock()
        valid = [files for files in candidates if files.valid_at(now)]
        # One that has ended is shown only where there is no other, of whatever kind.
        several = valid or [max(candidates, key=lambda files: files.not_after)]
        best: dict[type, CertificateFiles] = {}
        for files in sorted(several, key=lambda files: files.not_after, reverse=True):
            best.setdefault(type(files.key), files)
        return tuple(best.values())

    def to_publish(self, host: str) -> tuple[CertificateFiles, ...]:
        """What a peer who asks for `host` may be shown from now on: those in use or about to begin, then the next ones.

        One that has ended counts only where there is no other.
        """
        now, candidates = self._clock(), self.keys.candidates(host)
        lasting = tuple(files for files in candidates if now <= files.not_after) or candidates
        replaced = {files.name for files in candidates}
        coming = (files for files in self.next if files.replaces in replaced or covers(files.names, host))
        return (*lasting, *coming)

    def expiring(self, within: timedelta) -> tuple[CertificateFiles, ...]:
        """Those that end within that time or have ended, the most urgent first."""
        limit = self._clock() + within
        return tuple(
            sorted((each for each in self.certificates if each.not_after <= limit), key=lambda each: each.not_after)
        )

    def reload(self) -> Changes:
        """Reads the folder again. `problems` are then the folder's, and what keeps a new pair of it from use."""
        folder = checked_folder(self._folder, self._clock())
        before = {files.name: files for files in self.keys.certificates}
        after = {files.name: files for files in folder.certificates}
        if before and not after and not folder.problems:
            folder = replace(folder, problems=(_emptied(self._folder),))
        self.problems = folder.problems
        if any(problem.file == self._folder for problem in folder.problems):
            return Changes(kept=folder.problems if before else ())
        self.next = folder.next
        untimely = self._untimely(before, after)
        self._waiting = tuple(after[name].not_before for name in untimely if after[name].not_before > self._clock())
        after |= {name: before[name] for name in untimely}
        self.problems = (*(each for each in folder.problems if not _outdone(each, untimely)), *untimely.values())
        # In trouble, not gone: what was loaded stays.
        troubled = {problem.file.stem for problem in folder.problems}
        staying = [name for name in before if name not in after and name in troubled]
        after |= {name: before[name] for name in staying}
        changes = Changes(
            added=tuple(name for name in after if name not in before),
            removed=tuple(name for name in before if name not in after),
            replaced=tuple(name for name in after if name in before and after[name].chain != before[name].chain),
            kept=(
                *(problem for problem in folder.problems if problem.file.stem in staying),
                *untimely.values(),
            ),
        )
        if changes.any:
            self.keys = Keys.of([after[name] for name in sorted(after)], self._hostname)
            self.generation += 1
        return changes

    def _untimely(self, before: dict[str, CertificateFiles], after: dict[str, CertificateFiles]) -> dict[str, Problem]:
        """New pairs that are not valid now, in the place of one that is: by name, why the one before stays."""
        now = self._clock()
        found = {}
        for name, files in after.items():
            present = before.get(name)
            if present is None or present.chain == files.chain or files.valid_at(now) or not present.valid_at(now):
                continue
            ended = now > files.not_after
            text = f"the new certificate {'ended' if ended else 'begins'} on {files.not_after if ended else files.not_before:%Y-%m-%d %H:%M} UTC"
            remedy = "put a valid one there" if ended else "the relay takes it then, or check this machine's clock"
            stays = f"{text}: the one that was loaded before stays in use"
            found[name] = Problem(Severity.ERROR, self._folder / f"{name}.pem", stays, remedy)
        return found


def _outdone(problem: Problem, untimely: dict[str, Problem]) -> bool:
    """What the folder says of the dates of a pair that is not in use."""
    return problem.file.stem in untimely and problem.text.startswith((HAS_ENDED, WILL_BEGIN))


def _emptied(folder: Path) -> Problem:
    """Threat: a folder that is emptied by mistake, or while it is copied, must not take mail back to clear text."""
    text = "no certificate is left in the folder: those that were loaded before stay in use"
    return Problem(Severity.ERROR, folder, text, "put them back, or stop the relay")


def checked_folder(path: Path, now: datetime) -> Folder:
    """As `read_folder`, without the certificates that OpenSSL will not show, which no other check may have found."""
    folder = read_folder(path, now)
    refused = {files.name: text for files in (*folder.certificates, *folder.next) if (text := _refused(files))}
    remedy = "have it issued again, with keys of EC P-256 or RSA 2048 and SHA-256 all along the chain"
    problems = (Problem(Severity.ERROR, path / f"{name}.pem", text, remedy) for name, text in refused.items())
    return Folder(
        tuple(files for files in folder.certificates if files.name not in refused),
        (*folder.problems, *problems),
        tuple(files for files in folder.next if files.name not in refused),
    )


def _refused(files: CertificateFiles) -> str:
    """Why OpenSSL would refuse it, when it is loaded or, for what is weak in the chain, in every handshake. "" where it does not."""
    for number, facts in enumerate(map(facts_of, files.chain), start=1):
        self_signed = facts.certificate.subject == facts.certificate.issuer
        weakness = facts.weak_key or ("" if self_signed else facts.weak_signature)
        if weakness:
            return f"certificate {number} is too weak for peers to accept: {weakness}"
    try:
        server_engine((files,), minimum="TLSv1.2", ask_certificate=False)
    except SSL.Error as error:
        reasons = "; ".join(str(entry[-1]) for entry in error.args[0]) if error.args else "no reason given"
        return f"OpenSSL refuses the certificate or its key: {reasons}"
    return ""
