"""Encodes what a plain RFC 9301 xTR sends. Written from the RFCs like lisp_decode.py."""

import hashlib
import hmac
import ipaddress
import struct

from lisp_decode import AFI_LCAF, AFI_MAC, checksum

SALTS = {3: b"Map-Register Authentication", 4: b"Map-Notify Authentication", 5: b"Map-Notify-Ack Authentication"}
TRUNCATED = {0: 0, 1: 12, 2: 16, 3: 16}
FULL = {0: 0, 1: 20, 2: 32, 3: 32}
UNUSABLE = 255


def address(text):
    """An AFI and an address: an IPv4, IPv6 or MAC address, or None."""
    if text is None:
        return b"\0\0"
    if len(text) == 17 and text.count(":") == 5 and "::" not in text:
        return struct.pack("!H", AFI_MAC) + bytes.fromhex(text.replace(":", ""))
    ip = ipaddress.ip_address(text)
    return struct.pack("!H", 1 if ip.version == 4 else 2) + ip.packed


def eid(vni, text):
    """An address in an instance (RFC 8060 section 4.1)."""
    body = struct.pack("!I", vni) + address(text)
    return struct.pack("!HBBBBH", AFI_LCAF, 0, 0, 2, 0, len(body)) + body


def bits(text):
    afi = address(text)[:2]
    return {b"\0\1": 32, b"\0\2": 128}.get(afi, 48)


def record(vni, text, locators, ttl=1440, mask_len=None):
    """An EID-Record; `locators` are (address, priority)."""
    out = struct.pack("!IBBBBH", ttl, len(locators), bits(text) if mask_len is None else mask_len, 0, 0, 0)
    out += eid(vni, text)
    for rloc, priority in locators:
        out += struct.pack("!BBBBH", priority, 100, 255, 0, 0b101) + address(rloc)
    return out


def pair(vni, mac, ips, rloc, ttl=1440):
    """What is registered for a tenant system: its MAC behind `rloc`, each of its IPs bound to its MAC."""
    return [record(vni, mac, [(rloc, 1)], ttl)] + [record(vni, ip, [(mac, UNUSABLE)], ttl) for ip in ips]


def map_request(nonce, source_eid, itr_rlocs, wanted, smr_invoked=False, probe=False):
    """`source_eid` and `wanted` are octets of `eid` and (octets, mask length)."""
    word = 1 << 28 | probe << 25 | smr_invoked << 22 | (len(itr_rlocs) - 1) << 8 | 1
    out = struct.pack("!IQ", word, nonce) + (source_eid or b"\0\0")
    out += b"".join(address(rloc) for rloc in itr_rlocs)
    return out + struct.pack("!BB", 0, wanted[1]) + wanted[0]


def ecm(message, source, source_port, destination, destination_port=4342):
    """RFC 9301 section 5.8; for a MAC EID the inner addresses are those of ITR and Map-Resolver."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    length = 8 + len(message)
    udp = struct.pack("!HHHH", source_port, destination_port, length, 0) + message
    if source.version == 4:
        pseudo = source.packed + destination.packed + struct.pack("!BBH", 0, 17, length)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0) + source.packed + destination.packed
        header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    else:
        pseudo = source.packed + destination.packed + struct.pack("!II", length, 17)
        header = struct.pack("!IHBB", 6 << 28, length, 17, 64) + source.packed + destination.packed
    check = checksum(pseudo + udp) or 0xFFFF
    return struct.pack("!I", 8 << 28) + header + udp[:6] + struct.pack("!H", check) + udp[8:]


def map_register(nonce, records, key_id=1, algorithm=2, full=False, xtr_id=None, site_id=0, use_ttl=False):
    """A Map-Register with P and M bits whose MAC is still zero: see `sign`."""
    word = 3 << 28 | 1 << 27 | bool(xtr_id) << 25 | use_ttl << 11 | 1 << 8 | len(records)
    length = (FULL if full else TRUNCATED)[algorithm]
    out = struct.pack("!IQBBH", word, nonce, key_id, algorithm, length) + bytes(length) + b"".join(records)
    return out + xtr_id + struct.pack("!Q", site_id) if xtr_id else out


def mac_of(message, key):
    """The MAC of a Map-Register, Map-Notify or Map-Notify-Ack (RFC 9301 section 5.6, steps 1 to 5)."""
    algorithm, length = message[13], int.from_bytes(message[14:16], "big")
    if algorithm == 0:
        return b""
    if algorithm == 3:
        # HKDF (RFC 5869) of nonce and secret; its info is empty, its output one hash.
        extracted = hmac.digest(SALTS[message[0] >> 4], message[4:12] + key, "sha256")
        key = hmac.digest(extracted, b"\1", "sha256")
    body = message[:16] + bytes(length) + message[16 + length :]
    return hmac.new(key, body, hashlib.sha1 if algorithm == 1 else hashlib.sha256).digest()[:length]


def sign(message, key):
    mac = mac_of(message, key)
    return message[:16] + mac + message[16 + len(mac) :]


def authentic(message, key):
    mac = mac_of(message, key)
    return hmac.compare_digest(mac, message[16 : 16 + len(mac)])
