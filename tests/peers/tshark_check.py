#!/usr/bin/env python3
"""tshark as a referee: every LISP octet of a fabric's life, on UDP and inside TLS, decodes.

    sudo tests/peers/tshark_check.py            in a lab of its own
    sudo tests/peers/tshark_check.py --ipv6     the same, the underlay being IPv6
    sudo tests/peers/tshark_check.py --lab NAME in a lab of bare hosts that is up, see --print-spec

Starts Oracle and NVEs by itself, with TLS key logs; captures the fabric while they come up, tenants are
attached, resolve each other and leave, and a plain xTR registers. What tshark 4.0 cannot decode is named in
the report as `exceptions`; lisp_decode.py decodes the UDP messages a second time. Prints JSON.
"""

import argparse
import json
import os
import secrets
import signal
import subprocess
import sys

import lisp_decode
import lisp_encode as encode
from peerlab import CEILING, ROOT, Failed, Lab, Report, until
from plain_xtr import HOST, Xtr

# Weft's own frame types on the reliable transport, which no other implementation can know.
SIGNALS = {"65281": "hello", "65282": "end of registration", "65283": "VN digest", "65297": "names groups"}
EXCEPTIONS = [
    *(f"reliable transport frame type {number} ({name}) is Weft's own" for number, name in SIGNALS.items()),
    "Map-Notify-Ack (type 5) is not known to tshark 4.0: lisp_decode.py decodes samples of it",
    "the I and N bits of a Map-Request (RFC 9437) are not known to tshark 4.0: lisp_decode.py decodes samples",
]
WARN = 0x600000
LISP = f"(udp.port == {lisp_decode.PORT} || tcp.port == {lisp_decode.PORT})"


def spec(ipv6):
    """Bare hosts: `oracle` is one like the others, so that this script starts the daemons itself."""
    underlay = '{ ipv6: "2001:db8::/64" }' if ipv6 else "{ ipv4: 192.0.2.0/24 }"
    hosts = "h1: {}, h2: {}, h3: { nve: false }, oracle: { nve: false }"
    return f"name: tshark\nunderlay: {underlay}\nhosts: {{ {hosts} }}\n"


class Daemons:
    """What this script started, ended when it is left."""

    def __init__(self, lab):
        self.lab, self.running = lab, []
        self.key_log = f"{lab.run_dir}/tls-keys"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(CEILING)
            except subprocess.TimeoutExpired:
                process.kill()

    def start(self, node, name, *words):
        environment = os.environ | {"WEFT_LAB": self.lab.name}
        with open(f"{self.lab.run_dir}/{name}.log", "ab") as log:
            line = ["nsenter", f"--net=/run/netns/{self.lab.name}.{node}", *words]
            process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self.running.append(process)
        return process

    def log(self, name):
        with open(f"{self.lab.run_dir}/{name}.log", encoding="utf-8", errors="replace") as file:
            return file.read()

    def capture(self, file):
        process = self.start("fabric", "dumpcap", "dumpcap", "-q", "-P", "-i", "br0", "-w", file)
        until(lambda: "File:" in self.log("dumpcap") or process.poll() is not None, "dumpcap captures")
        return process

    def stop(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        process.wait(CEILING)
        self.running.remove(process)

    def oracle(self, address):
        words = [self.lab.weft_bin, "oracle", "--data-dir", f"{self.lab.run_dir}/data/oracle"]
        words += ["--listen", address, "--tls-key-log", self.key_log]
        process = self.start("oracle", "oracle", *words)

        def answers():
            try:
                return self.lab.api("GET", "/v1/version")[0] == 200
            except (OSError, Failed):
                return False

        until(answers, "the Oracle answers")
        return process

    def nve(self, host, token, rloc):
        lab = self.lab
        words = [lab.weft_bin, "nve", "--join", token, "--name", host, "--data-dir", f"{lab.run_dir}/data/{host}"]
        words += ["--socket", f"{lab.run_dir}/{host}.sock", "--uplink", "eth0", "--rloc", rloc]
        words += ["--pin-dir", f"/sys/fs/bpf/weft-lab/{lab.name}/{host}", "--tls-key-log", self.key_log]
        return self.start(host, host, *words)

    def connected(self, count):
        until(lambda: sum(one["connected"] for one in self.lab.ask("GET", "/v1/nves")["items"]) == count, "NVEs are up")


def life(lab, daemons, capture, check):
    """What is captured."""
    version = 4 if lab.address(HOST, 4) else 6
    if not os.path.ismount("/sys/fs/bpf"):
        subprocess.run(["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"], check=True)
    dumpcap = daemons.capture(capture)
    oracle = daemons.oracle(lab.address("oracle", version))
    token = next(word for word in lab.weft("oracle", "token", "--uses", "2").split() if word.startswith("weft1."))
    for host in ("h1", "h2"):
        daemons.nve(host, token, lab.address(host, version))
    daemons.connected(2)
    lab.weft("vn", "create", "red", "--subnet", "10.0.0.0/24", "--subnet", "fd00::/64")
    for tenant, host in (("a", "h1"), ("b", "h2"), ("c", "h1"), ("d", "h2")):
        lab.plug(f"ts-{tenant}", host, "red", [f"10.0.0.{ord(tenant) - 96}", f"fd00::{ord(tenant) - 96}"])
    for source, target in (("a", "10.0.0.2"), ("b", "fd00::1"), ("c", "fd00::4"), ("d", "10.0.0.3")):
        got = lab.ping(f"ts-{source}", target)
        check(f"{source} reaches {target}", got == 2, got)
    lab.ping("ts-a", "10.0.0.99", 1)

    rloc = lab.address(HOST, version)
    xtr = Xtr(lab, rloc, key=secrets.token_hex(12).encode(), xtr_id=secrets.token_bytes(16), site_id=7)
    body = {"name": "plain", "rlocs": [rloc], "site_id": 7, "key_id": 1, "key": xtr.key.decode()}
    lab.ask("POST", "/v1/xtrs", body | {"xtr_id": xtr.xtr_id.hex()})
    grant = lab.ask("POST", "/v1/grants", {"vn": "red", "tsi": "legacy", "nve": "plain"})["grant"]
    vni = lab.vni("red")
    xtr.register(encode.pair(vni, grant["mac"], grant["ips"], rloc))
    xtr.resolve(vni, "10.0.0.2", grant["ips"][0])
    xtr.resolve(vni, "fd00::98")
    lab.ping("ts-a", grant["ips"][0], 1)
    # Withdrawn: h1 hears on its session, the xTR by an SMR.
    lab.detach("ts-b", "h2", "red")
    xtr.receive(xtr.control, "map-request")
    xtr.register(encode.pair(vni, grant["mac"], grant["ips"], rloc, ttl=0))
    xtr.close()
    # Everything is registered again when the Oracle comes back.
    registered = lab.counters()["registrations"]
    check("registrations were counted", registered >= 5, registered)
    daemons.stop(oracle)
    daemons.oracle(lab.address("oracle", version))
    daemons.connected(2)
    until(lambda: lab.counters()["registrations"] >= 3, "a, c and d are registered again")
    got = lab.ping("ts-c", "10.0.0.4")
    check("c reaches d with the Oracle started again", got == 2, got)
    # VN digests are exchanged every 30 s.
    frames = lab.counters()["frames"]
    until(lambda: lab.counters()["frames"] > frames, "an NVE sends a VN digest", 2 * CEILING, 0.5)
    # dumpcap keeps the latest frames to itself: what came before this mark is in the file with it.
    mark = secrets.token_bytes(16)
    oracle_at = lab.address("oracle", version)
    lab.command(["ping", "-n", "-c", "1", "-s", "64", "-p", mark.hex(), oracle_at], "h1")

    def written():
        with open(capture, "rb") as file:
            return mark in file.read()

    until(written, "dumpcap writes what it captured")
    daemons.stop(dumpcap, signal.SIGINT)


def tshark(capture, key_log, wanted, *fields):
    """The frames that `wanted` is true of; of each the values of `fields`, lists of texts."""
    words = ["tshark", "-r", capture, "-o", f"tls.keylog_file:{key_log}", "-Y", wanted]
    words += ["-d", f"tcp.port=={lisp_decode.PORT},tls", "-X", f"lua_script:{ROOT}/tests/peers/lisp_in_tls.lua"]
    words += ["-T", "json", *(word for field in ("frame.number", *fields) for word in ("-e", field))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        raise Failed(f"tshark: {done.stderr[-500:]}")
    layers = [frame["_source"]["layers"] for frame in json.loads(done.stdout or "[]")]
    return [{field: layer.get(field, []) for field in ("frame.number", *fields)} for layer in layers]


def count(frames, field):
    values = {}
    for frame in frames:
        for value in frame[field]:
            values[value] = values.get(value, 0) + 1
    return values


def judge(capture, key_log, check):
    """What tshark and lisp_decode.py say of the capture."""
    names = {"1": "map-request", "2": "map-reply", "3": "map-register", "4": "map-notify", "8": "ecm"}

    def see(wanted, *fields):
        return tshark(capture, key_log, f"{LISP} && ({wanted})", *fields)

    broken = see("_ws.malformed || _ws.short || _ws.unreassembled", "_ws.col.Info")
    check("tshark finds nothing malformed", not broken, broken[:5])
    complaints = see(f"(lisp || lisp-tcp) && _ws.expert.severity >= {WARN}", "_ws.expert.message", "_ws.col.Info")
    check("tshark has no warning and no error", not complaints, complaints[:5])
    undecoded = see("data || lisp.undecoded || lisp-tcp.undecoded || lisp.expected_field", "data.data", "_ws.col.Info")
    check("tshark leaves no octet undecoded", not undecoded, undecoded[:5])

    udp = see("udp", "lisp.type", "frame.protocols", "_ws.col.Info")
    strange = [frame for frame in udp if "lisp" not in str(frame["frame.protocols"])]
    check("every datagram on port 4342 is LISP", udp and not strange, strange[:5])
    by_tshark = count(udp, "lisp.type")
    types = {names.get(number, number): seen for number, seen in by_tshark.items()}
    check("Map-Request, Map-Reply, Map-Register, Map-Notify and ECM were seen", set(types) == set(names.values()), types)

    with open(capture, "rb") as file:
        ours = lisp_decode.decode_capture(file.read())
    errors = [entry for entry in ours if "error" in entry]
    check("lisp_decode.py decodes the same datagrams strictly", ours and not errors, errors[:5])
    inner = {}
    for entry in ours:
        message = entry.get("message", {"type": "error"})
        inner[message["type"]] = inner.get(message["type"], 0) + 1
        if message["type"] == "ecm":
            inner[message["message"]["type"]] = inner.get(message["message"]["type"], 0) + 1
    check("both count the same messages", inner == types, (inner, types))
    asked = [e["message"]["message"] for e in ours if e.get("message", {}).get("type") == "ecm"]
    check("NVEs ask with I=0 and N=0", not any(m["id"] or any(r["notify"] for r in m["records"]) for m in asked))
    same_fields(see, ours, check)

    tcp = see("tcp", "lisp-tcp.message.type")
    frames = count(tcp, "lisp-tcp.message.type")
    wanted = {"17", "18", "21", *SIGNALS}
    check("Registration, ACK, Mapping Notification and Weft's signals were seen", wanted <= set(frames), frames)
    known = {str(number) for number in range(16, 31)} | set(SIGNALS)
    check("no other frame type was seen", set(frames) <= known, frames)
    inside = see("lisp-tcp.message.type == 17", "lisp.mreg.flags.xtrid", "lisp.keyid", "lisp.authlen", "lisp.xtrid")
    good = inside and all(
        set(frame["lisp.mreg.flags.xtrid"]) == {"1"} and set(frame["lisp.authlen"]) == {"0"} and frame["lisp.xtrid"]
        for frame in inside
    )
    check("every Registration holds a Map-Register with an xTR-ID and without a MAC: TLS vouches", good, inside[:3])
    return {"udp": types, "tcp": dict(sorted(frames.items()))}


def same_fields(see, ours, check):
    """tshark and lisp_decode.py read the same nonces, Instance IDs and addresses."""
    by_frame = {entry["frame"]: entry.get("message") for entry in ours}
    addresses = [f"lisp.lcaf.iid.{kind}" for kind in ("ipv4", "ipv6", "mac")]
    wrong = []
    for frame in see("udp", "lisp.nonce", "lisp.lcaf.iid", *addresses):
        message = by_frame.get(int(frame["frame.number"][0]), {})
        found = list(instances(message))
        theirs = (
            {int(value, 16) for value in frame["lisp.nonce"]},
            sorted(int(value) for value in frame["lisp.lcaf.iid"]),
            sorted(value for field in addresses for value in frame[field]),
        )
        nonce = (message.get("message") or message).get("nonce", "0")
        if theirs != ({int(nonce, 16)}, sorted(iid for iid, _ in found), sorted(eid for _, eid in found)):
            wrong.append((theirs, message))
    check("both read the same nonces, Instance IDs and EIDs", not wrong, wrong[:3])


def instances(part):
    """Instance ID and address of every EID anywhere in a decoded message."""
    if isinstance(part, dict):
        if "iid" in part:
            yield part["iid"], part["address"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from instances(one)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", metavar="NAME")
    parser.add_argument("--ipv6", action="store_true")
    parser.add_argument("--print-spec", action="store_true", help="the lab that --lab needs")
    parser.add_argument("--keep", metavar="FILE", help="keep the capture here, the TLS keys in FILE.keys")
    args = parser.parse_args()
    if args.print_spec:
        print(spec(args.ipv6), end="")
        return 0
    report, seen = Report(), {}
    with Lab(args.lab, spec(args.ipv6)) as lab:
        capture = f"{lab.run_dir}/lisp.pcap"
        with Daemons(lab) as daemons:
            try:
                life(lab, daemons, capture, report.check)
                seen = judge(capture, daemons.key_log, report.check)
            except (Failed, OSError, lisp_decode.Malformed) as error:
                report.check("the scenario comes to its end", False, f"{type(error).__name__}: {error}")
                for name in ("oracle", "h1", "dumpcap"):
                    print(name, daemons.log(name)[-600:] if os.path.exists(f"{lab.run_dir}/{name}.log") else "", file=sys.stderr)
            if args.keep:
                for source, kept in ((capture, args.keep), (daemons.key_log, f"{args.keep}.keys")):
                    subprocess.run(["cp", source, kept], check=False)
    return report.end(exceptions=EXCEPTIONS, seen=seen)


if __name__ == "__main__":
    sys.exit(main())
