"""A resolver that can be changed for another answers as the one in use does."""

from relay.app.network import ResolverSwitch
from relay.dns.answers import Resolver, TxtRecords
from tests.fakes import FakeResolver


async def test_every_question_goes_to_the_resolver_in_use() -> None:
    fake = FakeResolver(
        mx_records={"a.test": [(10, "mx.a.test")]},
        hosts={"mx.a.test": ["192.0.2.1"]},
        secure={"a.test", "mx.a.test", "alias.a.test"},
        aliases={"alias.a.test": "mx.a.test"},
        tlsa_records={"mx.a.test:25": ["3 1 1 ab"]},
        texts={"_x.a.test": ["text"]},
        dane="not today",
    )
    switch: Resolver = ResolverSwitch(fake)
    assert await switch.mx("a.test") == await fake.mx("a.test")
    assert await switch.addresses("mx.a.test") == await fake.addresses("mx.a.test")
    assert await switch.configured_addresses("mx.a.test") == await fake.configured_addresses("mx.a.test")
    assert await switch.tlsa("mx.a.test", 25) == await fake.tlsa("mx.a.test", 25)
    assert await switch.is_secure_alias("alias.a.test") is True
    assert await switch.txt("_x.a.test") == TxtRecords(("text",))
    assert switch.dane == "not today"
