"""A lab of Weft, seen from outside: its namespaces, its Oracle's /v1 API, its counters.

    peerlab.py --lab NAME METHOD PATH [JSON]     asks the Oracle of a lab as its operator
"""

import ctypes
import http.client
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.parse

CEILING = 30
CLONE_NEWNET = 0x40000000
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """Something of the lab does not do what it should; the message says what."""


def weft_binary():
    for path in (os.environ.get("WEFT_BIN"), f"{ROOT}/target/lab/weft", f"{ROOT}/target/debug/weft"):
        if path and os.path.isfile(path):
            return os.path.realpath(path)
    raise Failed("there is no weft binary: build it, or set WEFT_BIN to its path")


def until(condition, what, ceiling=CEILING, every=0.02):
    """Waits for `condition` to give something true, and gives it."""
    end = time.monotonic() + ceiling
    while True:
        given = condition()
        if given:
            return given
        if time.monotonic() > end:
            raise Failed(f"after {ceiling} s still not: {what}")
        time.sleep(every)


class Inside:
    """Within it this thread is in the network namespace `name`; sockets made there stay there."""

    def __init__(self, name):
        self.path = f"/run/netns/{name}"

    def __enter__(self):
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            self.enter(there)
        finally:
            os.close(there)

    def __exit__(self, *_):
        self.enter(self.home)
        os.close(self.home)

    @staticmethod
    def enter(namespace):
        if LIBC.setns(namespace, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")


class Lab:
    """The lab `name`, or one of its own from `yaml` that goes when it is left."""

    def __init__(self, name=None, yaml=None):
        self.own = name is None
        self.name = name or f"peers{os.getpid()}"
        self.weft_bin = weft_binary()
        self.yaml = yaml
        self.run_dir = f"/run/weft-lab/{self.name}"

    def __enter__(self):
        if self.own:
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                file.write(self.yaml)
                file.flush()
                try:
                    self.command([self.weft_bin, "lab", "up", file.name, "--name", self.name])
                except BaseException:
                    subprocess.run([self.weft_bin, "lab", "down", self.name], capture_output=True, check=False)
                    raise
        with open(f"{self.run_dir}/lab.json", encoding="utf-8") as file:
            self.record = json.load(file)
        return self

    def __exit__(self, *_):
        if self.own:
            self.command([self.weft_bin, "lab", "down", self.name])

    def inside(self, node):
        return Inside(f"{self.name}.{node}")

    def command(self, words, node=None):
        """Runs a program, in a node's network namespace but with this machine's /sys, and gives its output."""
        environment = os.environ | {
            "WEFT_CONTEXT": f"{self.run_dir}/data/oracle/operator.json",
            "WEFT_LAB": self.name,
        }
        if node:
            words = ["nsenter", f"--net=/run/netns/{self.name}.{node}", *words]
            if node != "oracle":
                environment["WEFT_SOCKET"] = f"{self.run_dir}/{node}.sock"
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=60)
        if done.returncode:
            raise Failed(f"{' '.join(words)}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return done.stdout

    def weft(self, *words, node="oracle"):
        return self.command([self.weft_bin, *words], node)

    def json(self, *words, node="oracle"):
        return json.loads(self.weft(*words, "-o", "json", node=node))

    def counters(self, node="oracle"):
        words = [] if node == "oracle" else ["--socket", f"{self.run_dir}/{node}.sock"]
        return {line["counter"]: line["count"] for line in self.json("get", "counters", *words, node=node)}

    def vni(self, vn):
        return next(one["vni"] for one in self.json("get", "vns") if one["name"] == vn)

    def address(self, node, version):
        """The underlay address of a node."""
        found = json.loads(self.command(["ip", "-j", "address", "show", "dev", "eth0"], node))
        for entry in found[0]["addr_info"]:
            ip = ipaddress.ip_address(entry["local"])
            if ip.version == version and not ip.is_link_local:
                return entry["local"]
        return None

    def add_address(self, node, ip):
        prefix = 24 if ipaddress.ip_address(ip).version == 4 else 64
        self.command(["ip", "address", "add", f"{ip}/{prefix}", "dev", "eth0", *(["nodad"] if prefix == 64 else [])], node)

    # ---- /v1 ----

    def api(self, method, path, body=None):
        """A request to the Oracle as its operator; gives status and JSON."""
        with open(f"{self.run_dir}/data/oracle/operator.json", encoding="utf-8") as file:
            context = json.load(file)
        tls = ssl.create_default_context(cadata=context["ca"])
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
            pem.write(context["certificate"] + context["key"])
            pem.flush()
            tls.load_cert_chain(pem.name)
        server = urllib.parse.urlsplit(context["oracles"][0])
        connection = http.client.HTTPSConnection(server.hostname, server.port, context=tls, timeout=CEILING)
        with self.inside("oracle"):
            connection.connect()
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"} if text else {})
        answer = connection.getresponse()
        octets = answer.read()
        connection.close()
        return answer.status, json.loads(octets) if octets else None

    def ask(self, method, path, body=None):
        """`api` that has to succeed."""
        status, answer = self.api(method, path, body)
        if status >= 300:
            raise Failed(f"{method} {path}: {status} {answer}")
        return answer

    # ---- tenants ----

    def plug(self, tenant, host, vn, ips=()):
        """Makes a tenant in a namespace of its own and attaches it; gives what it was granted."""
        namespace = f"{self.name}.{tenant}"
        self.command(["ip", "netns", "add", namespace])
        return self.attach(tenant, host, vn, ips)

    def attach(self, tenant, host, vn, ips=()):
        """Connects a tenant's namespace to `host` and attaches it."""
        namespace = f"{self.name}.{tenant}"
        self.command(["ip", "link", "add", tenant, "type", "veth", "peer", "name", "eth0", "netns", namespace], host)
        # A port of the host, not an interface: it shall send nothing.
        self.command(["ip", "link", "set", tenant, "addrgenmode", "none", "up"], host)
        words = [word for ip in ips for word in ("--ip", ip)]
        given = self.json("tsi", "attach", "--vn", vn, "--name", tenant, "--device", tenant, *words, node=host)
        self.command(["ip", "link", "set", "eth0", "address", given["mac"], "mtu", str(given["mtu"]), "up"], tenant)
        for ip in given["ips"]:
            v6 = ":" in ip
            ip = ip if "/" in ip else f"{ip}/{64 if v6 else 24}"
            self.command(["ip", "address", "add", ip, "dev", "eth0", *(["nodad"] if v6 else [])], tenant)
        return given

    def detach(self, tenant, host, vn):
        self.weft("tsi", "detach", "--vn", vn, "--name", tenant, node=host)
        self.command(["ip", "link", "delete", tenant], host)

    def settle(self, tenant):
        """Waits for the end of the tenant's DAD: until then it has no address to send from."""
        words = ["nsenter", f"--net=/run/netns/{self.name}.{tenant}", "ip", "-6", "addr", "show", "tentative"]

        def over():
            return not subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

        until(over, f"{tenant}'s addresses are usable")

    def ping(self, tenant, target, count=2):
        """How many of `count` echoes came back."""
        self.settle(tenant)
        words = ["nsenter", f"--net=/run/netns/{self.name}.{tenant}", "ping", "-n", "-i", "0.2", "-W", "2"]
        words += ["-c", str(count), str(target).split("/", maxsplit=1)[0]]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        return done.stdout.count(" bytes from ")


class Report:
    """What was looked at, each with a yes or no and what was seen."""

    def __init__(self):
        self.checks, self.gaps = [], []

    def gap(self, name, there, seen):
        """Something known not to work yet; gives whether it is there."""
        if there:
            self.gaps.append({"name": name, "seen": seen})
            print(f"gap  {name}: {seen}", file=sys.stderr)
        return there

    def check(self, name, good, seen=None):
        self.checks.append({"name": name, "ok": bool(good), **({} if seen is None else {"seen": seen})})
        print(f"{'ok  ' if good else 'FAIL'} {name}{'' if good or seen is None else f': {seen}'}", file=sys.stderr)
        return good

    def end(self, **more):
        """Prints everything as JSON on standard output; gives the exit code."""
        failed = [check["name"] for check in self.checks if not check["ok"]]
        json.dump({"ok": not failed, "failed": failed, "gaps": self.gaps, "checks": self.checks, **more}, sys.stdout, indent=1)
        print()
        return int(bool(failed))


if __name__ == "__main__":
    with Lab(sys.argv[2]) as asked:
        print(json.dumps(asked.ask(sys.argv[3], sys.argv[4], json.loads(sys.argv[5]) if len(sys.argv) > 5 else None)))
