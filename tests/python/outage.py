"""The unmodified client while the site goes away and comes back.

    python outage.py PROXY_URL

Says on stdout what it has seen, and goes on after each line on stdin.
"""

import sys
import time

import shotgun_api3

FIELDS = ["code", "sg_status_list", "sg_sequence", "project"]


def connect(url):
    return shotgun_api3.Shotgun(url, script_name="sgcache", api_key="sgcache-sim")


def read(sg):
    shots = sg.find("Shot", [], FIELDS, order=[{"field_name": "id", "direction": "asc"}])
    return shots, sg.summarize("Shot", [], [{"field": "id", "type": "count"}])


def said(word):
    print(word, flush=True)
    return sys.stdin.readline()


def main(url):
    sg = connect(url)
    before = read(sg)
    assert before[0], "no shots"
    shot = before[0][0]
    said("ready")

    # Nobody can reach the site: old clients go on, new ones can begin, a write says so at once.
    assert read(sg) == before
    assert read(connect(url)) == before
    for one in (sg, connect(url)):
        one.config.max_rpc_attempts, one.config.rpc_attempt_interval = 1, 0
        try:
            one.update("Shot", shot["id"], {"sg_cut_in": 7})
        except (shotgun_api3.ShotgunError, shotgun_api3.ProtocolError) as error:
            print("refused: %r" % error)
        else:
            raise AssertionError("a write was acknowledged while the site was away")
    said("away")

    # It is back: what is written then is read by everybody.
    for value in (8, 9):
        connect(url).update("Shot", shot["id"], {"sg_cut_in": value})
        assert sg.find_one("Shot", [["id", "is", shot["id"]]], ["sg_cut_in"])["sg_cut_in"] == value
    assert read(sg) == before
    said("back")


if __name__ == "__main__":
    main(sys.argv[1])
