#!/usr/bin/env python3
"""Hostile input to a fabric that works: LISP datagrams mutated and made up, rubbish on TCP.

    sudo tests/peers/hostile.py                     in a lab of its own
    sudo tests/peers/hostile.py --lab NAME          in a lab that is up; its host h3 has no NVE
    sudo tests/peers/hostile.py --seed 7 --datagrams 1000000

The same seed mutates in the same way. Datagrams go at full speed to the Oracle's and to h1's port 4342, from
addresses that they know and with messages that are signed correctly after they were mutated. Afterwards the
processes are the same, hold hardly more memory, have counted what came, and tenants that were never seen
before reach each other. Prints JSON.
"""

import argparse
import ipaddress
import os
import random
import secrets
import select
import socket
import ssl
import struct
import sys
import threading

import lisp_encode as encode
from lisp_decode import PORT, checksum
from peerlab import ROOT, Failed, Lab, Report, until
from plain_xtr import HOST, Xtr
from xtr import spec

GROWTH_KIB = 20 * 1024
# What each counter of the Oracle counts is one fate of a datagram.
REFUSED = ("malformed", "unsupported", "register_bad_auth", "requests_foreign_vn", "requests_foreign_itr_rloc")


class Process:
    """A daemon as the kernel sees it."""

    def __init__(self, pid):
        self.pid = pid
        self.started = self.stat()

    def stat(self):
        """When it was started; None when it is gone."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8") as file:
                return file.read().rsplit(")", 1)[1].split()[19]
        except OSError:
            return None

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status", encoding="utf-8") as file:
            return int(next(line for line in file if line.startswith("VmRSS")).split()[1])


def samples():
    """Well-formed messages of every kind, from the seeds of the fuzzer."""
    folder = f"{ROOT}/fuzz/corpus/lisp_udp"
    names = sorted(name for name in os.listdir(folder) if len(name) != 40)
    found = []
    for name in names:
        with open(f"{folder}/{name}", "rb") as file:
            found.append(file.read())
    return found


def mutate(rng, octets, others):
    """One to four of the usual accidents."""
    octets = bytearray(octets)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(octets)) if octets else 0
        kind = rng.randrange(8)
        if kind == 0 and octets:
            octets[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and octets:
            octets[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
        elif kind == 2:
            del octets[at:]
        elif kind == 3:
            del octets[at : at + rng.randint(1, 8)]
        elif kind == 4:
            octets[at:at] = rng.randbytes(rng.randint(1, 16))
        elif kind == 5:
            octets[at:at] = octets[at : at + rng.randint(1, 64)]
        elif kind == 6:
            other = rng.choice(others)
            octets[at:] = other[rng.randrange(len(other)) :]
        elif len(octets) >= at + 4:
            octets[at : at + 4] = struct.pack("!I", rng.choice((0, 1, 0xFFFF, 1 << 24, 0x7FFFFFFF, 0xFFFFFFFF)))
    return bytes(octets[:1400])


class Sources:
    """Datagrams for one target."""

    def __init__(self, seed, vni, xtr, mac, ips):
        self.rng = random.Random(seed)
        self.vni, self.xtr, self.mac, self.ips = vni, xtr, mac, ips
        self.samples, self.nonce = samples(), 0
        register = encode.map_register(1, encode.pair(vni, mac, ips, xtr.rloc), 1, 2, False, xtr.xtr_id, xtr.site_id)
        self.register = register
        # What the Oracle looks at is more worth while than what it has no use for.
        for _ in range(10):
            self.samples += [xtr.ask_message(vni, ips[0], ips[0])[0], xtr.ask_message(vni, mac)[0]]
            self.samples.append(encode.sign(register, xtr.key))

    def next(self):
        rng = self.rng
        kind = rng.randrange(10)
        if kind == 0:
            return rng.randbytes(rng.randrange(300))
        if kind == 1:
            # Behind a right first word, rubbish.
            first = rng.choice((0x10, 0x20, 0x30, 0x38, 0x40, 0x50, 0x60, 0x80, 0x88, 0xF0))
            return bytes((first,)) + rng.randbytes(rng.randrange(3, 200))
        if kind == 2:
            # In an ECM that is whole: what is in it is looked at.
            inner = mutate(rng, rng.choice(self.samples)[:300], self.samples)
            return encode.ecm(inner, self.xtr.rloc, rng.randint(1, 65535), self.xtr.oracle)
        if kind == 3:
            # Signed after it was changed behind its header: it passes authentication.
            body = mutate(rng, self.register[32:], [self.register[32:]])
            self.nonce += 1
            message = self.register[:4] + struct.pack("!Q", self.nonce) + self.register[12:32] + body
            return encode.sign(message, self.xtr.key)
        if kind == 4:
            # A question that is well-formed, about anything.
            ip = str(ipaddress.IPv4Address(rng.getrandbits(32)))
            vni = rng.choice((self.vni, self.vni, rng.getrandbits(24), rng.getrandbits(32)))
            return self.xtr.ask_message(vni, ip, mask_len=rng.choice((32, 32, 24, 33, 255)))[0]
        return mutate(rng, rng.choice(self.samples), self.samples)


def forge(source, sport, destination, payload):
    """An IPv4 packet that claims to come from `source`."""
    source, destination = ipaddress.IPv4Address(source).packed, ipaddress.IPv4Address(destination).packed
    length = 8 + len(payload)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0) + source + destination
    udp = struct.pack("!HHHH", sport, PORT, length, 0)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + udp + payload


class Attack:
    """Both floods."""

    def __init__(self, lab, xtr, grant, seed):
        self.lab, self.xtr = lab, xtr
        ips = sorted(grant["ips"], key=lambda ip: ":" in ip)
        self.sources = Sources(seed, lab.vni("red"), xtr, grant["mac"], ips)
        self.version = xtr_version = ipaddress.ip_address(xtr.rloc).version
        self.nve = lab.address("h1", xtr_version)

    def oracle(self, count):
        """From the plain xTR's address, the one whose messages the Oracle looks at."""
        self.flood(count, lambda octets: self.xtr.registering.sendto(octets, (self.xtr.oracle, PORT)))
        # What came back is not of interest; that it did not fill anything up is.
        while select.select([self.xtr.asking, self.xtr.control], [], [], 0)[0]:
            self.xtr.waiting()

    def of_nve(self, count):
        """To an NVE: half of it from an address it does not know, half forged as its Map-Resolver's."""
        with self.lab.inside(HOST):
            plain = socket.socket(self.xtr.control.family, socket.SOCK_DGRAM)
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) if self.version == 4 else None
        with plain:
            self.flood(count // 2, lambda octets: plain.sendto(octets, (self.nve, PORT)))
        if raw:
            with raw:
                self.flood(
                    count - count // 2,
                    lambda octets: raw.sendto(forge(self.xtr.oracle, PORT, self.nve, octets), (self.nve, 0)),
                )

    def flood(self, count, send):
        batch = 2_000
        for start in range(0, count, batch):
            # Made beforehand, so that they leave at full speed.
            for octets in [self.sources.next() for _ in range(min(batch, count - start))]:
                try:
                    send(octets)
                except OSError:
                    # No room in the sender's own buffer: as good as lost on the way.
                    continue


class Rubbish:
    """Streams on the Oracle's TCP port that are no session."""

    def __init__(self, lab, oracle, seed):
        self.lab, self.oracle, self.rng = lab, oracle, random.Random(seed)

    def connect(self):
        family = socket.AF_INET6 if ":" in self.oracle else socket.AF_INET
        with self.lab.inside(HOST):
            sock = socket.socket(family, socket.SOCK_STREAM)
        sock.settimeout(10)
        sock.connect((self.oracle, PORT))
        return sock

    def streams(self):
        rng = self.rng
        hello = bytes.fromhex("16030100c8010000c40303") + rng.randbytes(32)
        yield from (rng.randbytes(rng.randint(1, 5_000)) for _ in range(60))
        yield from (hello + rng.randbytes(rng.randint(0, 400)) for _ in range(60))
        yield from (b"\x16\x03\x01\xff\xff" + rng.randbytes(70_000), b"\x17\x03\x03\x40\x01" + rng.randbytes(16_385))
        yield from (b"GET / HTTP/1.1\r\nHost: oracle\r\n\r\n", b"\0\x11\0\x0c\0\0\0\1\x9f\xac\xad\xe9" * 100)

    def pour(self):
        """Every stream is closed by the Oracle, or was by us half-way."""
        closed = 0
        for number, octets in enumerate(self.streams()):
            with self.connect() as sock:
                try:
                    sock.sendall(octets)
                    if number % 3 == 0:
                        continue
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(65536):
                        pass
                    closed += 1
                except OSError:
                    closed += 1
        return closed

    def silent(self, count):
        """Connections that say nothing: they must not keep others out, and are closed."""
        socks = [self.connect() for _ in range(count)]
        try:
            return socks, all(select.select([sock], [], [], 20)[0] for sock in socks)
        finally:
            for sock in socks:
                sock.close()

    def without_certificate(self):
        """TLS done right, by nobody: refused."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        try:
            with context.wrap_socket(self.connect()) as tls:
                tls.sendall(self.rng.randbytes(4_000))
                return tls.recv(4096) == b""
        except (ssl.SSLError, ConnectionError):
            return True


def fresh_pair(lab, check, name):
    """Tenants that nobody ever asked for reach each other, both ways and families, at the first attempt."""
    one = lab.plug(f"{name}-x", "h1", "red")
    other = lab.plug(f"{name}-y", "h2", "red")
    for source, target in ((f"{name}-x", other), (f"{name}-y", one)):
        for ip in target["ips"]:
            got = lab.ping(source, ip, 1)
            check(f"{source} reaches {ip}, never asked for before", got == 1, got)


def run(lab, args, report):
    check = report.check
    rloc = lab.address(HOST, 4) or lab.address(HOST, 6)
    xtr = Xtr(lab, rloc, key=secrets.token_hex(12).encode(), xtr_id=secrets.token_bytes(16))
    body = {"name": "victim", "rlocs": [rloc], "key_id": 1, "key": xtr.key.decode(), "xtr_id": xtr.xtr_id.hex()}
    lab.ask("POST", "/v1/xtrs", body)
    grant = lab.ask("POST", "/v1/grants", {"vn": "red", "tsi": "victim", "nve": "victim"})["grant"]
    daemons = {name: Process(lab.record["daemons"][name]["id"]["pid"]) for name in ("oracle", "h1")}
    fresh_pair(lab, check, "before")
    rss = {name: daemon.rss_kib() for name, daemon in daemons.items()}
    before = {name: lab.counters(name) for name in daemons}

    attack = Attack(lab, xtr, grant, args.seed)
    attack.oracle(args.datagrams * 6 // 10)
    attack.of_nve(args.datagrams - args.datagrams * 6 // 10)
    rubbish = Rubbish(lab, xtr.oracle, args.seed)
    holding = threading.Thread(target=lambda: check("silent connections are closed", rubbish.silent(100)[1]))
    holding.start()
    closed = rubbish.pour()
    check("rubbish on TCP is answered by a close", closed >= 80, closed)
    check("TLS without a certificate is refused", rubbish.without_certificate())

    until(lambda: lab.counters()["datagrams"] == lab.counters()["datagrams"], "the Oracle has taken what came")
    counted = {}
    for name in daemons:
        after = lab.counters(name)
        counted[name] = {key: after[key] - before[name][key] for key in after if after[key] != before[name][key]}
    seen = counted["oracle"]
    taken, refused = seen.get("datagrams", 0), sum(seen.get(key, 0) for key in REFUSED)
    check("the Oracle took a fair share of the datagrams", taken >= args.datagrams // 20, seen)
    check("and refused most of them, by reason", refused >= taken // 2 and all(seen.get(k) for k in REFUSED[:3]), seen)
    seen = counted["h1"]
    refused = sum(seen.get(key, 0) for key in ("malformed_datagrams", "foreign_datagrams", "unexpected_datagrams", "unknown_nonces"))
    check("h1 refused a fair share", refused >= args.datagrams // 20, seen)

    holding.join()
    fresh_pair(lab, check, "after")
    # What an NVE answered to questions that were forged in the Oracle's name.
    while xtr.waiting():
        pass
    good = len(xtr.resolve(lab.vni("red"), lab.record["tenants"]["red-a"]["mac"])) == 1
    check("the plain xTR gets answers", good)
    xtr.nonce = 1 << 62
    xtr.register(encode.pair(lab.vni("red"), grant["mac"], grant["ips"], rloc))
    check("and may register", True)
    table = lab.json("get", "mappings", "--vn", "red")
    strange = [one for one in table if one["nve"] not in ("h1", "h2", "victim")]
    check("the table holds nothing that was made up", not strange, strange)
    sizes = {}
    for name, daemon in daemons.items():
        check(f"{name} is the process it was", daemon.stat() == daemon.started)
        sizes[name] = {"before_kib": rss[name], "after_kib": daemon.rss_kib()}
        grown = sizes[name]["after_kib"] - rss[name]
        check(f"{name} has not grown by more than {GROWTH_KIB} KiB", grown <= GROWTH_KIB, sizes[name])
        with open(f"{lab.run_dir}/{name}.log", encoding="utf-8", errors="replace") as file:
            log = file.read()
        check(f"the log of {name} has no panic and is short", "panic" not in log and len(log) < 1 << 20, len(log))
    xtr.close()
    return {"counted": counted, "memory": sizes, "seed": args.seed, "datagrams": args.datagrams}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", metavar="NAME")
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--datagrams", type=int, default=200_000)
    parser.add_argument("--print-spec", action="store_true", help="the lab that --lab needs")
    args = parser.parse_args()
    if args.print_spec:
        print(spec(args.ipv6), end="")
        return 0
    report, seen = Report(), {}
    with Lab(args.lab, spec(args.ipv6)) as lab:
        try:
            seen = run(lab, args, report)
        except (Failed, OSError) as error:
            report.check("the scenario comes to its end", False, f"{type(error).__name__}: {error}")
    return report.end(**seen)


if __name__ == "__main__":
    sys.exit(main())
