#!/usr/bin/env python3
"""Measures swarmkv and its rivals in one run on this machine and prints a table with ratios.

  run.py [PEER ...] [--n 100000] [--runs 3] [--only local,lat,thru,full] [--json FILE]

Each peer is a pair of small programs, `a` and `b`, built in the folder of its name (see README.md). They run in
a network namespace of their own (`unshare`, so Linux and root), whose only interface is lo: the bytes counted
there are theirs alone, Ethernet, IP and TCP headers and acknowledgements included.
"""
import argparse, json, os, queue, shutil, statistics, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))


def binary(peer):
    for folder in [os.environ.get("RIVALS_TARGET"), f"{HERE}/{peer}/target"]:
        for profile in ["release", "quick"]:
            path = f"{folder}/{profile}/peer-{peer}"
            if folder and os.path.isfile(path):
                return path
    return None


# What a figure means for a peer that keeps less than we do.
PEERS = {
    "swarmkv": "every write and arrival fsynced, signed, proven",
    "iroh-docs": "commits up to 500 ms late",
    "p2panda": "as its store does",
    "chitchat": "memory only, unsigned",
    "redis": "fsync each second, unsigned, one writer",
}
MEMORY_ONLY = {"chitchat"}


def lo():
    for line in open("/proc/self/net/dev"):
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[8])
    return 0


class Node:
    def __init__(self, peer, role, d):
        self.peer, self.dir = peer, d
        self.spawned = time.monotonic_ns()
        command = [binary(peer), role, "mem" if peer in MEMORY_ONLY else d, str(ARGS.size)]
        if peer == "redis":
            command.append("everysec")
        if peer == "chitchat":
            command.append("100")
        self.p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=open(f"{WORK}/{peer}-{role}.err", "a"), text=True, bufsize=1)
        self.q = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.answer(180)

    def _read(self):
        for line in self.p.stdout:
            if line.startswith("{"):
                self.q.put((time.monotonic_ns(), line))
        self.q.put((0, None))

    def answer(self, timeout=600):
        self.answered, line = self.q.get(timeout=timeout)
        if line is None:
            raise RuntimeError(f"{self.peer} ended: see {WORK}")
        said = json.loads(line)
        if "error" in said:
            raise RuntimeError(f"{self.peer}: {said}")
        return said

    def send(self, *words):
        self.p.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.p.stdin.flush()

    def do(self, *words):
        self.send(*words)
        return self.answer()

    def pids(self):
        """This program and what it started (of redis the server is what counts)."""
        mine, out = [self.p.pid], []
        while mine:
            p = mine.pop()
            out.append(p)
            try:
                for t in os.listdir(f"/proc/{p}/task"):
                    mine += [int(x) for x in open(f"/proc/{p}/task/{t}/children").read().split()]
            except FileNotFoundError:
                pass
        return out if len(out) == 1 else out[1:]

    def cpu(self):
        """Seconds of processor time."""
        return sum(time.clock_gettime_ns((~p << 3) | 2) for p in self.pids()) / 1e9

    def memory(self):
        mb = 0
        for p in self.pids():
            mb += sum(int(l.split()[1]) / 1024 for l in open(f"/proc/{p}/status") if l.startswith("VmHWM"))
        return mb

    def disk(self):
        out = subprocess.run(["du", "-sk", self.dir], capture_output=True, text=True).stdout.split()
        return int(out[0]) * 1024 if out else 0

    def quit(self):
        try:
            self.send("quit")
            self.p.wait(60)
        except Exception:
            self.p.kill()
            self.p.wait()


def fresh(peer, name):
    d = f"{WORK}/{peer}-{name}"
    shutil.rmtree(d, ignore_errors=True)
    return d


FIGURES = {}


def note(peer, figure, value):
    FIGURES.setdefault(figure, {}).setdefault(peer, []).append(value)
    print(f"  {peer:10} {figure:44} {value:14,.3f}", flush=True)


def pct(xs, p):
    xs = sorted(xs)
    return xs[round((len(xs) - 1) * p)]


def pair(peer):
    a, b = Node(peer, "a", fresh(peer, "a")), Node(peer, "b", fresh(peer, "b"))
    a.do("put", 20_000_000, 10, "one", 0)
    b.do("connect", a.do("info")["join"])
    time.sleep(ARGS.settle)
    b.do("reset")
    return a, b


def fsyncs():
    """The machine's own limit: 256 bytes appended and fdatasynced."""
    path, times, at = f"{WORK}/bare", [], 0
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for _ in range(2000):
        t = time.perf_counter()
        os.pwrite(fd, b"x" * 256, at)
        os.fdatasync(fd)
        times.append(time.perf_counter() - t)
        at += 256
    os.close(fd)
    os.unlink(path)
    note("machine", "durable writes, 1 client /s", 1 / statistics.mean(times))


def s_local(peer):
    modes = [("one", "1 client", 3000)]
    if peer == "swarmkv":
        modes += [("batch16", "16 clients", 30_000), ("batch256", "256 clients", ARGS.n)]
    else:
        modes += [("batch", "pipelined", ARGS.n if peer in ("redis",) else 10_000)]
    for mode, name, n in modes:
        a = Node(peer, "a", fresh(peer, "a"))
        a.do("put", 10_000_000, 200, mode, 0)
        cpu = a.cpu()
        x = a.do("put", 0, n, mode, 0)
        note(peer, f"durable writes, {name} /s", n / (x["t1"] - x["t0"]) * 1e9)
        note(peer, f"CPU a write, {name} µs", (a.cpu() - cpu) / n * 1e6)
        a.quit()
    a = Node(peer, "a", fresh(peer, "a"))
    n = min(ARGS.n, 100_000 if peer == "swarmkv" else 10_000)
    a.do("put", 0, n, "batch", 0)
    for threads in [1, 2] if peer == "swarmkv" else [1]:
        x = a.do("gets", 0, n, threads)
        assert x["n"] == n, x
        note(peer, f"local gets, {threads} thread /s", n / (x["t1"] - x["t0"]) * 1e9)
    a.quit()


def s_lat(peer):
    for rate in [100, 1000] if peer in ("swarmkv", "redis") else [100]:
        a, b = pair(peer)
        count = 500 if rate == 100 else 3000
        n0, c0 = lo(), (a.cpu(), b.cpu())
        sent, seen = f"{WORK}/{peer}.sent", f"{WORK}/{peer}.seen"
        a.do("paced", 0, count, rate, sent, 0)
        b.do("wait", count, 20, count - 1, 0)
        n1, c1 = lo(), (a.cpu(), b.cpu())
        b.do("dump", seen)
        put = dict(map(int, l.split()) for l in open(sent))
        got = {}
        for l in open(seen):
            i, t = map(int, l.split())
            got.setdefault(i, t)
        xs = [(got[i] - t) / 1e6 for i, t in put.items() if i in got]
        note(peer, f"put → visible at {rate}/s, p50 ms", pct(xs, 0.5))
        note(peer, f"put → visible at {rate}/s, p99 ms", pct(xs, 0.99))
        if rate == 100:
            note(peer, "wire bytes a lone put", (n1 - n0) / count)
            note(peer, "CPU a lone put, both sides ms", (c1[0] - c0[0] + c1[1] - c0[1]) / count * 1e3)
        a.quit()
        b.quit()


def s_thru(peer):
    a, b = pair(peer)
    n = ARGS.n if peer in ("swarmkv", "redis") else 10_000
    n0, c0 = lo(), (a.cpu(), b.cpu())
    a.send("put", 0, n, "batch256" if peer == "swarmkv" else "batch", 0)
    w = b.do("wait", n, 120, n - 1, 0)
    x = a.answer()
    c1 = a.cpu(), b.cpu()
    if w["t"]:
        note(peer, "replicated writes /s", n / (w["t"] - x["t0"]) * 1e9)
        note(peer, "CPU a replicated write under load, both µs", (c1[0] - c0[0] + c1[1] - c0[1]) / n * 1e6)
        note(peer, "wire bytes a write under load", (lo() - n0) / n)
    a.quit()
    b.quit()


def s_full(peer):
    n = ARGS.n if peer in ("swarmkv", "redis") else {"iroh-docs": 20_000, "chitchat": 10_000}.get(peer, 1000)
    a = Node(peer, "a", fresh(peer, "a"))
    a.do("put", 0, n, "batch", 0)
    a.do("flush")
    b = Node(peer, "b", fresh(peer, "b"))
    b.do("reset")
    n0 = lo()
    t0 = b.do("connect", a.do("info")["join"])["t0"]
    w = b.do("wait", n, 120, n - 1, 0)
    if not w["t"]:
        print(f"  {peer:10} catch-up of {n} keys did not finish: {w['count']} arrived", flush=True)
        a.quit(), b.quit()
        return
    note(peer, "catch-up keys/s", n / (w["t"] - t0) * 1e9)
    note(peer, "catch-up wire bytes/key", (lo() - n0) / n)
    time.sleep(8)
    note(peer, f"memory peak a ({n} keys) MB", a.memory())
    note(peer, f"memory peak b ({n} keys) MB", b.memory())
    if peer not in MEMORY_ONLY:
        note(peer, "disk a payload byte, b", b.disk() / n / (24 + ARGS.size))
    n0, c0, t0 = lo(), (a.cpu(), b.cpu()), time.monotonic()
    time.sleep(ARGS.idle)
    dt = time.monotonic() - t0
    note(peer, "idle bytes/s", (lo() - n0) / dt)
    note(peer, "idle CPU %, each", (a.cpu() - c0[0] + b.cpu() - c0[1]) / dt * 50)
    if peer not in MEMORY_ONLY:
        for d in [0, 10, 1000]:
            b.quit()
            step, version = n // max(d, 1), d + 1
            for k in range(d):
                a.do("put", k * step, 1, "one", version)
            a.do("flush")
            b = Node(peer, "b", f"{WORK}/{peer}-b")
            b.do("reset")
            n0 = lo()
            t0 = b.do("connect", a.do("info")["join"])["t0"]
            if d:
                w = b.do("wait", d, 60, (d - 1) * step, version)
                note(peer, f"{d} differences ms", (w["t"] - t0) / 1e6)
            time.sleep(1)
            note(peer, f"{d} differences kB", (lo() - n0) / 1e3)
        b.quit()
        b = Node(peer, "b", f"{WORK}/{peer}-b")
        assert b.do("get", 1, 0)["ok"]
        note(peer, "start to first get ms", (b.answered - b.spawned) / 1e6)
    a.quit()
    b.quit()


def table():
    peers = [p for p in ["machine", *PEERS] if any(p in row for row in FIGURES.values())]
    print("\n| figure | " + " | ".join(peers) + " |\n|---" * 1 + "|---" * len(peers) + "|")
    for figure, row in FIGURES.items():
        cells = []
        for p in peers:
            xs = row.get(p)
            if not xs:
                cells.append("")
                continue
            med = statistics.median(xs)
            text = f"{med:,.0f}" if med >= 100 else f"{med:.3g}"
            cells.append(text + (f" ({min(xs):.3g}–{max(xs):.3g})" if len(xs) > 1 else ""))
        print(f"| {figure} | " + " | ".join(cells) + " |")
    for p in peers:
        if p in PEERS:
            print(f"\n{p}: {PEERS[p]}", end="")
    print()


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("peers", nargs="*", default=list(PEERS), metavar="PEER")
    ap.add_argument("--size", type=int, default=256)
    ap.add_argument("--n", type=int, default=100_000)
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--only", default="local,lat,thru,full")
    ap.add_argument("--settle", type=float, default=3)
    ap.add_argument("--idle", type=float, default=20)
    ap.add_argument("--json")
    ARGS = ap.parse_args()
    if os.environ.get("IN_NETNS") != "1":
        os.environ["IN_NETNS"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable] + sys.argv)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    WORK = tempfile.mkdtemp(prefix="rivals-")
    for run in range(ARGS.runs):
        print(f"run {run + 1} of {ARGS.runs}", flush=True)
        fsyncs()
        for peer in ARGS.peers:
            if not binary(peer):
                print(f"  {peer:10} is not built: see README.md")
                continue
            for scenario in ARGS.only.split(","):
                try:
                    globals()["s_" + scenario](peer)
                except Exception as e:
                    print(f"  {peer:10} {scenario}: {e}", flush=True)
    table()
    if ARGS.json:
        json.dump(FIGURES, open(ARGS.json, "w"), indent=1)
    shutil.rmtree(WORK, ignore_errors=True)
