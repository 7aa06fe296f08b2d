"""Session tokens and `sudo_as_login` of the unmodified shotgun_api3, through a proxy.

    python test_sessions.py http://127.0.0.1:PROXY http://127.0.0.1:SITE LOGIN PASSWORD

The answers must be those of the site, and must come from the cache in the end.
"""

import sys

import shotgun_api3

PROXY, SITE, LOGIN, PASSWORD = sys.argv[1:]
SCRIPT = {"script_name": "sgcache", "api_key": "sgcache-sim"}
TRIES = 2000


def open_client(url, **credentials):
    """Returns a client that notes what the proxy says of each answer."""
    sg = shotgun_api3.Shotgun(url, **credentials)
    sg.said = []
    request = sg._http_request

    def noted(*args, **kwargs):
        status, headers, body = request(*args, **kwargs)
        sg.said.append(headers.get("x-sgcache", ""))
        return status, headers, body

    sg._http_request = noted
    return sg


def check(name, **credentials):
    """Reads until the cache answers; every answer must be that of the site."""
    question = ("Shot", [["id", "less_than", 50]], ["code", "sg_status_list"])
    expected = shotgun_api3.Shotgun(SITE, **credentials).find(*question)
    assert expected, "the site has no rows"
    sg = open_client(PROXY, **credentials)
    for _ in range(TRIES):
        assert sg.find(*question) == expected, name
        if sg.said[-1].startswith("hit"):
            print("%s: a hit after %d requests" % (name, len(sg.said)))
            return
    raise AssertionError("%s: never from the cache: %s" % (name, sg.said[-1]))


token = shotgun_api3.Shotgun(SITE, login=LOGIN, password=PASSWORD).get_session_token()
check("a session that was opened elsewhere", session_token=token)
person = open_client(PROXY, login=LOGIN, password=PASSWORD)
person.find_one("Shot", [])
check("a session that was opened through the proxy", session_token=person.get_session_token())
check("a script in the name of a person", sudo_as_login=LOGIN, **SCRIPT)
check("a session of the script", session_token=shotgun_api3.Shotgun(SITE, **SCRIPT).get_session_token())
print("OK")
