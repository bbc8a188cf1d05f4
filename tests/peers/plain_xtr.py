"""The two halves of a plain xTR: its control plane, and a VXLAN tunnel end with one tenant system behind it."""

import ipaddress
import secrets
import select
import socket
import struct
import threading

import lisp_decode
import lisp_encode as encode
from peerlab import CEILING, Failed

HOST = "h3"
VXLAN = 4789


class Xtr:
    """One xTR at one RLOC, with one key. Its sockets are in the namespace of `host`."""

    def __init__(self, lab, rloc, *, key, algorithm=2, full=False, key_id=1, xtr_id=None, site_id=0):
        self.rloc, self.key, self.algorithm, self.full, self.key_id = rloc, key, algorithm, full, key_id
        self.xtr_id, self.site_id = xtr_id, site_id
        version = ipaddress.ip_address(rloc).version
        self.oracle = lab.address("oracle", version)
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with lab.inside(HOST):
            # Map-Notifies and SMRs come to 4342; Map-Registers and Map-Requests leave from any port.
            self.control, self.asking, self.registering = (socket.socket(family, socket.SOCK_DGRAM) for _ in "123")
        self.control.bind((rloc, lisp_decode.PORT))
        self.asking.bind((rloc, 0))
        self.registering.bind((rloc, 0))
        self.nonce = 0

    def close(self):
        for one in (self.control, self.asking, self.registering):
            one.close()

    def receive(self, sock, wanted, timeout=CEILING):
        """The next message on `sock`; its type has to be `wanted`."""
        if not select.select([sock], [], [], timeout)[0]:
            raise Failed(f"no {wanted} came within {timeout} s")
        octets, (source, port, *_) = sock.recvfrom(65535)
        message = lisp_decode.decode(octets)
        if (source, port) != (self.oracle, lisp_decode.PORT):
            raise Failed(f"a {message['type']} from {source} {port}, not from the Oracle's {self.oracle} 4342")
        if message.get("smr") and wanted == "map-notify":
            # An SMR may come, and come again, at any time.
            return self.receive(sock, wanted, timeout)
        if message["type"] != wanted:
            raise Failed(f"a {message['type']} where a {wanted} was to come")
        return message, octets

    def waiting(self):
        """Whether anything came that was not taken."""
        return [lisp_decode.attempt(s.recv(65535)) for s in select.select([self.control, self.asking], [], [], 0)[0]]

    def send(self, octets):
        self.registering.sendto(octets, (self.oracle, lisp_decode.PORT))

    def register_message(self, records, **other):
        """A signed Map-Register with the next nonce, unless `other` says otherwise."""
        self.nonce += 1
        given = {
            "nonce": self.nonce,
            "key_id": self.key_id,
            "algorithm": self.algorithm,
            "full": self.full,
            "xtr_id": self.xtr_id,
            "site_id": self.site_id,
        } | other
        key = given.pop("key", self.key)
        return encode.sign(encode.map_register(given.pop("nonce"), records, **given), key)

    def notified(self, register):
        """The Map-Notify for a Map-Register: authentic, with its nonce, key and records."""
        message, octets = self.receive(self.control, "map-notify")
        sent = lisp_decode.decode(register)
        for field in ("nonce", "key_id", "algorithm", "records"):
            if message[field] != sent[field]:
                raise Failed(f"Map-Notify: {field} is {message[field]}, sent was {sent[field]}")
        if len(message["mac"]) != len(sent["mac"]):
            raise Failed(f"Map-Notify: a MAC of {len(message['mac']) // 2} octets for {len(sent['mac']) // 2}")
        if not encode.authentic(octets, self.key):
            raise Failed("Map-Notify: the MAC is wrong")
        return message, octets

    def register(self, records, **other):
        message = self.register_message(records, **other)
        self.send(message)
        self.notified(message)
        return message

    def ask_message(self, vni, wanted, source=None, itr_rlocs=None, mask_len=None, **bits):
        """An ECM with a Map-Request, and its nonce."""
        nonce = secrets.randbits(64)
        eid = (encode.eid(vni, wanted), encode.bits(wanted) if mask_len is None else mask_len)
        source = encode.eid(vni, source) if source else None
        request = encode.map_request(nonce, source, itr_rlocs or [self.rloc], eid, **bits)
        return encode.ecm(request, self.rloc, self.asking.getsockname()[1], self.oracle), nonce

    def resolve(self, vni, wanted, source=None, **bits):
        """The records of the Map-Reply about `wanted`."""
        message, nonce = self.ask_message(vni, wanted, source, **bits)
        # Sent from another port: the answer belongs to the inner source port.
        self.send(message)
        reply, _ = self.receive(self.asking, "map-reply")
        if reply["nonce"] != f"{nonce:016x}":
            raise Failed(f"Map-Reply: nonce {reply['nonce']}, asked was {nonce:016x}")
        if reply["probe"] or reply["echo_nonce"] or any(r["authoritative"] for r in reply["records"]):
            raise Failed(f"Map-Reply: a proxy's has none of P, E and A: {reply}")
        return reply["records"]


class Tunnel(threading.Thread):
    """The xTR's other half: answers ARP, ND and echoes inside VXLAN as the tenant system `mac`."""

    def __init__(self, lab, rloc, vni, mac):
        super().__init__(daemon=True)
        family = socket.AF_INET if ":" not in rloc else socket.AF_INET6
        with lab.inside(HOST):
            self.sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            # VXLAN without UDP checksums (RFC 6935): UDP_NO_CHECK6_RX.
            self.sock.setsockopt(socket.IPPROTO_UDP, 102, 1)
        self.sock.bind((rloc, VXLAN))
        self.vni, self.mac = vni, bytes.fromhex(mac.replace(":", ""))
        self.echoes, self.strange, self.peers = 0, [], set()
        self.start()

    def run(self):
        while True:
            packet, peer = self.sock.recvfrom(65535)
            if not packet:
                return
            answer = self.answer(packet)
            if answer:
                self.peers.add(peer[0])
                self.sock.sendto(packet[:8] + answer, (peer[0], VXLAN))
            else:
                self.strange.append(packet.hex())

    def stop(self):
        self.sock.sendto(b"", self.sock.getsockname())
        self.join(CEILING)
        self.sock.close()

    def answer(self, packet):
        """The frame that answers; None for what should not have come."""
        frame = packet[8:]
        right = packet[0] == 8 and int.from_bytes(packet[4:7], "big") == self.vni and packet[7] == 0
        if not right or frame[:6] != self.mac or len(frame) < 42:
            return None
        ethernet = frame[6:12] + self.mac + frame[12:14]
        kind = frame[12:14]
        if kind == b"\x08\x06" and frame[20:22] == b"\0\1":
            arp = frame[14:42]
            return ethernet + arp[:6] + b"\0\2" + self.mac + arp[24:28] + arp[8:18]
        if kind == b"\x08\0" and frame[23] == 1 and frame[34] == 8:
            length = int.from_bytes(frame[16:18], "big")
            icmp = b"\0" + frame[35:36] + b"\0\0" + frame[38 : 14 + length]
            icmp = icmp[:2] + struct.pack("!H", lisp_decode.checksum(icmp)) + icmp[4:]
            self.echoes += 1
            return ethernet + frame[14:26] + frame[30:34] + frame[26:30] + icmp
        if kind == b"\x86\xdd" and frame[20] == 58:
            length = int.from_bytes(frame[18:20], "big")
            source, destination, icmp = frame[22:38], frame[38:54], frame[54 : 54 + length]
            if icmp[0] == 128:
                body = b"\x81\0\0\0" + icmp[4:]
                self.echoes += 1
            elif icmp[0] == 135:
                body = b"\x88\0\0\0\x60\0\0\0" + icmp[8:24] + b"\2\1" + self.mac
            else:
                return None
            pseudo = destination + source + struct.pack("!II", len(body), 58)
            body = body[:2] + struct.pack("!H", lisp_decode.checksum(pseudo + body)) + body[4:]
            header = frame[14:18] + struct.pack("!H", len(body)) + frame[20:22] + destination + source
            return ethernet + header + body
        return None
