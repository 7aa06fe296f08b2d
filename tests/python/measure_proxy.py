"""The time of calls of the unmodified client: fixed bytes, the proxy, the site.

    python measure_proxy.py CANNED_URL PROXY_URL SITE_URL

The canned server first gets the bytes that the proxy answered, so that the client
has the same work with all three.
"""

import functools
import itertools
import statistics
import sys
import time
import urllib.request

import shotgun_api3

FIELDS = ["code", "sg_status_list", "project", "created_at", "updated_at", "sg_sequence", "assets", "tasks", "description", "created_by"]


def post(url, body):
    request = urllib.request.Request(url, data=body, headers={"content-type": "application/json"})
    return urllib.request.urlopen(request).read()


def client(url):
    # The version is part of what the client asks for at the start; the canned server
    # has only one answer.
    sg = shotgun_api3.Shotgun(url, script_name="sgcache", api_key="sgcache-sim", connect=False)
    return sg


class Recorder:
    """Keeps what a call sends and gets."""

    def __init__(self, sg):
        self.sg, self.original, self.body = sg, sg._make_call, None
        sg._make_call = self.call

    def call(self, verb, path, body, headers):
        answer = self.original(verb, path, body, headers)
        self.body = body if isinstance(body, bytes) else body.encode()
        return answer


def times(calls, seconds=12.0):
    """Calls everybody in turn, so that a busy moment of the machine hits all of them."""
    taken, end = {who: [] for who in calls}, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for who, call in calls.items():
            turn = time.perf_counter() + 0.1
            while time.perf_counter() < turn:
                begun = time.perf_counter()
                call()
                taken[who].append((time.perf_counter() - begun) * 1000)
    return {who: sorted(those) for who, those in taken.items()}


def main(canned_url, proxy_url, site_url):
    sgs = {"canned": client(canned_url), "proxy": client(proxy_url), "site": client(site_url)}
    info = b'{"method_name": "info", "params": []}'
    post(canned_url + "/put", post(proxy_url + "/api3/json", info))
    for sg in sgs.values():
        sg.connect()
        sg.server_caps
    ids = [shot["id"] for shot in sgs["site"].find("Shot", [])]
    others = itertools.cycle(ids)
    find_one = lambda sg, id: sg.find_one("Shot", [["id", "is", id]], ["code", "sg_status_list", "project"])
    calls = {
        "find_one": lambda sg: find_one(sg, ids[0]),
        "find_one of others": lambda sg: find_one(sg, next(others)),
        "500 rows x 10 fields": lambda sg: sg.find("Shot", [], FIELDS, limit=500),
    }
    for name, call in calls.items():
        recorder = Recorder(sgs["proxy"])
        for _ in range(20):
            call(sgs["proxy"])
        post(canned_url + "/put", post(proxy_url + "/api3/json", recorder.body))
        seen = times({who: functools.partial(call, sg) for who, sg in sgs.items()})
        floor = statistics.median(seen["canned"])
        for who, taken in seen.items():
            median, p99 = statistics.median(taken), taken[int(len(taken) * 0.99)]
            print("%-22s %-7s median %8.3f ms  p99 %8.3f ms  %6.2f times the floor" % (name, who, median, p99, median / floor))


if __name__ == "__main__":
    main(*sys.argv[1:])
