"""The simulated site and the client's own Mockgun, asked the same questions.

    python test_mockgun.py http://127.0.0.1:8190

Mockgun takes its schema from the site; both get the same rows. Every relation that
both know is asked; where they disagree, `DIFFERENT` says what each answers and why
the site is believed. A difference that is gone fails too.
"""

import os
import sys
import tempfile
import unittest

import shotgun_api3
from shotgun_api3.lib import mockgun

SCRIPT = "sgcache"
KEY = "sgcache-sim"
URL = None

TEXTS = ["is", "is_not", "contains", "not_contains", "starts_with", "ends_with"]
ORDERED = ["is", "is_not", "less_than", "greater_than"]
LISTS = ["in", "not_in"]


def questions():
    """Every relation that Mockgun knows, by the type of the field."""
    for relation in TEXTS:
        for operand in ("fog", "FOGGY night", "x"):
            yield "Shot", ["description", relation, operand]
    for relation in ("is", "is_not"):
        yield "Shot", ["description", relation, None]
    for relation in LISTS:
        yield "Shot", ["description", relation, ["FOG", "foggy night"]]
        yield "Shot", ["sg_status_list", relation, ["ip", "fin"]]
    for relation in ("is", "is_not"):
        yield "Shot", ["sg_status_list", relation, "ip"]
        yield "Task", ["milestone", relation, True]
        yield "Task", ["milestone", relation, False]
    for relation in ORDERED:
        yield "Shot", ["sg_cut_in", relation, 5]
        yield "Task", ["due_date", relation, "2024-02-02"]
        yield "Version", ["sg_frames_aspect_ratio", relation, 1.5]
    yield "Shot", ["sg_cut_in", "is", None]
    yield "Shot", ["sg_cut_in", "is_not", None]
    yield "Shot", ["sg_cut_in", "between", 1, 5]
    yield "Shot", ["sg_cut_in", "not_between", 1, 4]
    yield "Shot", ["sg_cut_in", "in", [1, 9]]
    yield "Task", ["due_date", "between", "2024-01-01", "2024-02-02"]
    yield "Task", ["due_date", "in", ["2024-02-02"]]
    yield "Version", ["sg_frames_aspect_ratio", "between", 1.0, 1.5]
    for relation in ("is", "is_not"):
        yield "Shot", ["sg_sequence", relation, ("Sequence", 0)]
        yield "Shot", ["sg_sequence", relation, None]
        yield "Shot", ["assets", relation, ("Asset", 0)]
        yield "Shot", ["assets", relation, None]
    yield "Shot", ["sg_sequence", "in", [("Sequence", 0)]]
    yield "Shot", ["sg_sequence", "in", [("Sequence", 0), ("Sequence", 1)]]
    yield "Task", ["entity", "type_is", "Shot"]
    yield "Task", ["entity", "type_is_not", "Shot"]
    yield "Task", ["entity", "name_contains", "ALPHA"]
    yield "Task", ["entity", "name_contains", "alpha"]
    yield "Task", ["entity", "name_not_contains", "alpha"]
    yield "Task", ["entity", "name_starts_with", "al"]
    yield "Shot", ["sg_sequence.Sequence.code", "is", "seq a"]
    yield "Shot", ["sg_sequence.Sequence.code", "is_not", "seq a"]
    yield "Task", ["entity.Shot.code", "starts_with", "a"]
    yield "Shot", {"filter_operator": "any", "filters": [["code", "is", "alpha"], ["sg_cut_in", "is", 9]]}
    yield "Shot", {"filter_operator": "all", "filters": [["code", "is", "alpha"], ["sg_cut_in", "is", 9]]}


NULL = "Mockgun compares null with Python's <, which raises; on a site a row without a value never matches (3.5)"
LINK_NULL = "Mockgun takes a key of the link and raises when there is none; on a site a negation matches it (3.5)"
CASE = "names of links are compared without case on a site (3.5), with it in Mockgun (9, row 29)"
DIFFERENT = {
    "Shot sg_cut_in less_than 5": (["alpha"], TypeError, NULL),
    "Shot sg_cut_in greater_than 5": (["gamma"], TypeError, NULL),
    "Shot sg_cut_in between 1 5": (["alpha", "beta"], TypeError, NULL),
    "Shot sg_cut_in not_between 1 4": (
        shotgun_api3.Fault, TypeError, "the engine's own list of relations lacks it for numbers (9, row 1)"),
    "Task due_date less_than 2024-02-02": (["a1"], TypeError, NULL),
    "Task due_date greater_than 2024-02-02": (["b1"], TypeError, NULL),
    "Task due_date between 2024-01-01 2024-02-02": (["a1", "a2"], TypeError, NULL),
    "Version sg_frames_aspect_ratio less_than 1.5": (["v1"], TypeError, NULL),
    "Version sg_frames_aspect_ratio greater_than 1.5": (["v3"], TypeError, NULL),
    "Version sg_frames_aspect_ratio between 1.0 1.5": (["v1", "v2"], TypeError, NULL),
    "Shot sg_sequence in [Sequence 0]": (["alpha", "beta"], TypeError, LINK_NULL),
    "Shot sg_sequence in [Sequence 0, Sequence 1]": (
        ["alpha", "beta", "gamma"], TypeError, "Mockgun wants all of the links at once (9, row 29)"),
    "Task entity type_is Shot": (["a1", "a2", "b1"], TypeError, LINK_NULL),
    "Task entity type_is_not Shot": (["asset", "free"], TypeError, LINK_NULL),
    "Task entity name_contains ALPHA": (["a1", "a2"], TypeError, CASE),
    "Task entity name_contains alpha": (["a1", "a2"], TypeError, LINK_NULL),
    "Task entity name_not_contains alpha": (["asset", "b1", "free"], TypeError, LINK_NULL),
    "Task entity name_starts_with al": (
        shotgun_api3.Fault, TypeError, "the engine's own list of relations lacks it (9, row 2)"),
    "Task entity.Shot.code starts_with a": (
        ["a1", "a2"], shotgun_api3.ShotgunError, "a link of another type counts as null on a site (3.6), Mockgun raises"),
}


def words(entity_type, question):
    if isinstance(question, dict):
        return "%s %s of %d" % (entity_type, question["filter_operator"], len(question["filters"]))

    def one(operand):
        if isinstance(operand, tuple):
            return "%s %d" % operand
        if isinstance(operand, list):
            return "[%s]" % ", ".join(one(item) for item in operand)
        return str(operand)

    return " ".join([entity_type] + [one(part) for part in question])


class Side:
    """One of the two, with the same rows."""

    def __init__(self, sg):
        self.sg = sg
        self.rows = {}
        self.project = sg.create("Project", {"name": "differential"})
        for code in ("Seq A", "Seq B"):
            self.add("Sequence", code=code)
        for code in ("tree", "rock"):
            self.add("Asset", code=code)
        sequences, assets = self.rows["Sequence"], self.rows["Asset"]
        self.add("Shot", code="alpha", description="Foggy night", sg_cut_in=1, sg_status_list="ip",
                 sg_sequence=sequences[0], assets=assets)
        self.add("Shot", code="beta", description="fog", sg_cut_in=5, sg_status_list="fin",
                 sg_sequence=sequences[0], assets=[assets[1]])
        self.add("Shot", code="gamma", sg_cut_in=9, sg_status_list="wtg", sg_sequence=sequences[1])
        self.add("Shot", code="delta", description="clear", sg_status_list="hld")
        self.add("Shot", code="gone", description="fog", sg_cut_in=5)
        sg.delete("Shot", self.rows["Shot"][4]["id"])
        shots = self.rows["Shot"]
        self.add("Task", content="a1", entity=shots[0], due_date="2024-01-05", milestone=True)
        self.add("Task", content="a2", entity=shots[0], due_date="2024-02-02", milestone=False)
        self.add("Task", content="b1", entity=shots[1], due_date="2024-03-03", milestone=True)
        self.add("Task", content="asset", entity=assets[0], milestone=False)
        self.add("Task", content="free", milestone=False)
        for number, ratio in enumerate((1.0, 1.5, 2.0, None)):
            self.add("Version", code="v%d" % (number + 1), sg_frames_aspect_ratio=ratio)

    def add(self, entity_type, **fields):
        row = self.sg.create(entity_type, dict(fields, project=self.project))
        self.rows.setdefault(entity_type, []).append({"type": entity_type, "id": row["id"]})

    def operand(self, value):
        if isinstance(value, tuple):
            entity_type, index = value
            return self.rows[entity_type][index]
        if isinstance(value, list):
            return [self.operand(item) for item in value]
        return value

    def ask(self, entity_type, question, **arguments):
        name = "content" if entity_type == "Task" else "code"
        if isinstance(question, list):
            question = question[:2] + [self.operand(value) for value in question[2:]]
        mine = ["project", "is", {"type": "Project", "id": self.project["id"]}]
        try:
            found = self.sg.find(entity_type, [mine, question], [name], **arguments)
        except Exception as error:
            return type(error)
        return sorted(row[name] for row in found)


class Differential(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        sg = shotgun_api3.Shotgun(URL, SCRIPT, KEY)
        cls.folder = tempfile.TemporaryDirectory()
        paths = [os.path.join(cls.folder.name, name) for name in ("schema", "entities")]
        mockgun.generate_schema(sg, *paths)
        mockgun.Shotgun.set_schema_paths(*paths)
        cls.site = Side(sg)
        cls.mock = Side(mockgun.Shotgun("https://mock.example.com", SCRIPT, KEY))

    @classmethod
    def tearDownClass(cls):
        cls.site.sg.close()
        cls.folder.cleanup()

    def test_every_relation_that_both_know(self):
        disagreements = {}
        for entity_type, question in questions():
            site, mock = (side.ask(entity_type, question) for side in (self.site, self.mock))
            if site != mock:
                disagreements[words(entity_type, question)] = (site, mock)
        self.assertEqual(disagreements, {asked: answers[:2] for asked, answers in DIFFERENT.items()})

    def test_retired_rows_are_found_when_they_are_asked_for(self):
        question = ["description", "is", "fog"]
        for side in (self.site, self.mock):
            self.assertEqual(side.ask("Shot", question, retired_only=True), ["gone"])
            self.assertEqual(side.ask("Shot", question), ["beta"])

    def test_lists_of_links_change_in_the_same_way(self):
        for side in (self.site, self.mock):
            shot, assets = side.rows["Shot"][3], side.rows["Asset"]
            left = []
            for mode, links in (("set", assets), ("remove", assets[:1]), ("add", assets[:1]), ("set", [])):
                side.sg.update("Shot", shot["id"], {"assets": links}, multi_entity_update_modes={"assets": mode})
                row = side.sg.find_one("Shot", [["id", "is", shot["id"]]], ["assets"])
                left.append(sorted(asset["id"] for asset in row["assets"]))
            a, b = (asset["id"] for asset in assets)
            self.assertEqual(left, [[a, b], [b], [a, b], []])

    def test_the_last_sort_key_wins_in_mockgun_and_the_first_on_a_site(self):
        # Section 9, row 29.
        order = [{"field_name": "sg_status_list", "direction": "asc"}, {"field_name": "code", "direction": "asc"}]
        mine = lambda side: [["project", "is", {"type": "Project", "id": side.project["id"]}]]
        codes = [[row["code"] for row in side.sg.find("Shot", mine(side), ["code"], order)] for side in (self.site, self.mock)]
        self.assertEqual(codes, [["beta", "delta", "alpha", "gamma"], ["alpha", "beta", "delta", "gamma"]])


if __name__ == "__main__":
    URL = sys.argv.pop()
    unittest.main()
