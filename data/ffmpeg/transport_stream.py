"""Mend the joins of MPEG transport streams: recordings and downloads are often segments written one after another."""

import re
import shutil
from collections import defaultdict
from typing import IO

# at least five: of 188 bytes, with a time before each, or with error correction after it
PACKETS = re.compile(rb"(?s)(?:(G.{187}|G.{191}|G.{203})(?=G)){5}")
# H.264, HEVC, MPEG-2 and MPEG-4: what comes before a picture that needs no other
PARAMETER_SETS = re.compile(rb"\0\0\x01(?:[\x27\x47\x67]|\x40\x01|[\xb0\xb3])")


def mend_joins(video: str, target: IO[bytes]) -> bool:
    """Write a copy of a transport stream whose packets are numbered across joins; return False for other formats.

    Packets of each stream are numbered from 0 to 15, and again (ISO 13818-1, 2.4.3.3). ffmpeg takes a number that is
    not the next for a loss. It is none where a picture begins that needs no other: the next segment.
    """
    numbers: defaultdict[int, int] = defaultdict(int)  # of the next packet of each stream, as written
    shifts: defaultdict[int, int] = defaultdict(int)  # what is added to those read
    previous = bytearray()
    with open(video, "rb") as file:
        first = PACKETS.search(file.read(2048))
        if first is None:
            return False
        file.seek(first.start())
        while len(packet := bytearray(file.read(len(first[1])))) >= 188 and packet.startswith(b"G"):
            if packet == previous or not packet[3] & 0x10:  # sent twice, or without data: not numbered
                continue
            previous = packet[:]
            stream = int.from_bytes(packet[1:3]) & 0x1FFF
            begins_picture = packet[1] & 0x40 and PARAMETER_SETS.search(packet)
            if begins_picture or stream not in numbers:
                shifts[stream] = numbers[stream] - packet[3]
            number = packet[3] + shifts[stream] & 15
            numbers[stream] = number + 1
            packet[3] = packet[3] & 0xF0 | number
            target.write(packet)
        target.write(packet)  # cut off: what follows is not numbered anew, so that ffmpeg stops there
        shutil.copyfileobj(file, target)
        target.flush()
    return True
