"""What a driver that breaks the order of events gets: an error, not a message from nowhere."""

from unittest.mock import Mock

import pytest

from relay.inbound.dialog import Dialog
from relay.inbound.room import Room
from relay.inbound.transaction import Transaction
from relay.mail.address import NULL
from relay.mail.reply import Reply
from relay.policy.admission import Admitted


def test_data_before_its_beginning() -> None:
    transaction = Transaction(Mock(), NULL, Admitted("", may_relay=False), "", Room())
    with pytest.raises(RuntimeError, match="before its beginning"):
        transaction.write(b"x")
    transaction.abort()
    transaction.fail(Reply(452, "4.3.1", "x"))
    transaction.write(b"read past")
    assert not transaction.full


def test_an_event_without_a_transaction() -> None:
    dialog = object.__new__(Dialog)
    dialog.transaction = None
    with pytest.raises(RuntimeError, match="no transaction is open"):
        dialog._rcpt(Mock())
