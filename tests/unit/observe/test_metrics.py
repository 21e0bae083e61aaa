from dataclasses import replace
from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from relay.mail import events as e
from relay.mail.outcome import Delivered
from relay.mail.published import StsMode
from relay.mail.reply import Reply
from relay.mail.tls import TlsFailure
from relay.observe import metrics as module
from relay.observe.metrics import Metrics, Readings
from tests.unit.observe.samples import ALL, DELIVERED, GONE, MISMATCH, REPORT, attempt, message


def values(metrics: Metrics, readings: Readings | None = None) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of the label names...) -> value, of all samples."""
    families = text_string_to_metric_families(metrics.render(readings or Readings()).decode())
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_event_is_counted_and_every_name_has_the_prefix() -> None:
    metrics = Metrics()
    before = values(metrics)
    for event in ALL:
        metrics(event)
    after = values(metrics)
    assert after != before
    assert all(key[0].startswith(("ironpost_", "process_")) for key in after)
    assert not any(key[0].endswith("_created") for key in after)


def test_deliveries_by_tls_and_how_long_they_took() -> None:
    metrics = Metrics()
    made = replace(attempt(DELIVERED, MISMATCH, GONE), at=message().accepted.at + timedelta(seconds=2))
    metrics(e.AttemptMade(message(3), made))
    metrics(e.AttemptMade(message(), attempt(DELIVERED, evidence=None)))
    metrics(e.AttemptMade(message(), attempt(MISMATCH)))
    found = values(metrics)
    key = ("ironpost_deliveries_total", "TLS_AES_256_GCM_SHA384", "contoso-out", "X25519MLKEM768", "TLSv1.3")
    assert found[key] == 1
    assert found["ironpost_deliveries_total", "", "contoso-out", "", "none"] == 1
    assert found["ironpost_recipient_outcomes_total", "contoso-out", "delivered"] == 2
    assert found["ironpost_recipient_outcomes_total", "contoso-out", "bounced"] == 1
    assert found["ironpost_tls_failures_total", "contoso-out", "certificate-host-mismatch"] == 2
    assert found["ironpost_attempt_seconds_count", "contoso-out"] == 3
    assert found["ironpost_delivery_seconds_sum", "contoso-out"] == 2.25 + 0.25
    assert found["ironpost_delivery_seconds_bucket", "contoso-out", "2.5"] == 2


def test_a_clock_that_went_back_gives_no_negative_latency() -> None:
    metrics = Metrics()
    made = replace(attempt(Delivered(250, "2.0.0", "")), at=message().accepted.at - timedelta(hours=1))
    metrics(e.AttemptMade(message(), made))
    assert values(metrics)["ironpost_delivery_seconds_sum", "contoso-out"] == 0


def test_accepted_messages_by_listener_protocol_connector_and_tls() -> None:
    metrics = Metrics()
    metrics(e.MessageAccepted(message()))
    metrics(e.MessageAccepted(message(tls=None)))
    found = values(metrics)
    assert found["ironpost_messages_accepted_total", "a-in", "mx 0.0.0.0:25", "ESMTPS", "TLSv1.3"] == 1
    assert found["ironpost_messages_accepted_total", "a-in", "mx 0.0.0.0:25", "ESMTPS", "none"] == 1
    assert found["ironpost_message_bytes_accepted_total",] == 8192


def test_what_a_peer_says_never_becomes_a_label() -> None:
    metrics = Metrics()
    for number in range(50):
        metrics(e.CommandRefused("mx", "192.0.2.1", f"XYZZY{number} x", Reply(500, "5.5.2", f"what is {number}?")))
        metrics(e.ConnectionRefused("mx", "192.0.2.1", f"bad PROXY header: {number}"))
        metrics(e.SessionClosed("mx", "192.0.2.1", f"lost: {number}", 1.0))
    metrics(e.CommandRefused("mx", "192.0.2.1", "mail FROM:<a@b>", Reply(550, "", "no"), connector="a-in"))
    found = values(metrics)
    assert found["ironpost_commands_refused_total", "other", "", "5.5.2"] == 50
    assert found["ironpost_commands_refused_total", "MAIL", "a-in", "550"] == 1
    assert found["ironpost_connections_refused_total", "bad PROXY header"] == 50
    assert found["ironpost_sessions_ended_total", "mx", "lost", "none"] == 50


def test_time_series_are_bounded_whatever_happens() -> None:
    metrics = Metrics()
    for number in range(module._DISTINCT + 50):
        metrics(e.ConnectionRefused("mx", "192.0.2.1", f"reason {number}"))
    found = {key: value for key, value in values(metrics).items() if key[0] == "ironpost_connections_refused_total"}
    assert len(found) == module._DISTINCT + 1
    assert found["ironpost_connections_refused_total", "other"] == 50


def test_fetches_of_policies_by_what_came_of_them() -> None:
    metrics = Metrics()
    metrics(e.StsPolicyFetched("b.example", StsMode.ENFORCE, "1", 86400))
    metrics(e.StsPolicyChanged("b.example", StsMode.ENFORCE, StsMode.TESTING, ("mx.b.example",)))
    for held in ("", "enforce", "enforce"):
        metrics(e.StsFetchFailed("b.example", TlsFailure.STS_WEBPKI_INVALID, "expired", held))
    found = values(metrics)
    assert found["ironpost_sts_fetches_total", "enforce"] == 1
    assert found["ironpost_sts_fetches_total", "sts-webpki-invalid"] == 3
    assert found["ironpost_sts_changes_total", "enforce", "testing"] == 1
    assert found["ironpost_sts_refresh_failures_total", "enforce"] == 2


def test_tls_reports_that_we_send_and_that_we_get() -> None:
    metrics = Metrics()
    for event in ALL:
        metrics(event)
    metrics(e.TlsReportReceived("01K", REPORT))
    found = values(metrics, Readings(tls_sessions_uncounted=7))
    assert found["ironpost_tlsrpt_sessions_total", "sts", "success"] == 1
    assert found["ironpost_tlsrpt_sessions_total", "sts", "certificate-expired"] == 1
    assert found["ironpost_tlsrpt_reports_total", "failed", "https"] == 1
    assert found["ironpost_tlsrpt_received_total", "taken"] == 2
    assert found["ironpost_tlsrpt_received_total", "ignored"] == 1
    assert found["ironpost_tlsrpt_received_sessions_total", "sts", "success"] == 80
    assert found["ironpost_tlsrpt_received_sessions_total", "sts", "certificate-expired"] == 4
    assert found["ironpost_tlsrpt_received_sessions_total", "sts", "other"] == 6
    assert found[("ironpost_tlsrpt_sessions_uncounted",)] == 7


def test_states_of_configuration_and_store() -> None:
    metrics = Metrics()
    metrics(e.ConfigurationWaiting("f", ("x",)))
    metrics(e.StoreTrouble("disk full"))
    found = values(metrics)
    assert (found["ironpost_configuration_waiting",], found["ironpost_store_ok",]) == (1, 0)
    metrics(e.ConfigurationTaken("f"))
    metrics(e.StoreRecovered())
    found = values(metrics)
    assert (found["ironpost_configuration_waiting",], found["ironpost_store_ok",]) == (0, 1)


def test_a_configuration_waits_while_any_of_its_files_does() -> None:
    metrics = Metrics()
    metrics(e.ConfigurationWaiting("connectors.yaml", ("x",)))
    metrics(e.ConfigurationWaiting("passwords", ("x",)))
    metrics(e.ConfigurationTaken("connectors.yaml"))
    assert values(metrics)["ironpost_configuration_waiting",] == 1
    metrics(e.ConfigurationSettled("passwords"))
    assert values(metrics)["ironpost_configuration_waiting",] == 0


def test_a_resolver_that_does_not_validate_shows_until_it_does_or_is_declared_no_more() -> None:
    metrics = Metrics()
    assert values(metrics)["ironpost_dane_trouble",] == 0
    for end in (e.DaneUsable("127.0.0.1:53"), e.ConfigurationTaken("f")):
        metrics(e.DaneUnusable("it does not validate"))
        assert values(metrics)["ironpost_dane_trouble",] == 1
        metrics(end)
        assert values(metrics)["ironpost_dane_trouble",] == 0


def test_gauges_are_what_was_read_and_nothing_stale() -> None:
    metrics = Metrics()
    first = Readings(
        queue={"waiting": 3, "held": 1},
        oldest=60.0,
        store_bytes=1000,
        free_bytes=5000,
        connections={"mx": 2},
        certificates={"relay.example.com": 12.5},
        log_lines_dropped=4,
    )
    found = values(metrics, first)
    assert found["ironpost_queue_recipients", "held"] == 1
    assert found["ironpost_certificate_days_left", "relay.example.com"] == 12.5
    assert found["ironpost_connections", "mx"] == 2
    assert (found["ironpost_queue_oldest_seconds",], found["ironpost_store_free_bytes",]) == (60, 5000)
    assert found["ironpost_log_lines_dropped",] == 4
    found = values(metrics, Readings(queue={"waiting": 1}))
    assert found["ironpost_queue_recipients", "waiting"] == 1
    assert ("ironpost_queue_recipients", "held") not in found
    assert ("ironpost_certificate_days_left", "relay.example.com") not in found


def test_gauges_that_cannot_be_read_are_not_shown_as_zero() -> None:
    metrics = Metrics()
    values(metrics, Readings(queue={"waiting": 1}))
    text = metrics.render(None).decode()
    assert "ironpost_readings_ok 0.0" in text
    assert "ironpost_queue_oldest_seconds NaN" in text
    assert 'ironpost_queue_recipients{state="waiting"}' not in text


def test_two_relays_in_one_process_count_apart() -> None:
    one, two = Metrics(), Metrics()
    one(e.SessionOpened("mx", "192.0.2.1"))
    assert values(one)["ironpost_sessions_total", "mx"] == 1
    assert ("ironpost_sessions_total", "mx") not in values(two)
