#!/usr/bin/env python3
"""Decodes LISP control messages by the letter of RFC 9301, RFC 9437 and RFC 8060.

Written from the texts of the RFCs and sharing nothing with Weft, so that an error of Weft's codec
cannot hide behind the same error here. Stricter than a receiver has to be: an octet left over, a
reserved bit that is set, or a field that contradicts another is an error.

    lisp_decode.py CAPTURE.pcap      every datagram from or to UDP port 4342
    lisp_decode.py --raw FILE...     each file is one message
    lisp_decode.py -                 one message per line of standard input, in hexadecimal

Prints one JSON object; exits with 1 when anything was in error.
"""

import argparse
import ipaddress
import json
import struct
import sys

PORT = 4342
AFI_MAC = 16389
AFI_IEEE_802 = 6
AFI_LCAF = 16387
BITS = {"ipv4": 32, "ipv6": 128, "mac": 48}
MAC_LENGTHS = {0: (0,), 1: (12, 20), 2: (16, 32), 3: (16, 32)}
ACTIONS = (
    "no-action",
    "natively-forward",
    "send-map-request",
    "drop/no-reason",
    "drop/policy-denied",
    "drop/auth-failure",
)


class Malformed(Exception):
    """The octets are not what an RFC says they are."""


def need(condition, what):
    if not condition:
        raise Malformed(what)


class Octets:
    """A cursor that never reads past its end."""

    def __init__(self, octets):
        self.octets, self.at = bytes(octets), 0

    def left(self):
        return len(self.octets) - self.at

    def take(self, count, what):
        need(self.left() >= count, f"{what} needs {count} octets at {self.at}, there are {self.left()}")
        self.at += count
        return self.octets[self.at - count : self.at]

    def number(self, count, what):
        return int.from_bytes(self.take(count, what), "big")

    def rest(self):
        return self.take(self.left(), "the rest")

    def end(self, what):
        need(self.left() == 0, f"{self.left()} octets behind the {what}")


def flag(word, bit):
    """Bit `bit` of the first 32-bit word, counted from the left as in the RFCs' pictures."""
    return bool(word >> (31 - bit) & 1)


def reserved(word, first, last, what):
    bits = word >> (31 - last) & ((1 << (last - first + 1)) - 1)
    need(bits == 0, f"{what}: reserved bits {first} to {last} are {bits:#x}")


def address(octets, inside=()):
    """An AFI and the address behind it."""
    afi = octets.number(2, "AFI")
    if afi == 0:
        return {"kind": "none"}
    if afi == 1:
        return {"kind": "ipv4", "address": str(ipaddress.IPv4Address(octets.take(4, "IPv4 address")))}
    if afi == 2:
        return {"kind": "ipv6", "address": str(ipaddress.IPv6Address(octets.take(16, "IPv6 address")))}
    if afi in (AFI_MAC, AFI_IEEE_802):
        mac = octets.take(6, "MAC address")
        return {"kind": "mac", "afi": afi, "address": ":".join(f"{octet:02x}" for octet in mac)}
    need(afi == AFI_LCAF, f"AFI {afi} is not known here")
    rsvd1, flags, kind, rsvd2, length = struct.unpack("!BBBBH", octets.take(6, "LCAF"))
    need(rsvd1 == 0 and flags == 0, f"LCAF: Rsvd1 {rsvd1:#x}, Flags {flags:#x}")
    body = Octets(octets.take(length, "LCAF body"))
    need(kind not in inside, f"LCAF type {kind} inside itself")
    if kind == 2:
        iid = body.number(4, "Instance ID")
        inner = address(body, (*inside, 2))
        body.end("address in the Instance ID LCAF")
        if inner["kind"] == "none":
            # A range of instances (RFC 8060 section 4.1).
            need(rsvd2 <= 32, f"IID mask-len {rsvd2}")
            need(rsvd2 == 32 or iid & ((1 << (32 - rsvd2)) - 1) == 0, f"IID {iid:#x}/{rsvd2} has low bits")
            return {"kind": "instances", "iid": iid, "iid_mask_len": rsvd2}
        need(rsvd2 == 0, f"IID mask-len {rsvd2} with an address")
        return {**inner, "iid": iid}
    need(rsvd2 == 0, f"LCAF type {kind}: Rsvd2 {rsvd2:#x}")
    if kind == 1:
        members = []
        while body.left():
            members.append(address(body, (*inside, 1)))
        return {"kind": "list", "members": members}
    raise Malformed(f"LCAF type {kind} is not known here")


def prefix(eid, mask_len):
    """An EID with its mask, which has to fit and to leave no bits behind it."""
    bits = BITS.get(eid["kind"])
    if bits is None:
        need(mask_len == 0 or eid["kind"] == "instances", f"mask-len {mask_len} of a {eid['kind']}")
        return {**eid, "mask_len": mask_len}
    need(mask_len <= bits, f"mask-len {mask_len} of a {eid['kind']} address")
    text = eid["address"]
    value = int(text.replace(":", ""), 16) if eid["kind"] == "mac" else int(ipaddress.ip_address(text))
    need(value & ((1 << (bits - mask_len)) - 1) == 0, f"{text}/{mask_len} has bits behind its mask")
    return {**eid, "mask_len": mask_len}


def locator(octets, message):
    priority, weight, m_priority, m_weight, flags = struct.unpack("!BBBBH", octets.take(6, "locator"))
    need(flags >> 3 == 0, f"locator: unused flags {flags >> 3:#x}")
    probed = bool(flags & 2)
    need(not probed or message == "map-reply", f"p-bit of a locator in a {message}")
    rloc = address(octets)
    return {
        "priority": priority,
        "weight": weight,
        "m_priority": m_priority,
        "m_weight": m_weight,
        "local": bool(flags & 4),
        "probed": probed,
        "reachable": bool(flags & 1),
        "rloc": rloc,
    }


def record(octets, message):
    """An EID-Record (RFC 9301 section 5.4)."""
    ttl = octets.number(4, "Record TTL")
    count, mask_len, act, low = struct.unpack("!BBBB", octets.take(4, "record"))
    need(act & 0x0F == 0 and low == 0, f"record: reserved bits {act & 0x0f:#x} {low:#x}")
    action = act >> 5
    need(action < len(ACTIONS), f"ACT {action} is not assigned")
    # Of a subscription also a Map-Notify says why there are no locators (RFC 9437 section 5).
    negative = message in ("map-reply", "map-notify", "map-notify-ack")
    need(action == 0 or negative, f"ACT {action} in a {message}")
    need(action == 0 or count == 0, f"ACT {action} although there are locators")
    version = octets.number(2, "Map-Version Number")
    need(version >> 12 == 0, f"record: Rsvd {version >> 12:#x}")
    eid = prefix(address(octets), mask_len)
    return {
        "ttl": ttl,
        "action": ACTIONS[action],
        "authoritative": bool(act & 0x10),
        "map_version": version,
        "eid": eid,
        "locators": [locator(octets, message) for _ in range(count)],
    }


def xtr(octets):
    return {
        "xtr_id": octets.take(16, "xTR-ID").hex(),
        "site_id": octets.number(8, "Site-ID"),
    }


def map_request(octets, word):
    """RFC 9301 section 5.2, I and N bits of RFC 9437 section 4."""
    reserved(word, 10, 10, "Map-Request")
    reserved(word, 12, 16, "Map-Request")
    names = {"authoritative": 4, "map_data": 5, "probe": 6, "smr": 7, "pitr": 8, "smr_invoked": 9, "id": 11}
    said = {name: flag(word, bit) for name, bit in {**names, "local": 17, "dont_reply": 18}.items()}
    itrs, count = (word >> 8 & 0x1F) + 1, word & 0xFF
    # A receiver has to accept more; a sender must not send them.
    need(count == 1, f"Map-Request with {count} records")
    said["nonce"] = f"{octets.number(8, 'Nonce'):016x}"
    said["source_eid"] = address(octets)
    said["itr_rlocs"] = [address(octets) for _ in range(itrs)]
    kinds = [one["kind"] for one in said["itr_rlocs"]]
    said["records"] = []
    for _ in range(count):
        first = octets.number(1, "record")
        need(first & 0x7F == 0, f"Map-Request record: reserved bits {first & 0x7f:#x}")
        mask_len = octets.number(1, "EID mask-len")
        eid = prefix(address(octets), mask_len)
        said["records"].append({"notify": bool(first & 0x80), "eid": eid})
    if said["map_data"]:
        said["map_reply_record"] = record(octets, "map-request")
    if said["id"]:
        said |= xtr(octets)
    asks_for_notify = any(r["notify"] for r in said["records"])
    need(said["id"] or not asks_for_notify, "N bit without an xTR-ID to notify")
    # Who wants no more notifications names none (RFC 9437 section 5).
    leaves = asks_for_notify and kinds == ["none"]
    need(leaves or all(kind in ("ipv4", "ipv6") for kind in kinds), "an ITR-RLOC that is no IP address")
    return said


def map_reply(octets, word):
    reserved(word, 7, 23, "Map-Reply")
    said = {"probe": flag(word, 4), "echo_nonce": flag(word, 5)}
    need(not flag(word, 6), "Map-Reply with LISP-SEC data, which is not decoded here")
    said["nonce"] = f"{octets.number(8, 'Nonce'):016x}"
    said["records"] = [record(octets, "map-reply") for _ in range(word & 0xFF)]
    need(not said["probe"] or all(r["authoritative"] for r in said["records"]), "a probe reply without A-bit")
    return said


def authentication(octets):
    key_id, algorithm, length = struct.unpack("!BBH", octets.take(4, "Key ID"))
    need(algorithm in MAC_LENGTHS, f"Algorithm ID {algorithm} is not assigned")
    need(length in MAC_LENGTHS[algorithm], f"algorithm {algorithm} makes no MAC of {length} octets")
    return {"key_id": key_id, "algorithm": algorithm, "mac": octets.take(length, "Authentication Data").hex()}


def map_register(octets, word):
    reserved(word, 7, 18, "Map-Register")
    reserved(word, 22, 22, "Map-Register")
    names = {"proxy": 4, "security": 5, "id": 6, "eid_notify": 19, "use_ttl": 20, "merge": 21, "want_notify": 23}
    said = {name: flag(word, bit) for name, bit in names.items()}
    said["nonce"] = f"{octets.number(8, 'Nonce'):016x}"
    said |= authentication(octets)
    said["records"] = [record(octets, "map-register") for _ in range(word & 0xFF)]
    if said["id"]:
        said |= xtr(octets)
    return said


def map_notify(octets, word):
    """Map-Notify and Map-Notify-Ack (RFC 9301 section 5.7): no I bit, so no xTR-ID either."""
    reserved(word, 4, 23, "Map-Notify")
    said = {"nonce": f"{octets.number(8, 'Nonce'):016x}"}
    said |= authentication(octets)
    said["records"] = [record(octets, "map-notify") for _ in range(word & 0xFF)]
    return said


def checksum(octets):
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ecm(octets, word):
    """RFC 9301 section 5.8, inner headers and checksums included."""
    need(not flag(word, 4), "ECM with LISP-SEC data, which is not decoded here")
    reserved(word, 6, 31, "ECM")
    need(octets.left() > 0, "an empty ECM")
    version = octets.octets[octets.at] >> 4
    need(version in (4, 6), f"ECM without an inner IP header: the next octet is {octets.octets[octets.at]:#x}")
    if version == 4:
        header = octets.take(20, "inner IPv4 header")
        first, _, total, _, fragment, _, protocol = struct.unpack("!BBHHHBB", header[:10])
        need(first == 0x45, f"inner IPv4 header begins with {first:#x}")
        need(total == 20 + octets.left(), f"inner IPv4 Total Length {total}, there are {20 + octets.left()}")
        need(fragment & 0x3FFF == 0, "an inner fragment")
        need(checksum(header) == 0, "inner IPv4 header checksum is wrong")
        source, destination = header[12:16], header[16:20]
        pseudo = source + destination + struct.pack("!BBH", 0, 17, octets.left())
    else:
        header = octets.take(40, "inner IPv6 header")
        length, protocol = struct.unpack("!HB", header[4:7])
        need(length == octets.left(), f"inner IPv6 Payload Length {length}, there are {octets.left()}")
        source, destination = header[8:24], header[24:40]
        pseudo = source + destination + struct.pack("!II", octets.left(), 17)
    need(protocol == 17, f"inner protocol {protocol}")
    datagram = octets.octets[octets.at :]
    sport, dport, length, check = struct.unpack("!HHHH", octets.take(8, "inner UDP header"))
    need(length == len(datagram), f"inner UDP Length {length}, there are {len(datagram)}")
    need(check != 0, "inner UDP checksum is absent")
    need(checksum(pseudo + datagram) == 0, "inner UDP checksum is wrong")
    need(4341 not in (sport, dport), "inner port 4341")
    message = decode(octets.rest())
    if message["type"] == "map-request":
        need(dport == PORT, f"inner destination port {dport} of a Map-Request")
        need(not message["probe"], "an RLOC probe in an ECM")
    return {
        "ddt": flag(word, 5),
        "source": str(ipaddress.ip_address(source)),
        "destination": str(ipaddress.ip_address(destination)),
        "source_port": sport,
        "destination_port": dport,
        "message": message,
    }


TYPES = {
    1: ("map-request", map_request),
    2: ("map-reply", map_reply),
    3: ("map-register", map_register),
    4: ("map-notify", map_notify),
    5: ("map-notify-ack", map_notify),
    8: ("ecm", ecm),
}


def decode(message):
    """One message, which has to fill `message`; raises Malformed."""
    octets = Octets(message)
    word = octets.number(4, "first word")
    need(word >> 28 in TYPES, f"message type {word >> 28} is not known here")
    name, body = TYPES[word >> 28]
    said = {"type": name, **body(octets, word)}
    octets.end(name)
    return said


def frames(capture):
    """Link type and octets of each frame of a pcap file."""
    head = Octets(capture)
    magic = head.take(4, "pcap magic")
    orders = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">"}
    need(magic in orders, f"no pcap file: it begins with {magic.hex()}")
    order = orders[magic]
    link = struct.unpack(order + "HHiIII", head.take(20, "pcap header"))[5]
    while head.left():
        _, _, kept, length = struct.unpack(order + "IIII", head.take(16, "frame header"))
        need(kept == length, f"a frame of {length} octets of which {kept} were kept")
        yield link, head.take(kept, "frame")


def datagram(link, frame):
    """Addresses, ports and payload of a UDP datagram; None for any other frame."""
    octets = Octets(frame)
    if link == 1:
        octets.take(12, "MAC addresses")
        ethertype = octets.number(2, "Ethertype")
    else:
        need(link == 101, f"link type {link} is not known here")
        ethertype = {4: 0x0800, 6: 0x86DD}.get(frame[0] >> 4)
    if ethertype == 0x0800:
        start = octets.take(20, "IPv4 header")
        octets.take((start[0] & 15) * 4 - 20, "IPv4 options")
        protocol, source, destination = start[9], start[12:16], start[16:20]
        length = int.from_bytes(start[2:4], "big") - (start[0] & 15) * 4
        if protocol != 17:
            return None
        need(int.from_bytes(start[6:8], "big") & 0x3FFF == 0, "a fragment")
    elif ethertype == 0x86DD:
        start = octets.take(40, "IPv6 header")
        protocol, source, destination = start[6], start[8:24], start[24:40]
        length = int.from_bytes(start[4:6], "big")
        if protocol != 17:
            return None
    else:
        return None
    packet = Octets(octets.take(length, "IP payload"))
    sport, dport, udp_length, _ = struct.unpack("!HHHH", packet.take(8, "UDP header"))
    need(udp_length == length, f"UDP Length {udp_length}, there are {length}")
    return str(ipaddress.ip_address(source)), sport, str(ipaddress.ip_address(destination)), dport, packet.rest()


def decode_capture(capture):
    found = []
    for number, (link, frame) in enumerate(frames(capture), 1):
        parts = datagram(link, frame)
        if parts is None or PORT not in (parts[1], parts[3]):
            continue
        source, sport, destination, dport, payload = parts
        entry = {"frame": number, "source": f"{source} {sport}", "destination": f"{destination} {dport}"}
        found.append(entry | attempt(payload))
    return found


def attempt(message):
    try:
        return {"message": decode(message)}
    except Malformed as error:
        return {"error": str(error), "octets": message.hex()}


def summary(found):
    """How many messages of each type, those in an ECM as `ecm/TYPE`."""
    counts = {}
    for entry in found:
        message = entry.get("message", {"type": "error"})
        name = message["type"]
        if name == "ecm":
            name += "/" + message["message"]["type"]
        counts[name] = counts.get(name, 0) + 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", action="store_true", help="each file is one message")
    parser.add_argument("files", nargs="+", metavar="FILE")
    args = parser.parse_args()
    found = []
    for name in args.files:
        if name == "-":
            found += [attempt(bytes.fromhex(line)) for line in sys.stdin if line.strip()]
            continue
        with open(name, "rb") as file:
            octets = file.read()
        found += [{"file": name} | attempt(octets)] if args.raw else decode_capture(octets)
    json.dump({"counts": summary(found), "messages": found}, sys.stdout, indent=1)
    print()
    return int(any("error" in entry for entry in found))


if __name__ == "__main__":
    sys.exit(main())
