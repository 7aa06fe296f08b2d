"""Writes and reads through a proxy from eight threads, with the unmodified client.

    python read_your_writes.py PROXY_URL SECONDS

No read may miss a write that was acknowledged before it began: of a value, of a new
entity, of a link seen from the other side, of a name in a link, of a retirement.
Calls that fail prove nothing and are counted.
"""

import random
import sys
import threading
import time

import shotgun_api3

THREADS = 8


class Board:
    """What was acknowledged, by what it is about."""

    def __init__(self):
        self.lock, self.values, self.failures, self.checks, self.errors = threading.Lock(), {}, 0, {}, []

    def acknowledged(self, key, value):
        with self.lock:
            self.values[key] = value

    def before(self, key):
        with self.lock:
            return self.values.get(key)

    def check(self, what, holds, words):
        with self.lock:
            self.checks[what] = self.checks.get(what, 0) + 1
            if not holds:
                self.errors.append("%s: %s" % (what, words))


class Worker(threading.Thread):
    def __init__(self, url, board, number, project, shots, sequences, until):
        super().__init__()
        self.sg = shotgun_api3.Shotgun(url, script_name="sgcache", api_key="sgcache-sim")
        self.sg.config.rpc_attempt_interval = 100
        self.board, self.number, self.project = board, number, project
        self.shots, self.sequences, self.until = shots, sequences, until
        self.random, self.count = random.Random(number), 0

    def run(self):
        steps = [self.write, self.write, self.read, self.read, self.read, self.query, self.create, self.link, self.rename, self.retire]
        while time.monotonic() < self.until and not self.board.errors:
            step = self.random.choice(steps)
            try:
                step()
            except Exception as error:  # What the site or the way to it did is not the point.
                if isinstance(error, (AttributeError, KeyError, TypeError, NameError)):
                    self.board.errors.append(repr(error))
                with self.board.lock:
                    self.board.failures += 1
                self.sg.close()

    def own(self, of):
        """Only one thread writes to an entity, so its values grow."""
        return of[self.number]

    def write(self):
        shot = self.own(self.shots)
        self.count += 1
        self.sg.update("Shot", shot["id"], {"sg_cut_in": self.count})
        self.board.acknowledged(("cut", shot["id"]), self.count)

    def read(self):
        shot = self.random.choice(self.shots)
        before = self.board.before(("cut", shot["id"])) or 0
        found = self.sg.find_one("Shot", [["id", "is", shot["id"]]], ["sg_cut_in"])
        self.board.check("value", (found["sg_cut_in"] or 0) >= before, "%r, acknowledged %r" % (found, before))

    def query(self):
        shot = self.random.choice(self.shots)
        before = self.board.before(("cut", shot["id"])) or 0
        found = self.sg.find("Shot", [["project", "is", self.project], ["sg_cut_in", "greater_than", before - 1]], ["sg_cut_in"])
        if before:
            self.board.check("query", shot["id"] in [row["id"] for row in found], "%r lacks %r" % (found, shot))

    def create(self):
        self.count += 1
        code = "new %d %d" % (self.number, self.count)
        made = self.sg.create("Shot", {"code": code, "project": self.project})
        found = self.sg.find("Shot", [["code", "is", code]], ["code"])
        # The client sends a call again whose answer was lost, so there may be two.
        self.board.check("create", made["id"] in [row["id"] for row in found], "%r, made %r" % (found, made))
        count = self.sg.summarize("Shot", [["code", "is", code]], [{"field": "id", "type": "count"}])
        self.board.check("count", count["summaries"]["id"] == len(found), "%r, found %r" % (count, found))

    def link(self):
        shot, target = self.own(self.shots), self.random.choice(self.sequences)
        self.sg.update("Shot", shot["id"], {"sg_sequence": target})
        found = self.sg.find("Sequence", [["project", "is", self.project]], ["shots"])
        holders = [row["id"] for row in found if shot["id"] in [one["id"] for one in row["shots"]]]
        self.board.check("link", holders == [target["id"]], "%r, linked to %r" % (found, target))

    def rename(self):
        sequence = self.own(self.sequences)
        self.count += 1
        name = "%d %09d" % (self.number, self.count)
        self.sg.update("Sequence", sequence["id"], {"code": name})
        self.board.acknowledged(("name", sequence["id"]), name)
        found = self.sg.find("Shot", [["sg_sequence", "is", sequence]], ["sg_sequence"])
        shown = {row["sg_sequence"]["name"] for row in found}
        self.board.check("name", all(one >= name for one in shown), "%r, named %r" % (found, name))
        self.sg.find("Shot", [["sg_sequence", "name_is", name]], [])

    def retire(self):
        made = self.sg.create("Shot", {"code": "short", "project": self.project})
        self.sg.delete("Shot", made["id"])
        found = self.sg.find_one("Shot", [["id", "is", made["id"]]])
        self.board.check("retire", found is None, repr(found))


def main(url, seconds):
    sg = shotgun_api3.Shotgun(url, script_name="sgcache", api_key="sgcache-sim")
    project = sg.create("Project", {"name": "read your writes"})
    shots = [sg.create("Shot", {"code": "%d" % number, "project": project}) for number in range(THREADS)]
    sequences = [sg.create("Sequence", {"code": "%d 0" % number, "project": project}) for number in range(THREADS)]
    board, until = Board(), time.monotonic() + seconds
    workers = [Worker(url, board, number, project, shots, sequences, until) for number in range(THREADS)]
    print("ready", flush=True)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("checked %s, %d calls failed" % (sorted(board.checks.items()), board.failures))
    for error in board.errors[:5]:
        print(error)
    return 1 if board.errors or not board.checks else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
