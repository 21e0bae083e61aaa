from relay.workers.patience import Record


def test_one_that_did_its_work_has_a_successor_at_once() -> None:
    record = Record().ended(3600)
    assert (record.pause, record.is_hopeless) == (0, False)


def test_those_that_fail_at_once_are_started_less_and_less_often() -> None:
    record, pauses = Record(), []
    for _ in range(10):
        record = record.ended(0.5)
        pauses.append(record.pause)
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == 30


def test_after_some_failures_its_mail_is_given_away_until_it_lives() -> None:
    record = Record()
    assert [(record := record.ended(0.5)).is_hopeless for _ in range(4)] == [False, False, True, True]
    assert not record.ended(1).is_hopeless
