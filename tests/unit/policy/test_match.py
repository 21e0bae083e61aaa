"""Which rule speaks about a domain."""

import pytest

from relay.policy.match import PatternIndex

INDEX = PatternIndex.of(
    [
        ("contoso.com", 1),
        ("*.contoso.com", 2),
        ("*.mail.contoso.com", 3),
        ("a.mail.contoso.com", 4),
        ("a.mail.contoso.com", 5),
    ]
)
WITH_STAR = PatternIndex.of([("contoso.com", 1), ("*", 9)])


@pytest.mark.parametrize(
    ("domain", "pattern", "values"),
    [
        ("contoso.com", "contoso.com", (1,)),
        ("mail.contoso.com", "*.contoso.com", (2,)),
        ("b.mail.contoso.com", "*.mail.contoso.com", (3,)),
        ("c.b.mail.contoso.com", "*.mail.contoso.com", (3,)),
        ("a.mail.contoso.com", "a.mail.contoso.com", (4, 5)),
        ("evilcontoso.com", "", ()),
        ("com", "", ()),
        ("contoso.com.example", "", ()),
        ("", "", ()),
        ("[192.0.2.1]", "", ()),
    ],
)
def test_the_most_specific_pattern_wins(domain: str, pattern: str, values: tuple[int, ...]) -> None:
    found = INDEX.find(domain)
    assert (found.pattern, found.values) == (pattern, values)


@pytest.mark.parametrize(
    ("domain", "values"), [("x.example", (9,)), ("contoso.com", (1,)), ("[192.0.2.1]", ()), ("", ())]
)
def test_the_star_takes_every_domain_and_no_literal(domain: str, values: tuple[int, ...]) -> None:
    assert WITH_STAR.find(domain).values == values
