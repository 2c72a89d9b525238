"""Kubelet's list of which pod holds which device, read; a kubelet that says nothing is unknown, never none."""

from pathlib import Path

import pytest
from clusters.kubernetes.device_plugin import field

from accounting.pod_resources import HeldDevices, PodResourcesUnavailable, held_devices, read


def devices(resource: bytes, *ids: bytes) -> bytes:
    return field(2, field(1, resource) + b"".join(field(2, each) for each in ids))


def pod(name: bytes, *containers: bytes) -> bytes:
    return field(1, field(1, name) + field(2, b"idf-p") + b"".join(field(3, each) for each in containers))


def test_each_container_and_kind_is_told() -> None:
    slices = devices(b"nvidia.com/mig-1g.10gb", b"MIG-1")
    one_by_one = devices(b"nvidia.com/gpu", b"GPU-0") + devices(b"nvidia.com/gpu", b"GPU-1")
    answer = pod(b"a", field(1, b"job") + one_by_one + slices)
    answer += pod(b"b", field(1, b"job")) + pod(b"c" * 300, field(1, b"x") + devices(b"nvidia.com/gpu", b"GPU-2"))
    assert read(answer) == [
        HeldDevices("idf-p", "a", "job", "nvidia.com/gpu", ("GPU-0", "GPU-1")),
        HeldDevices("idf-p", "a", "job", "nvidia.com/mig-1g.10gb", ("MIG-1",)),
        HeldDevices("idf-p", "c" * 300, "x", "nvidia.com/gpu", ("GPU-2",)),
    ]


def test_fields_of_a_later_kubelet_are_passed_over() -> None:
    later = bytes([15 << 3, 0x96, 0x01]) + bytes([14 << 3 | 1]) + bytes(8) + bytes([13 << 3 | 5]) + bytes(4)
    answer = field(1, field(1, b"a") + later + field(3, later + field(1, b"job") + devices(b"g/x", b"1")))
    assert read(answer + later) == [HeldDevices("", "a", "job", "g/x", ("1",))]


def test_nothing_held_is_nothing() -> None:
    assert read(b"") == []


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x0a", b"\x0b", b"\x80" * 12, b"\x09\x00", b"\x0a\x02\x1a\x09"])
def test_what_is_no_such_list_is_unknown(data: bytes) -> None:
    with pytest.raises(PodResourcesUnavailable):
        read(data)


def test_a_kubelet_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(PodResourcesUnavailable, match="does not answer"):
        held_devices(tmp_path / "kubelet.sock")
