#!/usr/bin/env python3
"""A plain RFC 9301 xTR beside Weft: registers, resolves, is solicited, forwards VXLAN; and is refused.

    sudo tests/peers/xtr.py                 in a lab of its own
    sudo tests/peers/xtr.py --ipv6          the same, the underlay being IPv6
    sudo tests/peers/xtr.py --lab NAME      in a lab that is up, on its host h3, which has no NVE: --print-spec

Prints what it looked at as JSON; exits with 1 when something was not as it should be. WEFT_BIN names the
binary, target/lab/weft when not set.
"""

import argparse
import contextlib
import ipaddress
import secrets
import select
import socket
import sys
import time

import lisp_decode
import lisp_encode as encode
from peerlab import ROOT, Failed, Lab, Report, until
from plain_xtr import HOST, Tunnel, Xtr

MAP_REPLY_TTL = 15


def spec(ipv6=False):
    """The three hosts of the examples, the third without an NVE and tenant."""
    with open(f"{ROOT}/examples/three-hosts.yaml", encoding="utf-8") as file:
        text = file.read()
    text = text.replace("h3: {}", "h3: { nve: false }")
    text = "".join(line for line in text.splitlines(True) if "host: h3" not in line)
    return text.replace("ipv4: 192.0.2.0/24", 'ipv6: "2001:db8::/64"') if ipv6 else text


def eid_of(record):
    return record["eid"].get("iid"), record["eid"].get("address"), record["eid"]["mask_len"]


def usable(record):
    return [one["rloc"]["address"] for one in record["locators"] if one["priority"] != encode.UNUSABLE]


def is_pair(records, vni, ip, mac, rloc):
    """R2 and R1: whose the IP address is, and where that MAC is."""
    if len(records) != 2:
        return False
    second, first = records
    owner = second["locators"]
    return (
        eid_of(second) == (vni, ip, encode.bits(ip))
        and [(one["rloc"]["kind"], one["rloc"]["address"]) for one in owner] == [("mac", mac)]
        and owner[0]["priority"] == encode.UNUSABLE
        and eid_of(first) == (vni, mac, 48)
        and usable(first) == [rloc]
        and all(r["ttl"] == MAP_REPLY_TTL for r in records)
        # Proxy Map-Replies: no Locator is local to the Map-Server (RFC 9301 section 5.4).
        and not any(one["local"] for r in records for one in r["locators"])
    )


def is_negative(records, vni, wanted, ttl):
    return (
        len(records) == 1
        and eid_of(records[0]) == (vni, wanted, encode.bits(wanted))
        and not records[0]["locators"]
        and (records[0]["action"], records[0]["ttl"]) == ("drop/no-reason", ttl)
    )


class Scenario:
    """Everything that is tried, in the lab `lab`."""

    def __init__(self, lab, report):
        self.lab, self.check, self.gap = lab, report.check, report.gap
        self.version = 4 if lab.address(HOST, 4) else 6
        self.rloc = lab.address(HOST, self.version)
        self.vni, self.blue = lab.vni("red"), lab.vni("blue")
        self.tenants = lab.record["tenants"]
        self.rlocs = {host: lab.address(host, self.version) for host in ("h1", "h2")}
        self.spare = iter(range(100, 250))
        self.open = contextlib.ExitStack()

    def tenant(self, name):
        ips = sorted((ip.split("/")[0] for ip in self.tenants[name]["ips"]), key=lambda ip: ":" in ip)
        return self.tenants[name]["mac"], ips

    def another_rloc(self, host_part):
        base = ipaddress.ip_address(self.rloc)
        ip = str(ipaddress.ip_address(int(base) - int(base) % 256 + host_part))
        self.lab.add_address(HOST, ip)
        return ip

    def known(self, name, **more):
        """Makes an xTR known to the Oracle and grants it a tenant system in VN red."""
        algorithms = {1: "hmac-sha1", 2: "hmac-sha256", 3: "hmac-sha256-hkdf"}
        rloc = more.pop("rloc")
        xtr = Xtr(self.lab, rloc, key=secrets.token_hex(12).encode(), **more)
        self.open.callback(xtr.close)
        body = {
            "name": name,
            "rlocs": [rloc],
            "site_id": xtr.site_id,
            "key_id": xtr.key_id,
            "algorithm": algorithms[xtr.algorithm],
            "key": xtr.key.decode(),
        }
        if xtr.xtr_id:
            body["xtr_id"] = xtr.xtr_id.hex()
        self.lab.ask("POST", "/v1/xtrs", body)
        grant = self.lab.ask("POST", "/v1/grants", {"vn": "red", "tsi": f"ts-{name}", "nve": name})["grant"]
        return xtr, grant["mac"], sorted(grant["ips"], key=lambda ip: ":" in ip)

    def mappings(self, ips):
        """Origin and RLOCs of `ips` in the Oracle's table."""
        found = self.lab.json("get", "mappings", "--vn", "red")
        return {
            one["eid"].get("ip") or one["eid"].get("mac"): (one["origin"], one["rlocs"])
            for one in found
            if (one["eid"].get("ip") or one["eid"].get("mac")) in ips
        }

    def drops(self, host):
        """Packets by reason, as the NVE of `host` counts them."""
        socket_of = f"{self.lab.run_dir}/{host}.sock"
        return {one["reason"]: one["packets"] for one in self.lab.json("get", "drops", "--socket", socket_of, node=host)}

    def run(self):
        with self.open:
            xtr, mac, ips = self.known(
                "plain", rloc=self.rloc, xtr_id=secrets.token_bytes(16), site_id=7, key_id=3
            )
            self.registers(xtr, mac, ips)
            self.resolves(xtr, ips)
            self.is_resolved(xtr, mac, ips)
            self.is_solicited(xtr, ips)
            self.is_refused(xtr, mac, ips)
            self.other_algorithms()
            self.withdraws(xtr, mac, ips)

    def registers(self, xtr, mac, ips):
        pair = encode.pair(self.vni, mac, ips, xtr.rloc)
        message = xtr.register(pair)
        self.check("a Map-Register with R1 and R2 is acknowledged by an authentic Map-Notify", True)
        wanted = {eid: ("registration", [xtr.rloc]) for eid in (mac, *ips)}
        seen = self.mappings(wanted)
        self.check("its mappings are in the table", seen == wanted, seen)
        before = self.lab.counters()
        xtr.send(message)
        first = xtr.notified(message)[1]
        after = self.lab.counters()
        while before["frames"] != after["frames"]:
            # An NVE registered meanwhile; its registration is none of this.
            before = self.lab.counters()
            xtr.send(message)
            xtr.notified(message)
            after = self.lab.counters()
        xtr.send(message)
        again = xtr.notified(message)[1]
        self.check("a byte-identical copy is acknowledged again, alike", first == again)
        repeated = after["register_repeated"] - before["register_repeated"]
        applied = after["registrations"] - before["registrations"]
        self.check("a copy is counted and not applied", (repeated, applied) == (1, 0), (repeated, applied))

    def resolves(self, xtr, ips):
        mac, wanted = self.tenant("red-a")
        for ip, source in zip(wanted, ips):
            records = xtr.resolve(self.vni, ip, source)
            good = is_pair(records, self.vni, ip, mac, self.rlocs["h1"])
            self.check(f"{ip} resolves to MAC and RLOC of red-a", good, records)
        records = xtr.resolve(self.vni, mac)
        good = len(records) == 1 and eid_of(records[0]) == (self.vni, mac, 48)
        self.check("the MAC alone resolves to its RLOC", good and usable(records[0]) == [self.rlocs["h1"]], records)
        for ip, ttl, where in (
            ("10.0.0.99", 1, "inside a subnet"),
            ("fd00::99", 1, "inside a subnet"),
            ("02:00:00:00:00:99", 1, "a MAC"),
            ("198.51.100.9", 15, "outside the subnets"),
            ("2001:db8:9::9", 15, "outside the subnets"),
        ):
            records = xtr.resolve(self.vni, ip)
            self.check(f"{ip}, {where}, is Negative", is_negative(records, self.vni, ip, ttl), records)

    def is_resolved(self, xtr, mac, ips):
        """A tenant of an NVE reaches the tenant system behind the plain xTR."""
        tunnel = Tunnel(self.lab, xtr.rloc, self.vni, mac)
        try:
            for ip in ips:
                got = self.lab.ping("red-a", ip)
                dropped = self.drops("h1").get("foreign-rloc", 0)
                what = "NVEs drop what a plain xTR sends as foreign-rloc"
                if got == 2 or not self.gap(what, dropped > 0, f"{got} of 2 echoes, {dropped} drops"):
                    self.check(f"red-a and {ip} behind the xTR exchange packets", got == 2, f"{got} of 2 echoes")
            good = tunnel.echoes >= 2 * len(ips) and tunnel.peers == {self.rlocs["h1"]} and not tunnel.strange
            seen = (tunnel.echoes, sorted(tunnel.peers), tunnel.strange[:3])
            self.check("they came from red-a's NVE in red's VNI, nothing else came", good, seen)
        finally:
            tunnel.stop()
        socket_of = f"{self.lab.run_dir}/h1.sock"
        cache = self.lab.json("get", "mappings", "--socket", socket_of, node="h1")
        self.check("h1 has the xTR's mapping", xtr.rloc in str(cache) and mac in str(cache), cache)

    def solicited(self, xtr, eids):
        """Takes SMRs until one about each of `eids` has come; gives them by EID."""
        came = {}
        while not set(eids) <= set(came):
            smr, _ = xtr.receive(xtr.control, "map-request")
            if not smr["smr"] or smr["probe"] or smr["smr_invoked"]:
                raise Failed(f"no SMR: {smr}")
            came[smr["source_eid"]["address"]] = smr
        return came

    def is_solicited(self, xtr, ips):
        mac, wanted = self.tenant("red-b")
        ip = wanted[0]
        records = xtr.resolve(self.vni, ip, ips[0])
        self.check("red-b resolves", is_pair(records, self.vni, ip, mac, self.rlocs["h2"]), records)
        self.lab.detach("red-b", "h2", "red")
        smr = self.solicited(xtr, [ip])[ip]
        good = (
            smr["source_eid"].get("iid") == self.vni
            and [one["eid"]["address"] for one in smr["records"]] == [ips[0]]
            and [one["address"] for one in smr["itr_rlocs"]] == [xtr.oracle]
        )
        self.check("once red-b is gone an SMR says so, naming the source that asked", good, smr)
        records = xtr.resolve(self.vni, ip, ips[0], smr_invoked=True)
        self.check("the SMR-invoked Map-Request gets a Negative answer", is_negative(records, self.vni, ip, 1), records)
        given = self.lab.attach("red-b", "h1", "red", wanted)
        self.solicited(xtr, [ip])
        records = xtr.resolve(self.vni, ip, ips[0], smr_invoked=True)
        good = is_pair(records, self.vni, ip, given["mac"], self.rlocs["h1"])
        self.check("attached to h1, red-b is announced by an SMR and found there", good, records)
        # SMRs about MACs that were not asked for again are repeated 3 times at most.
        xtr.resolve(self.vni, mac)
        xtr.resolve(self.vni, given["mac"])
        quiet = time.monotonic()
        sent = self.lab.counters()["smrs"]

        def ended():
            nonlocal quiet, sent
            now = self.lab.counters()["smrs"]
            if now != sent:
                quiet, sent = time.monotonic(), now
            return time.monotonic() - quiet > 4

        until(ended, "SMRs end", every=0.5)
        left = xtr.waiting()
        while xtr.waiting():
            pass
        good = all(one.get("message", {}).get("smr") for one in left)
        self.check("SMRs end by themselves", good, left)

    def silently(self, xtr, what, counter, octets, sock=None):
        """Sends `octets`: `counter` goes up, and no answer comes."""
        before = self.lab.counters()[counter]
        if sock:
            sock.sendto(octets, (xtr.oracle, lisp_decode.PORT))
        else:
            xtr.send(octets)
        try:
            until(lambda: self.lab.counters()[counter] > before, f"{counter} goes up", 5)
        except Failed:
            counts = {name: count for name, count in self.lab.counters().items() if count}
            self.check(f"{what} is counted as {counter}", False, counts)
            return
        # What was sent before this answer would have come before it.
        ip = f"10.0.0.{next(self.spare)}"
        message, nonce = xtr.ask_message(self.vni, ip)
        xtr.send(message)
        first = xtr.receive(xtr.asking, "map-reply")[0]["nonce"] == f"{nonce:016x}"
        came = xtr.waiting()
        self.check(f"{what} is refused silently and counted as {counter}", first and not came, came)

    def is_refused(self, xtr, mac, ips):
        table = {eid: ("registration", [xtr.rloc]) for eid in (mac, *ips)}
        pair = encode.pair(self.vni, mac, ips, xtr.rloc)
        foreign_mac, foreign_ips = self.tenant("red-a")
        accepted = xtr.register(pair)

        def message(records=None, **other):
            return xtr.register_message(pair if records is None else records, **other)

        tampered = bytearray(message())
        tampered[-40] ^= 1
        old_tail = message(xtr_id=secrets.token_bytes(16))
        foreign_rloc = encode.pair(self.vni, mac, ips, self.rlocs["h1"])
        host_zero = "10.0.0.0"
        for what, counter, octets in (
            ("a lower nonce", "register_replayed", message(nonce=1)),
            ("the nonce used last, other records", "register_replayed", message(pair[:1], nonce=lisp_nonce(accepted))),
            ("a wrong key", "register_bad_auth", message(key=b"another secret")),
            ("a changed octet", "register_bad_auth", bytes(tampered)),
            ("no authentication", "register_bad_auth", message(algorithm=0)),
            ("another algorithm", "register_bad_auth", message(algorithm=3)),
            ("another Key ID", "register_bad_auth", message(key_id=4)),
            ("another Site-ID", "register_bad_auth", message(site_id=8)),
            ("another xTR-ID", "register_bad_auth", old_tail),
            ("a VNID without a grant", "refused_vn_out_of_scope", message(encode.pair(self.blue, mac, ips, xtr.rloc))),
            ("a VNID that is no VN's", "refused_unknown_vn", message(encode.pair(0xABCDE, mac, ips, xtr.rloc))),
            ("a VNID of more than 24 bits", "refused_bad_eid", message(encode.pair(1 << 24, mac, ips, xtr.rloc))),
            ("an RLOC of another", "refused_foreign_rloc", message(foreign_rloc)),
            ("a MAC granted to another", "refused_held_by", message(encode.pair(self.vni, foreign_mac, [], xtr.rloc))),
            (
                "an IP address granted to another",
                "refused_held_by",
                message(encode.pair(self.vni, mac, foreign_ips[:1], xtr.rloc)),
            ),
            ("an address granted to nobody", "refused_not_granted", message(encode.pair(self.vni, mac, ["10.0.0.98"], xtr.rloc))),
            (
                "an IP address bound to another MAC",
                "refused_wrong_mac",
                message([pair[0], encode.record(self.vni, ips[0], [(foreign_mac, 255)])]),
            ),
            (
                "a whole subnet",
                "refused_bad_eid",
                message([pair[0], encode.record(self.vni, host_zero, [(xtr.rloc, 1)], mask_len=24)]),
            ),
            ("no record", "refused_records", message([])),
            ("a record without locators", "refused_locators", message([encode.record(self.vni, mac, [])])),
            ("a truncated Map-Register", "malformed", message()[:-9]),
            ("a Map-Register with an octet left over", "malformed", message() + b"\0"),
            ("a Map-Request about another VN", "requests_foreign_vn", xtr.ask_message(self.blue, "10.0.0.1")[0]),
            (
                "a Map-Request for an answer to another",
                "requests_foreign_itr_rloc",
                xtr.ask_message(self.vni, "10.0.0.1", itr_rlocs=[self.rlocs["h1"]])[0],
            ),
            ("an RLOC probe", "unsupported", probe(xtr, self.vni)),
            ("a Map-Request without an ECM", "unsupported", xtr.ask_message(self.vni, "10.0.0.1")[0][28 if self.version == 4 else 48 :][4:]),
        ):
            self.silently(xtr, what, counter, octets)
        self.strangers(xtr, pair)
        seen = self.mappings(table)
        self.check("nothing of it changed the table", seen == table, seen)
        xtr.register(pair)
        self.check("the next good Map-Register is accepted", True)

    def strangers(self, xtr, pair):
        """From an address that is no node's: without an xTR-ID there is no key, and no answer to questions."""
        stranger = self.another_rloc(77)
        with self.lab.inside(HOST):
            sock = socket.socket(xtr.control.family, socket.SOCK_DGRAM)
        with sock:
            sock.bind((stranger, 0))
            bare = xtr.register_message(pair, xtr_id=None)
            self.silently(xtr, "a stranger's Map-Register", "register_bad_auth", bare, sock)
            asked = xtr.ask_message(self.vni, "10.0.0.1", itr_rlocs=[stranger])[0]
            self.silently(xtr, "a stranger's Map-Request", "requests_from_strangers", asked, sock)
            self.check("the stranger gets nothing", not select.select([sock], [], [], 0)[0])

    def other_algorithms(self):
        for name, host_part, given in (
            ("hkdf", 203, {"algorithm": 3, "xtr_id": secrets.token_bytes(16)}),
            ("nameless", 204, {"algorithm": 2}),
            ("sha1", 205, {"algorithm": 1, "key_id": 255}),
        ):
            xtr, mac, ips = self.known(name, rloc=self.another_rloc(host_part), **given)
            for full in (False, True):
                xtr.full = full
                xtr.register(encode.pair(self.vni, mac, ips, xtr.rloc))
                octets = (encode.FULL if full else encode.TRUNCATED)[xtr.algorithm]
                ids = "with" if xtr.xtr_id else "without"
                self.check(f"algorithm {xtr.algorithm} {ids} xTR-ID, MACs of {octets} octets", True)
            wanted = {eid: ("registration", [xtr.rloc]) for eid in (mac, *ips)}
            seen = self.mappings(wanted)
            self.check(f"the mappings of {name} are in the table", seen == wanted, seen)

    def withdraws(self, xtr, mac, ips):
        before = self.lab.counters()
        xtr.register(encode.pair(self.vni, mac, ips, xtr.rloc, ttl=0))
        seen = self.lab.counters()["withdrawals"] - before["withdrawals"]
        self.check("Record TTL 0 withdraws", seen == 1, seen)
        seen = sorted({origin for origin, _ in self.mappings([mac, *ips]).values()})
        self.check("what is left is the grant", seen == ["grant"], seen)
        self.lab.ask("DELETE", "/v1/xtrs/plain?force=true")
        socket_of = f"{self.lab.run_dir}/h1.sock"

        def forgotten():
            cache = self.lab.json("get", "mappings", "--socket", socket_of, node="h1")
            return mac not in str(cache)

        until(forgotten, "h1 forgets the xTR's tenant system")
        self.check("when the xTR is forgotten, h1 is told", self.lab.ping("red-a", ips[0], 1) == 0)


def lisp_nonce(message):
    return int.from_bytes(message[4:12], "big")


def probe(xtr, vni):
    return xtr.ask_message(vni, "10.0.0.1", probe=True)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", metavar="NAME")
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--print-spec", action="store_true", help="the lab that --lab needs")
    args = parser.parse_args()
    if args.print_spec:
        print(spec(args.ipv6), end="")
        return 0
    report = Report()
    with Lab(args.lab, spec(args.ipv6)) as lab:
        try:
            Scenario(lab, report).run()
        except (Failed, lisp_decode.Malformed) as error:
            report.check("the scenario comes to its end", False, f"{type(error).__name__}: {error}")
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
