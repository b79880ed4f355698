"""The lossy layer loses, repeats and reorders, by its seed, until it is healed."""

from typing import Any

from tests.support.layers import LossyLayer


async def received(layer: LossyLayer, count: int) -> list[int]:
    """What arrives of `count` messages; the last one ends its run."""
    await layer.group_add("group", "member")
    for number in range(count):
        kind = "complete" if number == count - 1 else "token"
        frame = f'{{"type": "{kind}"}}'
        await layer.group_send("group", {"type": "frame", "number": number, "frame": frame})
    return await drain(layer, "member")


async def drain(layer: LossyLayer, channel: str) -> list[int]:
    numbers = []
    while channel in layer.channels:
        message: dict[str, Any] = await layer.receive(channel)
        numbers.append(message["number"])
    return numbers


async def test_faults_follow_the_seed() -> None:
    arrived = await received(LossyLayer(seed=3, capacity=1000, lose_last=0), 500)
    assert arrived == await received(LossyLayer(seed=3, capacity=1000, lose_last=0), 500)
    assert arrived != await received(LossyLayer(seed=4, capacity=1000, lose_last=0), 500)
    assert len(set(arrived)) < 500, "some were lost"
    assert len(arrived) > len(set(arrived)), "some came twice"
    assert arrived != sorted(arrived), "some were overtaken"


async def test_last_frames_are_lost() -> None:
    layer = LossyLayer(drop=0, duplicate=0, reorder=0, lose_last=1)
    assert await received(layer, 10) == list(range(9))
    assert layer.counts["last_lost"] == 1


async def test_members_suffer_apart() -> None:
    layer = LossyLayer(seed=1, duplicate=0, reorder=0, drop=0.5, lose_last=0)
    await layer.group_add("group", "other")
    assert await received(layer, 50) != await drain(layer, "other")


async def test_healed_layer_is_faithful() -> None:
    layer = LossyLayer(drop=0, duplicate=0, reorder=1, lose_last=0)
    assert await received(layer, 3) == []
    await layer.heal()
    assert await drain(layer, "member") == [0, 1, 2]
    assert await received(layer, 3) == [0, 1, 2]
