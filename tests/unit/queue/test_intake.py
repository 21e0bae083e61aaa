"""From bytes to durable, and every way in which that can end otherwise."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

import relay.queue.intake as module
from relay.mail.envelope import Message
from relay.mail.events import MessageAccepted
from relay.queue.store import CHUNK, BodyMissing, StoreUnavailable
from tests.unit.queue.world import World, evidence, into_chunks, world


async def body_of(queue: World, message: Any) -> bytes:
    return b"".join([chunk async for chunk in queue.store.body(message).chunks()])


async def rows(queue: World, table: str) -> int:
    counted = {
        "chunk": "SELECT count(*) FROM chunk",
        "loose": "SELECT count(*) FROM loose",
        "body_file": "SELECT count(*) FROM body_file",
        "message": "SELECT count(*) FROM message",
    }[table]
    return int(await queue.store.ask(lambda db: db.execute(counted).fetchone()[0]))


@pytest.fixture
async def still(tmp_path: Path) -> Any:
    """A queue that delivers nothing."""
    made = World(tmp_path / "queue.db")
    await made.open()
    yield made
    await made.store.close()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 17])
async def test_bytes_come_back_as_they_came(still: World, size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    message = await still.put(body=data)
    assert message.size == size
    assert await body_of(still, message) == data
    chunks = [chunk async for chunk in still.store.body(message).chunks()]
    assert all(len(chunk) <= CHUNK for chunk in chunks)
    large = size > CHUNK
    assert (await rows(still, "chunk"), await rows(still, "body_file")) == ((0, 1) if large else (min(size, 1), 0))
    assert still.files() == ({message.id[:12]: size} if large else {})


async def test_what_the_client_said_is_kept(still: World) -> None:
    tls = evidence()
    message = await still.put(
        "a@example.com", "b@b.example", header=b"Received: x\r\n", message_id="<x@y>", eight_bit=True, tls=tls
    )
    (loaded,) = await still.store.load([message.id])
    assert loaded.message.envelope == message.envelope
    assert loaded.message.header == b"Received: x\r\n"
    assert (loaded.message.message_id, loaded.message.eight_bit, loaded.message.size) == ("<x@y>", True, message.size)
    accepted = loaded.message.accepted
    assert (accepted.at, accepted.client, accepted.protocol) == (message.accepted.at, message.accepted.client, "ESMTPS")
    assert accepted.tls is not None
    assert (accepted.tls.cipher, accepted.tls.chain[0].sha256) == (tls.cipher, tls.chain[0].sha256)


async def test_a_small_message_is_handed_on_with_its_bytes(still: World) -> None:
    taken: list[Any] = []
    still.intake.accepted = lambda message, body: taken.append((message, body))
    message = await still.put(body=b"small")
    large = await still.put(body=b"x" * (CHUNK + 1))
    assert [each for each, _body in taken] == [message, large]
    assert [chunk async for chunk in taken[0][1].chunks()] == [b"small"]
    assert taken[1][1] is None
    assert still.of(MessageAccepted) == [MessageAccepted(message), MessageAccepted(large)]


async def test_an_aborted_message_leaves_nothing(still: World) -> None:
    incoming = still.intake.begin()
    for _ in range(40):
        incoming.write(b"x" * 100_000)
        if incoming.full:
            await incoming.drain()
    incoming.abort()
    incoming.abort()
    await still.until_files()
    assert (await rows(still, "chunk"), await rows(still, "body_file")) == (0, 0)
    small = still.intake.begin()
    small.write(b"x")
    small.abort()
    assert await rows(still, "message") == 0


async def test_after_a_crash_half_a_message_is_swept_away(tmp_path: Path) -> None:
    made = World(tmp_path / "queue.db")
    await made.start()
    whole = await made.put(body=b"y" * 600_000)
    await made.settle()
    incoming = made.intake.begin()
    incoming.write(b"x" * 1_000_000)
    await incoming.drain()
    await made.until_files(Message(incoming.id, whole.envelope, whole.accepted, 1_000_000))
    after = await made.crash(tmp_path / "after.db")
    await after.open()
    assert after.store.new_id() > incoming.id
    await after.store.tidy()
    assert (after.files(), await rows(after, "body_file"), await rows(after, "loose")) == ({}, 0, 0)
    assert await after.states(whole) == ["delivered"]
    await after.store.close()


async def test_a_client_that_sends_faster_than_the_disk_is_told_to_wait(still: World) -> None:
    incoming = still.intake.begin()
    for _ in range(8):
        incoming.write(b"x" * CHUNK)
    before = incoming.full
    await incoming.drain()
    assert (before, incoming.full) == (True, False)
    incoming.abort()


async def test_all_clients_together_are_told_to_wait(still: World) -> None:
    crowd = [still.intake.begin() for _ in range(130)]
    for each in crowd:
        each.write(b"x" * (2 * CHUNK + 1))
    before = still.intake.is_behind, crowd[0].full
    await asyncio.gather(*(each.drain() for each in crowd))
    assert (before, still.intake.is_behind) == ((True, True), False)
    for each in crowd:
        each.abort()


async def test_many_unfinished_messages_do_not_stay_in_memory(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ALL_PARTS", 100_000)
    pieces = [b"%06d" % number * 1000 for number in range(30)]
    crowd = [still.intake.begin() for _ in range(20)]
    for piece in pieces:
        for each in crowd:
            each.write(piece)
            assert still.intake.parts <= 100_000 + 20 * 22_000
        await crowd[0].drain()
    kept, *others = crowd
    template = await still.put()
    message = await kept.commit(template.envelope, template.accepted)
    assert await body_of(still, message) == b"".join(pieces)
    for each in others:
        each.abort()
    assert still.intake.parts == 0
    await still.until_files()
    assert (await rows(still, "message"), await rows(still, "chunk"), await rows(still, "body_file")) == (2, 2, 0)


async def test_a_message_whose_last_piece_was_written_early_is_whole(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ALL_PARTS", 0)
    data = b"x" * 20_000
    message = await still.put(body=data)
    assert await body_of(still, message) == data
    assert (await rows(still, "chunk"), await rows(still, "body_file"), still.intake.parts) == (1, 0, 0)
    await still.until_files()


async def test_a_client_gone_in_mid_commit_leaves_the_whole_message(queue: World) -> None:
    committing = asyncio.create_task(queue.put())
    await asyncio.sleep(0)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    await queue.settle()
    assert len(queue.of(MessageAccepted)) == 1
    assert len(queue.hops.delivered) == 1


async def test_a_client_gone_while_its_last_chunks_are_written_leaves_nothing(queue: World) -> None:
    committing = asyncio.create_task(queue.put(body=b"x" * 300_000))
    await asyncio.sleep(0)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    await queue.settle()
    await queue.until_files()
    assert not queue.of(MessageAccepted)
    assert (await rows(queue, "chunk"), await rows(queue, "body_file"), await rows(queue, "message")) == (0, 0, 0)


async def test_commit_ends_a_message(still: World) -> None:
    message = await still.put()
    incoming = still.intake.begin()
    envelope, accepted = message.envelope, message.accepted
    await incoming.commit(envelope, accepted)
    incoming.abort()
    with pytest.raises(RuntimeError, match="before"):
        await incoming.commit(envelope, accepted)
    assert await rows(still, "message") == 2


async def test_a_thousand_messages_from_fifty_tasks(queue: World) -> None:
    async def client(number: int) -> list[str]:
        return [(await queue.put(f"u{number}@d{number % 7}.example", body=b"%d" % number * 200)).id for _ in range(20)]

    ids = [each for some in await asyncio.gather(*(client(n) for n in range(50))) for each in some]
    await queue.settle()
    assert len(set(ids)) == 1000
    assert sorted(each for each, _to in queue.hops.delivered) == sorted(ids)


async def test_a_body_that_lost_a_chunk_is_not_sent_in_part(still: World) -> None:
    message = await still.put(body=b"x" * (3 * CHUNK))
    await asyncio.to_thread(into_chunks, still.path)
    await still.store.work(lambda db: db.execute("DELETE FROM chunk WHERE seq = 1") and None)
    chunks = still.store.body(message).chunks()
    assert len(await anext(chunks)) == CHUNK
    with pytest.raises(BodyMissing, match=message.id):
        await anext(chunks)


async def test_the_store_being_closed_is_an_answer(tmp_path: Path) -> None:
    async with world(tmp_path / "queue.db") as made:
        incoming = made.intake.begin()
        message = await made.put()
    with pytest.raises(StoreUnavailable, match="closed"):
        await incoming.commit(message.envelope, message.accepted)
