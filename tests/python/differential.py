"""Random queries with the unmodified client: the site against the proxy.

    python differential.py SITE_URL PROXY_URL COUNT SEED [moving]

Every answer must be the same, order included. While the site is `moving`, a query whose
answers differ is asked again, up to TRIES times, and after a moment when it was not the
site that moved meanwhile: the difference must go away by itself. Prints one line with the number of queries, of rows, of queries that the site refused, and of
those that had to be asked again.
"""

import random
import sys
import time

import shotgun_api3

TEXTS = ["a", "s", "S0", "10", "ip", "%", "_", "é", "comp", "010", "Char", "rev"]
UNITS = ["HOUR", "DAY", "WEEK", "MONTH", "YEAR"]
TYPES = ["Shot", "Asset", "Task", "Version", "Sequence", "Note", "PublishedFile", "Project", "HumanUser"]
TRIES = 60
NEVER = {"password", "summary", "calculated", "pivot_column", "image"}


class Drawer:
    """Draws queries from the schema and from values that the site has."""

    def __init__(self, sg, seed):
        self.random = random.Random(seed)
        self.schema = {ty: sg.schema_field_read(ty) for ty in TYPES}
        self.rows = {ty: sg.find(ty, [], self.names(ty), limit=60) for ty in TYPES}

    def names(self, ty):
        usable = [name for name, field in self.schema[ty].items() if field["data_type"]["value"] not in NEVER]
        return [name for name in usable if "current_user" not in name and not name.startswith("step_")]

    def path(self, ty, depth=2):
        """A path of at most so many hops, and the data type and owner of its end."""
        text, owner = "", ty
        while True:
            name = self.random.choice(self.names(owner))
            field = self.schema[owner][name]
            targets = field.get("properties", {}).get("valid_types", {}).get("value", []) or []
            targets = [target for target in targets if target in self.schema]
            if depth and targets and self.random.random() < 0.4:
                target = self.random.choice(targets)
                text, owner, depth = "%s%s.%s." % (text, name, target), target, depth - 1
                continue
            return text + name, field["data_type"]["value"], owner, name

    def value(self, owner, name, data_type):
        row = self.random.choice(self.rows[owner]) if self.rows[owner] else {}
        value = row.get(name)
        if isinstance(value, list):
            value = self.random.choice(value) if value else None
        if isinstance(value, dict) and data_type not in ("entity", "multi_entity"):
            return None
        return value

    def condition(self, ty):
        path, data_type, owner, name = self.path(ty)
        pick, value = self.random.choice, self.value(owner, name, data_type)
        if data_type == "text":
            relation = pick(["is", "is_not", "contains", "not_contains", "starts_with", "ends_with", "in", "not_in"])
            value = value if isinstance(value, str) and self.random.random() < 0.5 else pick(TEXTS)
            value = value[: self.random.randint(1, 8)] if relation not in ("is", "in") else value
            return [path, relation, [value, pick(TEXTS)] if relation in ("in", "not_in") else value]
        if data_type in ("number", "float", "percent", "duration", "timecode", "currency"):
            relation = pick(["is", "is_not", "less_than", "greater_than", "between", "in"])
            value = value if isinstance(value, (int, float)) else self.random.randint(0, 1200)
            if relation == "between":
                return [path, relation, value, value + 50]
            return [path, relation, [value, value + 1] if relation == "in" else value]
        if data_type in ("list", "status_list"):
            relation = pick(["is", "is_not", "in", "not_in"])
            value = value if isinstance(value, str) else pick(["ip", "fin", None])
            return [path, relation, [value or "ip", "wtg"] if relation in ("in", "not_in") else value]
        if data_type in ("date", "date_time"):
            relation = pick(["is", "less_than", "greater_than", "in_last", "not_in_last", "in_calendar_month"])
            if relation.endswith("in_last"):
                return [path, relation, self.random.randint(1, 40), pick(UNITS)]
            if relation == "in_calendar_month":
                return [path, relation, self.random.randint(-3, 1)]
            return [path, relation, value if value else "2024-03-01"]
        if data_type == "checkbox":
            return [path, pick(["is", "is_not"]), pick([True, False])]
        if data_type in ("entity", "multi_entity"):
            relation = pick(["is", "is_not", "in", "not_in", "name_contains", "type_is", "null", "not_null"])
            if relation in ("null", "not_null"):
                return [path, "is" if relation == "null" else "is_not", None]
            if relation == "name_contains":
                return [path, relation, pick(TEXTS)]
            if relation == "type_is":
                return [path, relation, pick(TYPES)]
            if not isinstance(value, dict):
                value = {"type": "Shot", "id": self.random.randint(1, 50)}
            return [path, relation, [value, {"type": "Asset", "id": 3}] if relation in ("in", "not_in") else value]
        return ["id", pick(["is", "greater_than"]), self.random.randint(1, 200)]

    def filters(self, ty, depth=3):
        filters = []
        for _ in range(self.random.choice([0, 1, 1, 1, 2, 2, 3])):
            if depth > 1 and self.random.random() < 0.25:
                operator = self.random.choice(["any", "all"])
                filters.append({"filter_operator": operator, "filters": self.filters(ty, depth - 1)})
            else:
                filters.append(self.condition(ty))
        return filters

    def query(self):
        ty, chance = self.random.choice(TYPES), self.random.random
        if chance() < 0.1:
            numbers = [name for name in self.names(ty) if self.schema[ty][name]["data_type"]["value"] == "number"]
            summaries = [{"field": "id", "type": "count"}]
            summaries += [{"field": name, "type": self.random.choice(["sum", "maximum"])} for name in numbers[1:2]]
            return "summarize", ty, (self.filters(ty), summaries), {}
        fields = list({self.path(ty)[0] for _ in range(self.random.randint(1, 8))})
        keywords = {"filter_operator": self.random.choice(["all", "any"])}
        if chance() < 0.5:
            direction = ["asc", "desc"]
            keys = range(self.random.randint(1, 2))
            order = [{"field_name": self.path(ty, 1)[0], "direction": self.random.choice(direction)} for _ in keys]
            keywords["order"] = order
        if chance() < 0.6:
            keywords["limit"] = self.random.randint(1, 40)
            keywords["page"] = self.random.randint(1, 3)
        if chance() < 0.1:
            keywords["include_archived_projects"] = False
        if chance() < 0.05:
            keywords["retired_only"] = True
        return "find", ty, (self.filters(ty), fields), keywords


def answer(sg, query):
    method, ty, arguments, keywords = query
    try:
        return getattr(sg, method)(ty, *arguments, **keywords)
    except shotgun_api3.Fault as fault:
        return "fault: %s" % fault


def compare(direct, through, query, moving):
    """The answers of the site and of the proxy, and how often they were asked for."""
    for tries in range(TRIES if moving else 1):
        expected, got = answer(direct, query), answer(through, query)
        if expected == got:
            break
        if moving and answer(direct, query) == expected:
            time.sleep(0.1)  # The cache follows within a moment.
    return expected, got, tries


def main(site, proxy, count, seed, moving):
    direct, through = (shotgun_api3.Shotgun(url, script_name="sgcache", api_key="sgcache-sim") for url in (site, proxy))
    drawer = Drawer(direct, seed)
    rows = faults = again = 0
    for number in range(count):
        query = drawer.query()
        expected, got, tries = compare(direct, through, query, moving)
        if expected != got:
            print("query %d of seed %d: %r\n  site:  %r\n  proxy: %r" % (number, seed, query, expected, got))
            return 1
        faults += isinstance(expected, str)
        rows += len(expected) if isinstance(expected, list) else 1
        again += tries > 0
    print("%d queries equal, %d rows, %d refused, %d asked again" % (count, rows, faults, again))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:] == ["moving"]))
