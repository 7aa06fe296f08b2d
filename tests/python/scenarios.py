"""Queries of a file with the unmodified client: the site against the proxy.

    python scenarios.py SITE_URL PROXY_URL FILE

FILE holds a list of arguments of `find`, as JSON. Prints, for each of them, what both
answered (rows, or the words of a fault) and what the proxy said of its decision.
"""

import json
import sys

import shotgun_api3


class Listening(shotgun_api3.Shotgun):
    """Keeps what the header of the last answer said."""

    def _http_request(self, *arguments):
        answer = super()._http_request(*arguments)
        self.said = answer[1].get("x-sgcache")
        return answer


def ask(sg, case):
    try:
        return sg.find(**case)
    except shotgun_api3.Fault as fault:
        return str(fault)


def main(site_url, proxy_url, path):
    site, proxy = [Listening(url, script_name="sgcache", api_key="sgcache-sim") for url in (site_url, proxy_url)]
    with open(path) as file:
        cases = json.load(file)
    for case in cases:
        answers = {"site": ask(site, case), "proxy": ask(proxy, case), "said": proxy.said}
        print(json.dumps(answers, default=str))


if __name__ == "__main__":
    main(*sys.argv[1:])
