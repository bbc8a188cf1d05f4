#!/usr/bin/python3
"""A plain RFC 9301 and RFC 9437 xTR over UDP, made with scapy (Debian: python3-scapy).

Its messages are scapy packets written from the pictures of RFC 9301 section 5, RFC 9437 section 4 and RFC 8060
section 4.1, its MACs Python's hmac; it shares nothing with Weft, nor with lisp_decode.py and lisp_encode.py.

    pubsub_peer.py --rloc IP --oracle IP --xtr-id HEX --site-id N --key-id N --key TEXT --pubsub-key TEXT

Runs in the network namespace where it is started. Takes commands as lines of JSON and says all that it hears as
lines of JSON, in order. Commands (`do`), with what belongs to them:

    register     records: [{iid, eid, ttl?, locators: [[address, priority], ...]}, ...]
    ask          iid, eid, mask_len?
    subscribe    iid, eid, mask_len?, and to be wrong: nonce?, xtr_id?, site_id?, itr_rlocs?
    unsubscribe  iid, eid, mask_len?
    acknowledge  yes: whether Map-Notifies are acknowledged from now on, which an honest xTR does; said with
                 `acknowledges`, behind what was heard before
    again        how often the last Map-Notify-Ack is sent once more; forged?: with another key
    end

Heard is said with `heard`: map-reply, map-notify, smr, other; a Map-Notify with `of`: register, subscribe,
publication, old (a nonce not above the last one of its EID-Prefix: not taken in), `authentic` and `acked`.
"""

import argparse
import hashlib
import hmac
import ipaddress
import json
import logging
import random
import select
import socket
import struct
import sys

logging.getLogger("scapy").setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.fields import (  # noqa: E402
    BitField,
    ByteField,
    ConditionalField,
    Field,
    FieldLenField,
    FieldListField,
    IntField,
    LongField,
    PacketListField,
    StrFixedLenField,
    StrLenField,
)
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.packet import Packet, Raw  # noqa: E402

PORT = 4342
LCAF, MAC_AFI = 16387, 16389
MAC_BITS = {1: ("sha1", 12), 2: ("sha256", 16)}
ACTIONS = ["no-action", "natively-forward", "send-map-request", "drop", "drop-policy", "drop-auth", "6", "7"]


def bits(text):
    if is_mac(text):
        return 48
    return ipaddress.ip_address(text).max_prefixlen


def is_mac(text):
    return len(text) == 17 and text.count(":") == 5 and "::" not in text


class Address(Field):
    """An AFI and an address, in an Instance ID LCAF when it is a pair of Instance ID and address."""

    def __init__(self, name, default=None):
        Field.__init__(self, name, default, "H")

    def addfield(self, pkt, s, val):
        return s + self.octets(val)

    def octets(self, val):
        if val is None:
            return b"\0\0"
        if isinstance(val, (tuple, list)):
            inside = struct.pack("!I", val[0]) + self.octets(val[1])
            return struct.pack("!HBBBBH", LCAF, 0, 0, 2, 0, len(inside)) + inside
        if is_mac(val):
            return struct.pack("!H", MAC_AFI) + bytes.fromhex(val.replace(":", ""))
        ip = ipaddress.ip_address(val)
        return struct.pack("!H", 1 if ip.version == 4 else 2) + ip.packed

    def getfield(self, pkt, s):
        (afi,) = struct.unpack("!H", s[:2])
        if afi == 0:
            return s[2:], None
        if afi == LCAF:
            kind, length, iid = s[4], *struct.unpack("!HI", s[6:12])
            left, inner = self.getfield(pkt, s[12 : 8 + length])
            if kind != 2 or left:
                raise ValueError(f"LCAF of type {kind}, {len(left)} octets left in it")
            return s[8 + length :], (iid, inner)
        size = {1: 4, 2: 16, MAC_AFI: 6}[afi]
        octets = s[2 : 2 + size]
        if len(octets) != size:
            raise ValueError("an address is cut")
        text = octets.hex(":") if afi == MAC_AFI else str(ipaddress.ip_address(octets))
        return s[2 + size :], text

    def i2len(self, pkt, x):
        return len(self.octets(x))


class Part(Packet):
    def extract_padding(self, s):
        return b"", s


class Locator(Part):
    fields_desc = [
        ByteField("priority", 1),
        ByteField("weight", 100),
        ByteField("m_priority", 255),
        ByteField("m_weight", 0),
        BitField("unused", 0, 13),
        BitField("local", 1, 1),
        BitField("probed", 0, 1),
        BitField("reachable", 1, 1),
        Address("rloc"),
    ]


class Record(Part):
    fields_desc = [
        IntField("ttl", 1440),
        FieldLenField("count", None, fmt="B", count_of="locators"),
        ByteField("mask_len", 0),
        BitField("act", 0, 3),
        BitField("authoritative", 0, 1),
        BitField("reserved", 0, 12),
        BitField("rsvd", 0, 4),
        BitField("version", 0, 12),
        Address("eid"),
        PacketListField("locators", [], Locator, count_from=lambda pkt: pkt.count),
    ]


class Wanted(Part):
    fields_desc = [BitField("notify", 0, 1), BitField("reserved", 0, 7), ByteField("mask_len", 0), Address("eid")]


class MapRequest(Packet):
    fields_desc = [
        BitField("type", 1, 4),
        *(BitField(name, 0, 1) for name in ("authoritative", "mapping", "probe", "smr", "pitr", "smr_invoked", "r", "xtr")),
        BitField("reserved", 0, 5),
        BitField("local", 0, 1),
        BitField("dont_reply", 0, 1),
        BitField("irc", 0, 5),
        FieldLenField("count", None, fmt="B", count_of="records"),
        LongField("nonce", 0),
        Address("source"),
        FieldListField("itr_rlocs", [], Address("itr_rloc"), count_from=lambda pkt: pkt.irc + 1),
        PacketListField("records", [], Wanted, count_from=lambda pkt: pkt.count),
        ConditionalField(StrFixedLenField("xtr_id", bytes(16), 16), lambda pkt: pkt.xtr),
        ConditionalField(LongField("site_id", 0), lambda pkt: pkt.xtr),
    ]


class MapReply(Packet):
    fields_desc = [
        BitField("type", 2, 4),
        BitField("flags", 0, 3),
        BitField("reserved", 0, 17),
        FieldLenField("count", None, fmt="B", count_of="records"),
        LongField("nonce", 0),
        PacketListField("records", [], Record, count_from=lambda pkt: pkt.count),
    ]


AUTHENTICATED = [
    LongField("nonce", 0),
    ByteField("key_id", 0),
    ByteField("algorithm", 2),
    FieldLenField("mac_len", None, fmt="H", length_of="mac"),
    StrLenField("mac", bytes(16), length_from=lambda pkt: pkt.mac_len),
    PacketListField("records", [], Record, count_from=lambda pkt: pkt.count),
]


class MapRegister(Packet):
    fields_desc = [
        BitField("type", 3, 4),
        BitField("proxy", 1, 1),
        BitField("security", 0, 1),
        BitField("xtr", 1, 1),
        BitField("reserved", 0, 16),
        BitField("notify", 1, 1),
        FieldLenField("count", None, fmt="B", count_of="records"),
        *AUTHENTICATED,
        StrFixedLenField("xtr_id", bytes(16), 16),
        LongField("site_id", 0),
    ]


class MapNotify(Packet):
    """A Map-Notify, or as type 5 a Map-Notify-Ack."""

    fields_desc = [
        BitField("type", 4, 4),
        BitField("reserved", 0, 20),
        FieldLenField("count", None, fmt="B", count_of="records"),
        *AUTHENTICATED,
    ]


class Ecm(Packet):
    fields_desc = [BitField("type", 8, 4), BitField("security", 0, 1), BitField("ddt", 0, 1), BitField("reserved", 0, 26)]


def mac_of(octets, key):
    """The MAC of a message whose Authentication Data begin at octet 16 (RFC 9301 section 5.6)."""
    algorithm, length = octets[13], int.from_bytes(octets[14:16], "big")
    name = MAC_BITS[algorithm][0]
    return hmac.new(key, octets[:16] + bytes(length) + octets[16 + length :], getattr(hashlib, name)).digest()[:length]


def signed(packet, key):
    octets = bytes(packet)
    mac = mac_of(octets, key)
    return octets[:16] + mac + octets[16 + len(mac) :]


def spoken(record):
    iid, eid = record.eid
    return {
        "iid": iid,
        "eid": f"{eid}/{record.mask_len}",
        "ttl": record.ttl,
        "act": ACTIONS[record.act],
        "locators": [[one.rloc, one.priority] for one in record.locators],
    }


class Peer:
    def __init__(self, args):
        self.rloc, self.oracle = args.rloc, args.oracle
        self.xtr_id, self.site_id = bytes.fromhex(args.xtr_id), args.site_id
        self.key_id, self.key, self.pubsub_key = args.key_id, args.key.encode(), args.pubsub_key.encode()
        v4 = ipaddress.ip_address(args.rloc).version == 4
        self.ip = IP if v4 else IPv6
        self.sock = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_DGRAM)
        self.sock.bind((args.rloc, PORT))
        self.registered = 0
        # By EID-Prefix the last nonce; what was asked for, by nonce and prefix.
        self.nonces, self.outstanding = {}, set()
        self.acknowledge, self.last_ack = True, None

    def say(self, **what):
        print(json.dumps(what), flush=True)

    def send(self, octets):
        self.sock.sendto(octets, (self.oracle, PORT))

    # ---- what it is told to do ----

    def command(self, line):
        words = json.loads(line)
        what = words.pop("do")
        getattr(self, f"do_{what}")(**words)
        return what != "end"

    def do_end(self):
        pass

    def do_register(self, records):
        self.registered += 1
        made = [
            Record(
                ttl=one.get("ttl", 1440),
                mask_len=bits(one["eid"]),
                authoritative=1,
                eid=(one["iid"], one["eid"]),
                locators=[Locator(rloc=rloc, priority=priority) for rloc, priority in one["locators"]],
            )
            for one in records
        ]
        register = MapRegister(
            nonce=self.registered, key_id=self.key_id, records=made, xtr_id=self.xtr_id, site_id=self.site_id
        )
        self.send(signed(register, self.key))

    def request(self, iid, eid, mask_len=None, nonce=None, notify=1, itr_rlocs=None, xtr_id=None, site_id=None):
        mask_len = bits(eid) if mask_len is None else mask_len
        prefix = (iid, f"{eid}/{mask_len}")
        if nonce is None:
            # RFC 9437 section 5: one more than the last, or a random one.
            nonce = self.nonces[prefix] + 1 if prefix in self.nonces else random.getrandbits(63)
        if notify:
            self.outstanding.add((nonce, prefix))
        itr_rlocs = [self.rloc] if itr_rlocs is None else itr_rlocs
        request = MapRequest(
            nonce=nonce,
            itr_rlocs=itr_rlocs,
            irc=len(itr_rlocs) - 1,
            records=[Wanted(notify=notify, mask_len=mask_len, eid=(iid, eid))],
            xtr=notify,
            xtr_id=bytes.fromhex(xtr_id) if xtr_id else self.xtr_id,
            site_id=self.site_id if site_id is None else site_id,
        )
        inner = self.ip(src=self.rloc, dst=self.oracle) / UDP(sport=PORT, dport=PORT) / Raw(bytes(request))
        self.send(bytes(Ecm() / Raw(bytes(inner))))
        self.say(sent="map-request", eid=prefix[1], nonce=nonce)

    def do_ask(self, iid, eid, mask_len=None):
        self.request(iid, eid, mask_len, notify=0)

    def do_subscribe(self, **words):
        self.request(**words)

    def do_unsubscribe(self, iid, eid, mask_len=None):
        self.request(iid, eid, mask_len, itr_rlocs=[None])

    def do_acknowledge(self, yes):
        self.acknowledge = yes
        self.say(acknowledges=yes)

    def do_again(self, times, forged=False):
        octets = self.last_ack
        if forged:
            octets = signed(MapNotify(octets), b"not the secret")
        for _ in range(times):
            self.send(octets)

    # ---- what it hears ----

    def hear(self, octets, source):
        kind = octets[0] >> 4
        if source[:2] != (self.oracle, PORT):
            return self.say(heard="other", source=source[:2], octets=octets.hex())
        if kind == 2:
            reply = self.whole(MapReply, octets)
            return self.say(heard="map-reply", nonce=reply.nonce, records=[spoken(one) for one in reply.records])
        if kind == 1:
            request = self.whole(MapRequest, octets)
            if request.smr:
                return self.say(heard="smr", iid=request.source[0], eid=request.source[1])
        if kind == 4:
            return self.notified(octets)
        return self.say(heard="other", octets=octets.hex())

    @staticmethod
    def whole(kind, octets):
        packet = kind(octets)
        if packet.payload:
            raise ValueError(f"octets behind a {kind.__name__}: {octets.hex()}")
        return packet

    def notified(self, octets):
        notify = self.whole(MapNotify, octets)
        records = [spoken(one) for one in notify.records]
        prefixes = {(one["iid"], one["eid"]) for one in records}
        mine = hmac.compare_digest(notify.mac, mac_of(octets, self.key))
        published = hmac.compare_digest(notify.mac, mac_of(octets, self.pubsub_key))
        wanted = {prefix for nonce, prefix in self.outstanding if nonce == notify.nonce}
        if mine and notify.nonce == self.registered and not wanted:
            return self.say(heard="map-notify", of="register", authentic=True, nonce=notify.nonce, records=records)
        # A confirmation names what was asked for; what it is about, when only its records do, is that too.
        confirmed = {prefix for prefix in wanted if prefix in prefixes}
        if confirmed:
            of, prefix = "subscribe", next(iter(confirmed))
            if self.nonces.get(prefix, -1) >= notify.nonce:
                of = "old"
        else:
            prefix = self.covering(prefixes)
            of = "publication" if prefix and notify.nonce > self.nonces[prefix] else "old"
        acked = published and self.acknowledge
        if acked:
            # Also one that was taken in before: its Ack may have been lost.
            self.last_ack = signed(
                MapNotify(type=5, nonce=notify.nonce, key_id=notify.key_id, algorithm=notify.algorithm, mac=bytes(len(notify.mac)), records=notify.records),
                self.pubsub_key,
            )
            self.send(self.last_ack)
            if of != "old" and prefix:
                self.nonces[prefix] = notify.nonce
        self.say(
            heard="map-notify",
            of=of,
            authentic=published,
            acked=acked,
            key_id=notify.key_id,
            nonce=notify.nonce,
            octets=len(octets),
            digest=hashlib.sha256(octets).hexdigest()[:16],
            records=records,
        )
        return None

    def covering(self, prefixes):
        """The most specific prefix subscribed to that one of `prefixes` lies in."""

        def holds(outer, inner):
            (iid, text), (other, address) = outer, inner
            if iid != other:
                return False
            net, length = text.rsplit("/", 1)
            address = address.rsplit("/", 1)[0]
            if is_mac(net) or is_mac(address):
                return is_mac(net) and is_mac(address) and (length == "0" or net == address)
            try:
                return ipaddress.ip_address(address) in ipaddress.ip_network(text)
            except TypeError:
                return False

        found = [known for known in self.nonces if any(holds(known, one) for one in prefixes)]
        return max(found, key=lambda known: int(known[1].rsplit("/", 1)[1]), default=None)

    def run(self):
        self.say(ready=True)
        going = True
        while going:
            for one in select.select([self.sock, sys.stdin], [], [])[0]:
                if one is self.sock:
                    octets, source = self.sock.recvfrom(65535)
                    self.hear(octets, source)
                else:
                    line = sys.stdin.readline()
                    going = bool(line) and self.command(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--rloc", "--oracle", "--xtr-id", "--key", "--pubsub-key"):
        parser.add_argument(name, required=True)
    parser.add_argument("--site-id", type=int, default=0)
    parser.add_argument("--key-id", type=int, default=0)
    Peer(parser.parse_args()).run()


if __name__ == "__main__":
    main()
