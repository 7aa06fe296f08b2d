"""The unmodified shotgun_api3 against a site: the calls that tools make every day.

    python test_client.py http://127.0.0.1:8190

The site must be one that may be written to. `SCRIPT` and `KEY` are those of the
simulated site.
"""

import datetime
import sys
import unittest

import shotgun_api3

SCRIPT = "sgcache"
KEY = "sgcache-sim"
URL = None


class ClientTest(unittest.TestCase):
    """Each test has a project of its own."""

    projects = 0

    def setUp(self):
        self.sg = shotgun_api3.Shotgun(URL, script_name=SCRIPT, api_key=KEY)
        ClientTest.projects += 1
        stamp = datetime.datetime.now().timestamp()
        name = "client test %d %f" % (ClientTest.projects, stamp)
        self.project = self.sg.create("Project", {"name": name})
        self.addCleanup(self.sg.close)

    def shots(self, count, **fields):
        data = dict(fields, project=self.project)
        batch = [
            {"request_type": "create", "entity_type": "Shot", "data": dict(data, code="%03d" % number)}
            for number in range(count)
        ]
        return self.sg.batch(batch)


class Reading(ClientTest):
    def test_filters_orders_and_limits(self):
        self.shots(5)
        found = self.sg.find(
            "Shot",
            [["project", "is", self.project], ["code", "not_in", ["001", "002"]]],
            ["code", "sg_status_list"],
            order=[{"field_name": "code", "direction": "desc"}],
            limit=2,
        )
        self.assertEqual([row["code"] for row in found], ["004", "003"])
        self.assertEqual(found[0]["sg_status_list"], "wtg")
        self.assertEqual(set(found[0]), {"type", "id", "code", "sg_status_list"})

    def test_nested_groups(self):
        self.shots(4)
        either = {"filter_operator": "any", "filters": [["code", "is", "000"], ["code", "ends_with", "3"]]}
        found = self.sg.find("Shot", [["project", "is", self.project], either], ["code"])
        self.assertEqual([row["code"] for row in found], ["000", "003"])

    def test_every_page_is_fetched(self):
        # The site's limit; there is no public way to ask for smaller pages.
        self.sg.config._records_per_page = 3
        self.shots(8)
        self.assertEqual(len(self.sg.find("Shot", [["project", "is", self.project]])), 8)
        self.assertEqual(len(self.sg.find("Shot", [["project", "is", self.project]], limit=7)), 7)
        self.assertEqual(len(self.sg.find("Shot", [["project", "is", self.project]], page=3)), 2)

    def test_find_one_and_deep_links(self):
        sequence = self.sg.create("Sequence", {"code": "010", "project": self.project})
        shot = self.shots(1, sg_sequence=sequence)[0]
        task = self.sg.create("Task", {"content": "comp", "project": self.project, "entity": shot})
        found = self.sg.find_one(
            "Task",
            [["entity.Shot.sg_sequence.Sequence.code", "is", "010"], ["id", "is", task["id"]]],
            ["entity.Shot.code", "entity"],
        )
        self.assertEqual(found["entity.Shot.code"], "000")
        self.assertEqual(found["entity"], {"type": "Shot", "id": shot["id"], "name": "000"})
        self.assertIsNone(self.sg.find_one("Task", [["id", "is", 99999999]]))

    def test_dates_come_as_datetimes(self):
        shot = self.shots(1)[0]
        created = self.sg.find_one("Shot", [["id", "is", shot["id"]]], ["created_at"])["created_at"]
        self.assertIsNotNone(created.tzinfo)
        recent = [["id", "is", shot["id"]], ["created_at", "in_last", 1, "HOUR"]]
        self.assertIsNotNone(self.sg.find_one("Shot", recent))
        task = self.sg.create("Task", {"content": "x", "project": self.project, "due_date": "1968-10-13"})
        self.assertEqual(task["due_date"], "1968-10-13")

    def test_summaries(self):
        self.shots(3, sg_cut_duration=10)
        self.shots(1, sg_cut_duration=5, sg_status_list="fin")
        result = self.sg.summarize(
            "Shot",
            [["project", "is", self.project]],
            [{"field": "id", "type": "count"}, {"field": "sg_cut_duration", "type": "sum"}],
            grouping=[{"field": "sg_status_list", "type": "exact", "direction": "asc"}],
        )
        self.assertEqual(result["summaries"], {"id": 4, "sg_cut_duration": 35})
        groups = [(group["group_value"], group["summaries"]["id"]) for group in result["groups"]]
        self.assertEqual(groups, [("fin", 1), ("wtg", 3)])

    def test_schema(self):
        self.assertIn("Shot", self.sg.schema_entity_read())
        field = self.sg.schema_field_read("Shot", "sg_status_list")["sg_status_list"]
        self.assertEqual(field["data_type"]["value"], "status_list")
        self.assertIn("ip", field["properties"]["valid_values"]["value"])
        self.assertIn("assets", self.sg.schema_read()["Shot"])


class Writing(ClientTest):
    def test_lists_of_links(self):
        shot = self.shots(1)[0]
        assets = [self.sg.create("Asset", {"code": code, "project": self.project}) for code in "abc"]
        self.sg.update("Shot", shot["id"], {"assets": assets[:2]})
        self.sg.update("Shot", shot["id"], {"assets": [assets[2]]}, multi_entity_update_modes={"assets": "add"})
        self.sg.update("Shot", shot["id"], {"assets": [assets[0]]}, multi_entity_update_modes={"assets": "remove"})
        found = self.sg.find_one("Shot", [["id", "is", shot["id"]]], ["assets"])
        self.assertEqual({link["name"] for link in found["assets"]}, {"b", "c"})
        other = self.sg.find_one("Asset", [["shots", "is", shot], ["code", "is", "b"]], ["shots"])
        self.assertEqual(other["shots"][0]["id"], shot["id"])

    def test_delete_and_revive(self):
        shot = self.shots(1)[0]
        self.assertTrue(self.sg.delete("Shot", shot["id"]))
        self.assertFalse(self.sg.delete("Shot", shot["id"]))
        self.assertIsNone(self.sg.find_one("Shot", [["id", "is", shot["id"]]]))
        self.assertIsNotNone(self.sg.find_one("Shot", [["id", "is", shot["id"]]], retired_only=True))
        self.assertTrue(self.sg.revive("Shot", shot["id"]))
        self.assertFalse(self.sg.revive("Shot", shot["id"]))

    def test_a_batch_fails_as_a_whole(self):
        requests = [
            {"request_type": "create", "entity_type": "Shot", "data": {"code": "x", "project": self.project}},
            {"request_type": "delete", "entity_type": "Shot", "entity_id": 99999999},
        ]
        with self.assertRaisesRegex(shotgun_api3.Fault, "request with index 1 failed"):
            self.sg.batch(requests)
        self.assertEqual(self.sg.find("Shot", [["project", "is", self.project]]), [])

    def test_text_survives(self):
        for text in ["ë ご \U0001f600", 'quote " and \\', "a\nb", "100% _x_"]:
            shot = self.sg.create("Shot", {"code": text, "project": self.project})
            self.assertEqual(shot["code"], text)
            self.assertEqual(self.sg.find_one("Shot", [["code", "is", text], ["project", "is", self.project]], ["code"])["code"], text)


class Following(ClientTest):
    def test_writes_are_in_the_event_log(self):
        newest = self.sg.find_one("EventLogEntry", [], ["id"], order=[{"field_name": "id", "direction": "desc"}])["id"]
        shot = self.shots(1)[0]
        self.sg.update("Shot", shot["id"], {"sg_status_list": "ip"})
        fields = ["event_type", "attribute_name", "meta", "entity", "project", "user"]
        events = self.sg.find("EventLogEntry", [["entity", "is", shot]], fields)
        change = [event for event in events if event["attribute_name"] == "sg_status_list" and not event["meta"].get("in_create")]
        self.assertEqual(len(change), 1)
        self.assertEqual(change[0]["meta"]["old_value"], "wtg")
        self.assertEqual(change[0]["user"]["name"], SCRIPT)
        self.assertTrue(all(event["id"] > 0 for event in events) and newest > 0)


class Refusals(ClientTest):
    def test_a_wrong_key(self):
        sg = shotgun_api3.Shotgun(URL, script_name=SCRIPT, api_key="wrong")
        self.addCleanup(sg.close)
        with self.assertRaises(shotgun_api3.AuthenticationFault):
            sg.find_one("Shot", [])

    def test_an_unknown_field_in_a_filter(self):
        with self.assertRaisesRegex(shotgun_api3.Fault, r"API read\(\) Task.code doesn't exist"):
            self.sg.find("Task", [["code", "is", "x"]])

    def test_a_session_token_logs_in(self):
        token = self.sg.get_session_token()
        other = shotgun_api3.Shotgun(URL, session_token=token)
        self.addCleanup(other.close)
        self.assertIsNotNone(other.find_one("Project", [["id", "is", self.project["id"]]]))


if __name__ == "__main__":
    URL = sys.argv.pop(1)
    unittest.main()
