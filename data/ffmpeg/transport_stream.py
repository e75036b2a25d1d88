"""Mend the joins of MPEG transport streams: recordings and downloads are often segments written one after another."""

import io
import re
from collections import defaultdict
from pathlib import Path
from typing import IO

SYNC = ord("G")  # the first byte of each packet
PACKET_SIZES = (188, 192, 204)  # alone, with a time before it, with error correction
# H.264, HEVC, MPEG-2 and MPEG-4: what comes before a picture that needs no other
PARAMETER_SETS = re.compile(rb"\0\0\x01(?:[\x27\x47\x67]|\x40\x01|[\xb0\xb3])")


def mend_joins(video: Path, target: IO[bytes]) -> bool:
    """Write a copy of a transport stream whose packets are numbered across joins; return False for other formats.

    Packets of each stream are numbered from 0 to 15, and again (ISO 13818-1, 2.4.3.3). ffmpeg takes a number that is
    not the next for a loss. It is none where a picture begins that needs no other: the next segment.
    """
    with video.open("rb") as file:
        head = file.read(6 * max(PACKET_SIZES))
        found = (re.search(b"(?s)(G.{%d}){5}" % (size - 1), head) for size in PACKET_SIZES)
        first = next(filter(None, found), None)
        if first is None:
            return False
        size = len(first[1])
        file.seek(first.start())
        numbers: dict[int, int] = {}  # of the last packet of each stream, as written
        shifts: defaultdict[int, int] = defaultdict(int)  # what is added to those read
        as_read: dict[int, bytes] = {}
        is_cut = False
        while len(packet := bytearray(file.read(size))) >= min(PACKET_SIZES):
            if packet[0] != SYNC:  # the next packet began within the one before if that was cut off
                file.seek(packet.find(SYNC) % size - 2 * size, io.SEEK_CUR)
                is_cut |= file.read(1) == b"G"
                file.seek(size - 1, io.SEEK_CUR)
                continue
            stream = int.from_bytes(packet[1:3]) & 0x1FFF
            if as_read.get(stream) == bytes(packet):  # may be sent twice
                continue
            as_read[stream] = bytes(packet)
            number = packet[3] + shifts[stream] & 15
            has_payload = packet[3] & 0x10 != 0
            expected = numbers.get(stream, number - has_payload) + has_payload & 15
            if number != expected and (not has_payload or (starts_anew(packet) and not is_cut)):
                shifts[stream] += expected - number
                number = expected
            numbers[stream] = number
            packet[3] = packet[3] & 0xF0 | number
            target.write(packet)
        target.flush()
    return True


def starts_anew(packet: bytearray) -> bool:
    """Return whether a packet begins a picture that needs no other, by its random access flag or what it contains."""
    has_flag = packet[3] & 0x20 and packet[4] and packet[5] & 0x40
    return packet[1] & 0x40 != 0 and (has_flag != 0 or PARAMETER_SETS.search(packet) is not None)
